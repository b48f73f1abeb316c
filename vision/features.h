#pragma once

#include <saccade/data/evaluate.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/network.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

/// @file
/// Networks and images together: what a trained network makes of the images of a source.

namespace saccade::vision {

/// How images are shown to a network, where it is used.
data::EvalView view_of(const ssl::TrunkInfo& info);

/// The pooled features (n, C) of all images of a source that can be read, off the tape and in evaluation mode, on the
/// network's device; the rows lie on the CPU. A row is the same, to the bit, whatever images are computed with it.
/// Throws Error, with the image's name and the layer, when a feature is not finite.
/// @param workers  threads that read images ahead; 0: the computing threads do it between batches
data::Rows features(nn::Trunk& trunk, const ssl::TrunkInfo& info, const data::Source& source, int workers = 0);
inline data::Rows features(const ssl::Network& network, const data::Source& source, int workers = 0) {
  return features(*network.trunk, network.info, source, workers);
}

/// Images that are judged by, on the way: ssl::TrainerOptions::evaluate that measures {"kNN", accuracy}.
/// @param left_out  told once of each image that cannot be read, and why
std::function<std::vector<std::pair<std::string, double>>(int64_t iteration)> knn_test(
    std::shared_ptr<nn::Trunk> trunk, const ssl::TrunkInfo& info, data::LabelledPair images,
    const ssl::KnnOptions& options = {}, std::function<void(const std::string& reason)> left_out = {});

}  // namespace saccade::vision
