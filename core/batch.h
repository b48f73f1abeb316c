#pragma once

#include <saccade/core/tensor.h>
#include <saccade/kernels/pixels.h>

#include <cstdint>
#include <vector>

namespace saccade {

/// What a loader hands over: the crops of B images as one ragged image tensor. A segment is one resolution; within it
/// the crops are stacked along N, crop after crop: image b of the segment's crop c is number c * B + b. The segments
/// stand in the order of the crops, so that the crops that assign come first.
struct Batch {
  Tensor images;                 ///< (sum of N*H*W, C), f32, normalised; or u8, which BatchUpload makes f32 of
  kernels::PixelScale scale;     ///< how, where they are u8
  std::vector<int64_t> indices;  ///< of the B samples in their source
  std::vector<int> labels;       ///< of the B samples, -1 or empty where there are none
  int64_t epoch = 0;             ///< which pass over the source
  int64_t iteration = 0;         ///< number of this batch, from 0, over all epochs

  int64_t size() const { return static_cast<int64_t>(indices.size()); }
};

}  // namespace saccade
