#pragma once

#include <saccade/kernels/conv.h>

#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

namespace saccade::plan {

/// The workspaces of convolutions on a GPU that is not here, from what cuDNN answered for the convolutions of all named
/// RegNets in f16 (core/plan/conv_workspaces/*.csv): of a plan never less than it would take for the shapes that were
/// asked, 4 to 64 images at the resolutions of 224 and 96 pixel crops. What is not in the table is taken to need copies
/// of its images and outputs.
class ConvWorkspaces {
 public:
  /// @param name  "v100", "a100", "h100". Throws Error on another.
  explicit ConvWorkspaces(std::string_view name);

  /// Bytes, as the CUDA backend's workspace() of the pass would answer.
  size_t operator()(const kernels::Conv2d&, std::span<const Segment> in, kernels::ConvPass) const;

  /// A plan takes constant + slope * (elements of the images) bytes at the most.
  struct Line {
    double slope = 0, constant = 0;
    double at(int64_t elements) const { return constant + slope * static_cast<double>(elements); }
  };
  /// What a row is about: kernel, stride, padding, channels in and out, groups.
  using Key = std::array<int64_t, 6>;
  static Key key_of(const kernels::Conv2d& conv) {
    return {conv.kernel, conv.stride, conv.padding, conv.in_channels, conv.out_channels, conv.groups};
  }
  /// All 1x1 convolutions that are matrix products, of whatever channels.
  static constexpr Key kProduct{1, 1, 0, 0, 0, 1};
  /// By pass.
  using Rows = std::map<Key, std::array<Line, 3>>;
  const Rows& rows() const { return rows_; }

 private:
  Rows rows_;
};

}  // namespace saccade::plan
