#pragma once

#include <saccade/nn/module.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace saccade::nn {

/// What turns images into features: a stem, then stages, each at a lower resolution.
/// Called, it gives the last stage's map as images of out_channels().
class Trunk : public Module {
 public:
  virtual int64_t out_channels() const = 0;

  /// The pooled features: images of all segments, in order -> (N, out_channels()).
  Tensor features(const Tensor& images);
  /// The maps behind the stem and behind each stage, in order (VISSL's conv1, res2, res3, ...).
  std::vector<Tensor> forward_stages(const Tensor& images);

  virtual size_t stage_count() const = 0;  ///< with the stem
  /// The map behind the stem (stage 0, from images) or a stage (from the map before it).
  virtual Tensor forward_stage(size_t stage, const Tensor& x) = 0;

 protected:
  Tensor forward(const Tensor& images) override;
};

/// The trunk of that description, first values drawn from `seed`: "resnet50" (see resnet.h), or a RegNet ("y_400mf",
/// "y_400mf:stem=cifar", "y:d=6,w0=16,wa=8,wm=2,g=8"; see regnet.h).
std::shared_ptr<Trunk> trunk(std::string_view description, uint64_t seed = 0);

}  // namespace saccade::nn
