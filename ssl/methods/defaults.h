#pragma once

#include <algorithm>
#include <cstdint>

/// @file
/// Settings that a run takes when nobody chose them: where small-scale recipes of SwAV agree, scaled to the
/// batch.

namespace saccade::ssl {

/// The top of the schedule for SGD with LARC: 0.6 at 256 images, in proportion below; in large batches 0.3 for each 256
/// (the authors' 4.8 at 4096).
constexpr double default_larc_lr(int64_t batch) {
  return std::max(0.6 * static_cast<double>(std::min<int64_t>(batch, 256)), 0.3 * static_cast<double>(batch)) / 256;
}

/// The same for AdamW: 0.001 at 256 images, in proportion.
constexpr double default_adamw_lr(int64_t batch) { return 1e-3 * static_cast<double>(batch) / 256; }

/// Iterations of warm-up: none for SGD with LARC up to 512 images a batch; else ten epochs, but no more than a tenth of
/// the run.
constexpr int64_t default_warmup(bool larc, int64_t batch, int64_t per_epoch, int64_t iterations) {
  return larc && batch <= 512 ? 0 : std::min(10 * per_epoch, iterations / 10);
}

}  // namespace saccade::ssl
