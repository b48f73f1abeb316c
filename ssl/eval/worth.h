#pragma once

#include <saccade/core/tensor.h>
#include <saccade/ssl/eval/linear_probe.h>

#include <optional>
#include <span>

/// @file
/// What a classifier is worth on samples that it has not learned, once and over several draws.

namespace saccade::ssl {

struct Worth {
  double accuracy = 0;
  std::optional<double> auroc{};  ///< of class 1, where there are two classes and samples of both: see ssl::auroc()
};

/// @param features  (N, D), of samples with these labels
Worth worth_of(const LinearProbe& probe, const Tensor& features, std::span<const int> labels);

/// The mean of some values, and how far from it the mean of all such values may well lie.
struct Mean {
  double mean = 0;
  double error = 0;  ///< standard error: the deviation of the values (over n - 1) by the root of n; of one value, NaN
};

/// Throws Error when there is no value.
Mean mean_of(std::span<const double> values);

}  // namespace saccade::ssl
