#pragma once

#include <saccade/kernels/assignment.h>

namespace saccade::kernels::cpu {

/// Where Sinkhorn's iterations keep their state, all f32 in the caller's workspace.
struct SinkhornScratch {
  int64_t chunk_rows, chunks;
  float* row_potentials;  ///< c, (rows)
  float* columns;         ///< (chunks, prototypes): column sums of each chunk of rows
  float* exponentials;    ///< (chunks, prototypes): one row at work a chunk
};

}  // namespace saccade::kernels::cpu
