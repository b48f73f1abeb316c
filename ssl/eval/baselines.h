#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// @file
/// What features are measured by: what the same judge makes of that which nobody trained.

namespace saccade::ssl {

/// "raw pixels", "untrained network", and the share that each has right.
using Baselines = std::vector<std::pair<std::string, double>>;

/// "raw pixels 45.8 %, untrained network 29.1 %"
std::string text_of(const Baselines& baselines);

/// A sentence where features have less right than a baseline, with what helps; empty where they have not.
/// @param measure   by which judge: "kNN"
/// @param accuracy  of the features
std::string below_baselines(std::string_view measure, double accuracy, const Baselines& baselines);

}  // namespace saccade::ssl
