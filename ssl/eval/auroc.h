#pragma once

#include <span>

namespace saccade::ssl {

/// Area under the ROC curve: how often a sample of the class `positive` has a higher score than one of any other class,
/// equal scores counting half (Mann-Whitney's U over all pairs). 1/2 is chance, 1 is perfect, and which share of the
/// samples is of the class does not matter, as it does to accuracy.
/// Throws Error unless there are samples of the class and of others, a score a label, and no score is NaN.
double auroc(std::span<const float> scores, std::span<const int> labels, int positive = 1);

}  // namespace saccade::ssl
