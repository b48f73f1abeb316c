#pragma once

#include <saccade/core/io/safetensors.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Golden files (tests/goldens): what PyTorch computed, and the formulas that stand for the weights and inputs it
/// computed it from. tests/goldens/formula.py is the same in Python, to the bit.
///
/// The formulas and the files count elements in PyTorch's order: images (N, C, H, W), convolution weights
/// (out, in / groups, kh, kw). torch_order() and the makers of tensors convert.
namespace saccade::golden {

using Values = std::vector<float>;

/// splitmix64's finaliser of fnv1a64(name) + (i + 1) * golden ratio.
uint64_t hash(std::string_view name, uint64_t i);
/// `count` values in [-scale, scale): (2 u - 1) scale with u the top 24 bits of the hash as a fraction.
Values signed_values(std::string_view name, int64_t count, double scale = 1.0);
/// A parameter or buffer, by what its name ends in; fan_in is used for weights of rank 2 and more (see formula.py).
Values parameter_values(std::string_view name, int64_t count, int64_t rank, int64_t fan_in);

/// (N, H, W) images of C channels from values in PyTorch's order.
Tensor images(const Values& values, Segment segment, int64_t channels);
/// Network input: pixel noise, plus an offset for each image and channel.
Tensor image_input(std::string_view name, Segment segment);
/// Image tensors below one another as one ragged tensor.
Tensor ragged(const std::vector<Tensor>& parts);
/// The images of segment i alone, off the tape.
Tensor segment_of(const Tensor& images, size_t i);
/// The tensor of that name and shape: convolution weights are (out, kh, kw, in / groups).
Tensor parameter(std::string_view name, const Shape& shape);
/// Sets every tensor (a module's named_tensors()) by its name; queues are left as they are.
void fill(const std::vector<NamedTensor>& tensors);

/// The values in PyTorch's order: images become (N, C, H, W), weights of rank 4 (out, in / groups, kh, kw).
Values torch_order(const Tensor& tensor);

/// ||ours - theirs|| / ||theirs||.
double relative_error(const Values& ours, const Values& theirs);
double relative_error(const Tensor& ours, const Tensor& theirs);

/// A golden file.
class File {
 public:
  explicit File(const std::string& path) : file_(io::load_safetensors(path)) {}
  const Tensor& operator[](std::string_view name) const { return file_[name]; }
  const std::string& text(const std::string& key) const;
  /// The number behind "key=" in the metadata `line`.
  double setting(const std::string& line, std::string_view key) const;
  /// The three numbers of a metadata entry "n h w".
  Segment segment(const std::string& key) const;

 private:
  io::Safetensors file_;
};

/// What a golden file keeps of many large tensors: norm, first values, four random projections each.
class Ledger {
 public:
  /// @param prefix  of the tensors; @param names  the metadata entry with the tensors' names, one a line
  Ledger(const File& file, const std::string& prefix, const std::string& names);

  const std::vector<std::string>& names() const { return names_; }
  /// The norm-wise relative error of the tensor of that name: the largest of what its norm, its first values and its
  /// projections show. Throws where the ledger has no such name.
  double error(std::string_view name, const Values& ours) const;

 private:
  std::vector<std::string> names_;
  Values norms_, slices_, projections_;
};

}  // namespace saccade::golden
