#pragma once

#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/segments.h>

namespace saccade::kernels::cpu {

/// How a call is cut: the rows of each segment into chunks of `chunk_rows` (the last may be shorter), the unit of the
/// reductions, whatever the number of threads.
struct BatchNormPlan {
  static constexpr int64_t partial_rows = 3, result_rows = 3;
  int64_t channels, padded;  ///< padded: rounded up to whole vectors
  const Segment* segments;
  int64_t segment_count, all_rows;
  int64_t chunk_rows, chunks;  ///< chunks: of all segments
  float* partial_sums;         ///< (chunks, partial_rows, padded)
};

}  // namespace saccade::kernels::cpu
