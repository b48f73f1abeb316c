#pragma once

#include <saccade/kernels/dtype.h>

namespace saccade::kernels {

/// Batch normalisation over rows of channels, with an optional residual addition and ReLU fused behind it:
/// y = relu?( gamma * (x - mean) * rstd + beta (+ residual) ). Statistics per segment, in f32.
/// (Ioffe & Szegedy 2015, algorithm 1; training normalises with the biased variance, the running variance is unbiased.)
struct BatchNorm {
  int64_t channels = 0;
  float eps = 1e-5f;
  float momentum = 0.1f;  ///< running = (1 - momentum) * running + momentum * batch, once a segment, in segment order
  bool relu = false;
  DType dtype = DType::f32;  ///< of x, residual, y and their gradients; everything else is f32
};

}  // namespace saccade::kernels
