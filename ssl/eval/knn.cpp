#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/eval/knn.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace saccade::ssl {

namespace {

void check_matrix(const char* what, const Tensor& t) {
  if (t.rank() != 2 || t.dtype() != DType::f32)
    fail(fmt::format("{}: expected an f32 matrix, got {} {}", what, name_of(t.dtype()), to_string(t.shape())));
}

void check_labels(const char* what, size_t labels, int64_t rows) {
  if (static_cast<int64_t>(labels) != rows) fail(fmt::format("{}: {} labels for {} rows", what, labels, rows));
}

std::vector<double> mean_row(const Tensor& x) {
  const auto dim = static_cast<size_t>(x.dim(1));
  std::vector<double> mean(dim);
  const auto values = x.data<float>();
  for (size_t i = 0; i < values.size(); ++i) mean[i % dim] += double{values[i]};
  for (double& m : mean) m /= static_cast<double>(x.dim(0));
  return mean;
}

Tensor without(const Tensor& x, const std::vector<double>& mean) {
  Tensor y = x.clone();
  const auto values = y.data<float>();
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(double{values[i]} - mean[i % mean.size()]);
  return y;
}

}  // namespace

Neighbours nearest(const Tensor& bank, const Tensor& queries, int64_t per_query) {
  check_matrix("nearest: bank", bank);
  check_matrix("nearest: queries", queries);
  if (bank.dim(1) != queries.dim(1) || bank.dim(0) < 1 || per_query < 1)
    fail(fmt::format("nearest: {} neighbours of queries {} in a bank {}", per_query, to_string(queries.shape()),
                     to_string(bank.shape())));
  const NoGradScope no_grad;
  const int64_t rows = bank.dim(0), asked = queries.dim(0), k = std::min(per_query, rows);
  const Tensor unit_bank = l2_normalize(bank), unit_queries = l2_normalize(queries);
  Neighbours result{
      .per_query = k,
      .index = std::vector<int32_t>(static_cast<size_t>(asked * k), -1),
      .cosine = std::vector<float>(static_cast<size_t>(asked * k), -std::numeric_limits<float>::infinity())};
  // A block of similarities stays in the second-level cache's reach: 256 x 4096 floats.
  constexpr int64_t query_block = 256, bank_block = 4096;
  for (int64_t q0 = 0; q0 < asked; q0 += query_block) {
    const int64_t q_count = std::min(query_block, asked - q0);
    for (int64_t b0 = 0; b0 < rows; b0 += bank_block) {
      const int64_t b_count = std::min(bank_block, rows - b0);
      const Tensor block = linear(unit_queries.slice(q0, q0 + q_count), unit_bank.slice(b0, b0 + b_count));
      const float* similarities = block.data<float>().data();
#pragma omp parallel for schedule(static)
      for (int64_t q = 0; q < q_count; ++q) {
        float* best = result.cosine.data() + (q0 + q) * k;
        int32_t* who = result.index.data() + (q0 + q) * k;
        const float* row = similarities + q * b_count;
        for (int64_t b = 0; b < b_count; ++b) {
          if (!(row[b] > best[k - 1])) continue;
          int64_t at = k - 1;  // insertion into the sorted k; strictly greater, so of equals the earlier stays ahead
          for (; at > 0 && row[b] > best[at - 1]; --at) {
            best[at] = best[at - 1];
            who[at] = who[at - 1];
          }
          best[at] = row[b];
          who[at] = static_cast<int32_t>(b0 + b);
        }
      }
    }
  }
  return result;
}

std::vector<int> knn_classify(const Tensor& bank, std::span<const int> labels, const Tensor& queries,
                              KnnOptions options) {
  check_labels("knn_classify", labels.size(), bank.dim(0));
  if (!(options.temperature > 0.f))
    fail(fmt::format("knn_classify: temperature {}; it must be positive", options.temperature));
  const int lowest = *std::min_element(labels.begin(), labels.end());
  if (lowest < 0) fail(fmt::format("knn_classify: label {}; labels are from 0", lowest));
  const auto classes = static_cast<size_t>(*std::max_element(labels.begin(), labels.end())) + 1;
  const std::vector<double> mean = options.center ? mean_row(bank) : std::vector<double>{};
  const Neighbours found = options.center ? nearest(without(bank, mean), without(queries, mean), options.neighbours)
                                          : nearest(bank, queries, options.neighbours);
  std::vector<int> predicted(static_cast<size_t>(queries.dim(0)));
  std::vector<double> votes(classes);
  for (size_t q = 0; q < predicted.size(); ++q) {
    std::fill(votes.begin(), votes.end(), 0.0);
    const size_t first = q * static_cast<size_t>(found.per_query), last = first + static_cast<size_t>(found.per_query);
    for (size_t n = first; n < last && found.index[n] >= 0; ++n)
      votes[static_cast<size_t>(labels[static_cast<size_t>(found.index[n])])] +=
          std::exp(double{found.cosine[n]} / options.temperature);
    predicted[q] = static_cast<int>(std::max_element(votes.begin(), votes.end()) - votes.begin());
  }
  return predicted;
}

double accuracy(std::span<const int> predicted, std::span<const int> labels) {
  check_labels("accuracy", labels.size(), static_cast<int64_t>(predicted.size()));
  int64_t right = 0;
  for (size_t i = 0; i < labels.size(); ++i) right += predicted[i] == labels[i];
  return labels.empty() ? 0.0 : static_cast<double>(right) / static_cast<double>(labels.size());
}

double retrieval_at_1(const Tensor& first, const Tensor& second) {
  if (first.shape() != second.shape())
    fail(fmt::format("retrieval_at_1: {} and {}; expected two views of the same images", to_string(first.shape()),
                     to_string(second.shape())));
  const Neighbours found = nearest(second, first, 1);
  int64_t right = 0;
  for (size_t i = 0; i < found.index.size(); ++i) right += found.index[i] == static_cast<int32_t>(i);
  return static_cast<double>(right) / static_cast<double>(first.dim(0));
}

}  // namespace saccade::ssl
