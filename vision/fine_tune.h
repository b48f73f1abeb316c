#pragma once

#include <saccade/data/loader.h>
#include <saccade/data/multi_crop.h>
#include <saccade/ssl/eval/fine_tune.h>
#include <saccade/ssl/network.h>

#include <memory>

/// @file
/// Whole networks on the images of a source that have labels.

namespace saccade::vision {

/// How labelled images are changed: one crop of 40 to 100 % of the area, of the size that the network is shown, every
/// other one mirrored. Colour and sharpness stay, since they may be what tells classes apart.
data::MultiCrop mild_crops(const ssl::TrunkInfo& info);

/// ssl::fine_tune() on a source whose samples all have labels.
/// @param loading  its batch is cut to the number of samples
ssl::Classifier fine_tune(std::shared_ptr<nn::Trunk> trunk, const data::Source& labelled, const data::View& views,
                          const ssl::FineTuneOptions& options, data::LoaderOptions loading);

}  // namespace saccade::vision
