#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace saccade::ssl {

struct KnnOptions {
  int64_t neighbours = 20;
  float temperature = 0.07f;
  /// Takes the bank's mean off bank and queries first: cosines of features that are never negative (pixels, ReLU
  /// outputs) otherwise all look alike. Papers do without.
  bool center = true;
};

/// The nearest rows of a bank to each query, by cosine, nearest first; of equals, the lower index first.
struct Neighbours {
  int64_t per_query = 0;
  std::vector<int32_t> index;  ///< (queries, per_query)
  std::vector<float> cosine;   ///< (queries, per_query)
};

/// Brute force in blocks: one matrix product and a running top-k. bank (N, D), queries (M, D), f32; rows need not be
/// unit length. `per_query` is cut to N.
Neighbours nearest(const Tensor& bank, const Tensor& queries, int64_t per_query);

/// Class of each query by a vote of its k nearest, each weighing exp(cosine / temperature) (Wu et al. 2018). Labels are
/// from 0. Equal votes go to the lower class.
std::vector<int> knn_classify(const Tensor& bank, std::span<const int> labels, const Tensor& queries,
                              KnnOptions options = {});

/// Share of `predicted` equal to `labels`, in [0, 1].
double accuracy(std::span<const int> predicted, std::span<const int> labels);

/// A label-free number of quality: how often the nearest of `second`'s rows to row i of `first` is row i, where row i
/// of both shows the same image (R@1). Chance is 1 / rows. (N, D) both.
double retrieval_at_1(const Tensor& first, const Tensor& second);

}  // namespace saccade::ssl
