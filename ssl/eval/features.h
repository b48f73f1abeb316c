#pragma once

#include <saccade/core/tensor.h>
#include <saccade/nn/trunk.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace saccade::ssl {

/// A module in evaluation mode while the scope lives.
class EvaluationScope {
 public:
  explicit EvaluationScope(nn::Module& module) : module_(module), was_training_(module.is_training()) {
    module_.train(false);
  }
  ~EvaluationScope() { module_.train(was_training_); }
  EvaluationScope(const EvaluationScope&) = delete;
  EvaluationScope& operator=(const EvaluationScope&) = delete;

 private:
  nn::Module& module_;
  bool was_training_;
};

/// Gives images [first, last) of a data set as an image tensor of last - first images, in order.
using ImageRange = std::function<Tensor(int64_t first, int64_t last)>;

/// Features (count, grid * grid * C) of images [0, count): the trunk's last map in evaluation mode, off the tape,
/// `batch` images at a time, averaged over each cell of a grid x grid partition of the map (cells overlap by a row or
/// column where the side is no multiple; cells from left to right, then down; C numbers each). With grid 1 that is
/// trunk.features(), the pooled features. A grid of 2 keeps where in the image something is: better for centred
/// photographs, as evaluations of SEER's RegNets pool their last map to (2, 1). The trunk gets its mode back. Features
/// do not depend on how images fall into batches beyond rounding: evaluation has no batch statistics.
Tensor features(nn::Trunk& trunk, const ImageRange& images, int64_t count, int64_t batch = 512, int64_t grid = 1);

/// The map (one segment of N images, C channels, on the CPU) averaged over each cell of such a partition:
/// (N, grid * grid * C).
Tensor pool_to_grid(const Tensor& map, int64_t grid);

/// Why the features of images are not finite: "the layer stem.0 is the first whose result is not", or that the images
/// already are not. Empty when they are finite.
std::string where_not_finite(nn::Trunk& trunk, const Tensor& images);

/// Rows chosen by index, as a new matrix.
Tensor gather_rows(const Tensor& matrix, const std::vector<int64_t>& rows);

/// Scales each row of an f32 matrix on the CPU to length 1, in place, so that products of rows are cosines. A row of
/// zeros stays one.
void scale_to_unit_length(const Tensor& rows);

}  // namespace saccade::ssl
