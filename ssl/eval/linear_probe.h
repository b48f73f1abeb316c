#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace saccade::ssl {

struct LinearProbeOptions {
  /// Strengths of the L2 penalty to choose from, each (l2 / 2) |W|^2 beside the mean cross-entropy of standardised
  /// features. The best by log loss on rows held out is refitted on all rows.
  std::vector<double> l2 = {3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-4};
  int max_iterations = 100;        ///< of L-BFGS, per fit
  int64_t selection_rows = 10000;  ///< at most this many rows, evenly spread, take part in the choice
};

/// A linear classifier of raw features: logits = x weight^T + bias.
struct LinearProbe {
  Tensor weight;  ///< (classes, features)
  Tensor bias;    ///< (classes)
  double l2 = 0;  ///< the strength chosen

  std::vector<int> classify(const Tensor& features) const;

  /// Of two classes: by how much the logit of class 1 is above that of class 0, for each row.
  std::vector<float> margins(const Tensor& features) const;
};

/// Softmax regression on fixed features (N, D) f32 with labels from 0: full batch, L-BFGS (Liu & Nocedal 1989), so
/// there is neither a learning rate nor a seed to choose. Features are standardised inside; the result is for raw ones.
LinearProbe fit_linear_probe(const Tensor& features, std::span<const int> labels, LinearProbeOptions options = {});

}  // namespace saccade::ssl
