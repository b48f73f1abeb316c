#include <saccade/core/layer.h>
#include <saccade/ssl/eval/auroc.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/worth.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace saccade::ssl {

Worth worth_of(const LinearProbe& probe, const Tensor& features, std::span<const int> labels) {
  Worth worth{.accuracy = accuracy(probe.classify(features), labels)};
  const auto second = std::ranges::count(labels, 1);
  if (probe.weight.dim(0) == 2 && second > 0 && second < std::ssize(labels))
    worth.auroc = auroc(probe.margins(features), labels);
  return worth;
}

Mean mean_of(std::span<const double> values) {
  if (values.empty()) fail("mean_of: no values");
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {.mean = mean, .error = std::sqrt(squares / (n - 1) / n)};
}

}  // namespace saccade::ssl
