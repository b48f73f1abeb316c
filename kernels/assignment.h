#pragma once

#include <cstdint>

namespace saccade::kernels {

/// Sinkhorn-Knopp assignment in the log domain (Cuturi 2013; SwAV, Caron et al. 2020, eq. 3-4 and appendix A.1).
/// With S (rows, prototypes): a_k = -ln K - LSE_b(S/eps + c_b), c_b = -ln N - LSE_k(S/eps + a_k), starting from
/// constant c, `iterations` times; q[b, :] = softmax_k(S[b, :]/eps + a).
struct Sinkhorn {
  int64_t rows = 0, prototypes = 0;
  float eps = 0.05f;
  int iterations = 3;
};

/// SwAV's swapped-prediction loss (Caron et al. 2020, eq. 1-2, over all ordered pairs of an assigning and a predicting
/// crop): L = 1/A sum_i 1/(V-1) sum_{v != i} mean_b( -sum_k q_i[b,k] log softmax(s_v[b,:]/tau)[k] ).
/// Scores are crop-major: row v * batch + b. Assignments likewise, for the first `assigning` crops.
struct SwappedPrediction {
  int64_t batch = 0, crops = 0, assigning = 2, prototypes = 0;
  float temperature = 0.1f;
};

}  // namespace saccade::kernels
