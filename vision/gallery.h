#pragma once

#include <saccade/data/evaluate.h>
#include <saccade/data/source.h>
#include <saccade/nn/module.h>
#include <saccade/ssl/report/html_report.h>

#include <cstdint>
#include <functional>

/// @file
/// Pictures of a data set for reports.

namespace saccade::vision {

/// The middle square of a sample, at most side x side pixels, labelled with the name of its file. Throws Error when the
/// sample cannot be read.
ssl::Thumbnail thumbnail(const data::Source& source, int64_t sample, int side);

/// What prototypes have come to stand for: the images nearest to some of them, by cosine, for RunReporter::add().
/// @param model       what embeds: put into evaluation mode meanwhile
/// @param embed       images on the model's device -> embeddings (N, D)
/// @param prototypes  (K, D)
/// @param images      looked at, at most, evenly spaced over the source
ssl::Gallery prototype_gallery(nn::Module& model, const std::function<Tensor(const Tensor& images)>& embed,
                               const Tensor& prototypes, const data::Source& source, const data::EvalView& view,
                               int64_t images = 2000);

}  // namespace saccade::vision
