#pragma once

#include <cmath>
#include <cstdint>

namespace saccade::optim {

/// SwAV's learning rate (Caron et al. 2020, as in the authors' program): linear from `start` to `base` over `warmup`
/// iterations, both ends reached, then half a cosine from `base` towards `final` over the remaining ones.
/// A pure function of the iteration (from 0); past the end it stays at `final`.
struct WarmupCosine {
  double base = 0.0, start = 0.0, final = 0.0;
  int64_t warmup = 0, total = 0;  ///< iterations; total counts the warm-up

  float operator()(int64_t iteration) const {
    if (iteration < warmup) {
      if (warmup == 1) return static_cast<float>(start);
      return static_cast<float>(start +
                                (base - start) * static_cast<double>(iteration) / static_cast<double>(warmup - 1));
    }
    if (iteration >= total) return static_cast<float>(final);
    const double progress = static_cast<double>(iteration - warmup) / static_cast<double>(total - warmup);
    return static_cast<float>(final + 0.5 * (base - final) * (1.0 + std::cos(3.141592653589793 * progress)));
  }
};

/// The same rate always.
struct Constant {
  double base = 0.0;
  float operator()(int64_t) const { return static_cast<float>(base); }
};

}  // namespace saccade::optim
