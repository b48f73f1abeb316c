#pragma once

#include <saccade/core/tensor.h>
#include <saccade/nn/trunk.h>

#include <cstdint>
#include <functional>
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

/// Pooled features (count, C) of images [0, count): trunk.features() in evaluation mode, off the tape,
/// `batch` images at a time. The trunk gets its mode back. Features do not depend on how images fall into batches
/// beyond rounding: evaluation has no batch statistics.
Tensor features(nn::Trunk& trunk, const ImageRange& images, int64_t count, int64_t batch = 512);

/// Rows chosen by index, as a new matrix.
Tensor gather_rows(const Tensor& matrix, const std::vector<int64_t>& rows);

}  // namespace saccade::ssl
