#pragma once

#include <saccade/core/tensor.h>

#include <cstdint>

/// @file
/// Rows of several crops of images, crop after crop: image b of crop c is row c * images + b.

namespace saccade::ssl {

/// The rows of images [first, last) of all, copied: (crops * (last - first), D).
Tensor take_images(const Tensor& all, int64_t crops, int64_t first, int64_t last);

/// Copies rows into those of the images from `first` on. `part` may have more crops than `all`: they are left out.
void put_images(const Tensor& all, int64_t crops, int64_t first, const Tensor& part, int64_t images);

}  // namespace saccade::ssl
