#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>
#include <vector>

namespace saccade::ssl {

/// A prototype and the images that stand nearest to it.
struct PrototypeImages {
  int64_t prototype = 0;
  int64_t nearest_of = 0;       ///< how many images have this prototype as their nearest
  std::vector<int32_t> images;  ///< rows of the embeddings, nearest first
};

/// Shows what prototypes have come to stand for. Of the prototypes that are the nearest of at least one image, `count`
/// are chosen, evenly over their order by number of images, the most used first.
/// @param prototypes  (K, D)
/// @param embeddings  (N, D), one an image
std::vector<PrototypeImages> images_of_prototypes(const Tensor& prototypes, const Tensor& embeddings, int64_t count,
                                                  int64_t images_each);

}  // namespace saccade::ssl
