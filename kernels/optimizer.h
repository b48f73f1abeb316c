#pragma once

#include <cstdint>

namespace saccade::kernels {

/// One parameter tensor of a multi-tensor update. All f32; state2 is null where the optimiser has one state only.
struct ParameterSlot {
  float* parameter = nullptr;
  const float* gradient = nullptr;
  float* state1 = nullptr;  ///< momentum, or AdamW's first moment
  float* state2 = nullptr;  ///< AdamW's second moment
  int64_t elements = 0;
};

/// One gradient of a multi-tensor pass over gradients, f32, changed in place.
struct GradientSlot {
  float* gradient = nullptr;
  int64_t elements = 0;
};

/// SGD with momentum; with trust > 0 each tensor's gradient is first scaled by LARC (You et al. 2017, as in apex, no
/// clip): r = trust*|p| / (|g| + wd*|p| + eps); g <- (g + wd*p)*r, only where |p| and |g| are non-zero (elsewhere the
/// gradient is used as it is, without weight decay). Then m <- momentum*m + g; p <- p - lr*m (Nesterov: g +
/// momentum*m).
struct Sgd {
  float lr = 0.1f, momentum = 0.9f, weight_decay = 0.f;
  float trust = 0.f;  ///< 0: plain SGD (weight decay is then added to every gradient)
  float larc_eps = 1e-8f;
  bool nesterov = false;
};

/// AdamW (Loshchilov & Hutter 2019): p <- p*(1 - lr*wd) - lr * m_hat / (sqrt(v_hat) + eps).
struct AdamW {
  float lr = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.01f;
  int64_t step = 1;  ///< number of this update, from 1 (bias correction)
};

}  // namespace saccade::kernels
