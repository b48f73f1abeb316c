#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/ssl/eval/auroc.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace saccade::ssl {

double auroc(std::span<const float> scores, std::span<const int> labels, int positive) {
  if (scores.size() != labels.size()) fail(fmt::format("auroc: {} scores for {} labels", scores.size(), labels.size()));
  struct Sample {
    float score;
    bool positive;
  };
  std::vector<Sample> samples;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isnan(scores[i])) fail(fmt::format("auroc: the score of sample {} is not a number", i));
    samples.push_back({scores[i], labels[i] == positive});
  }
  const auto positives = static_cast<double>(std::ranges::count(samples, true, &Sample::positive));
  const double negatives = static_cast<double>(samples.size()) - positives;
  if (positives == 0 || negatives == 0)
    fail(fmt::format("auroc: of {} samples {} are of class {}; expected some of it and some of another", samples.size(),
                     positives == 0 ? "none" : "all", positive));

  std::ranges::sort(samples, {}, &Sample::score);
  // Upwards, a group of equal scores at a time: each positive is above all negatives so far, and level with its
  // group's.
  double pairs = 0, below = 0;
  for (auto first = samples.begin(); first != samples.end();) {
    const auto last = std::ranges::upper_bound(first, samples.end(), first->score, {}, &Sample::score);
    const auto here = static_cast<double>(std::count_if(first, last, [](const Sample& s) { return s.positive; }));
    const double others = static_cast<double>(last - first) - here;
    pairs += here * (below + 0.5 * others);
    below += others;
    first = last;
  }
  return pairs / (positives * negatives);
}

}  // namespace saccade::ssl
