#pragma once

#include <saccade/data/evaluate.h>
#include <saccade/ssl/eval/baselines.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/network.h>

#include <functional>
#include <string>
#include <vector>

/// @file
/// Features beside what nobody trained: the pixels themselves, and a network with its first weights.

namespace saccade::vision {

/// Pixels a side that are kept of an image as a row of raw pixels: those that the network is shown, averaged over areas
/// to at most 32 x 32 and at most 1024 numbers (18 x 18 in colour), so that an image takes 4 KiB whatever its size. (On
/// CIFAR-10 fewer pixels are no worse for kNN: 32 x 32 have 46 % right, 16 x 16 47 %.)
int pixel_side(int size, int64_t channels);

/// Features of all images of a source by each of the networks, and behind them their raw pixels, (n, side * side * C),
/// normalised as the networks are shown them. Each image is read once. See vision::features().
/// @param info  how images are shown to all of the networks
std::vector<data::Rows> features_and_pixels(const std::vector<nn::Trunk*>& trunks, const ssl::TrunkInfo& info,
                                            const data::Source& source, int workers = 0);

/// What kNN gets right by raw pixels, and by the network as it now is, which nobody has trained. Costs as much as one
/// knn_test(), and the pixels' search for neighbours.
ssl::Baselines knn_baselines(nn::Trunk& untrained, const ssl::TrunkInfo& info, const data::LabelledPair& images,
                             const ssl::KnnOptions& options = {}, int workers = 0);

}  // namespace saccade::vision
