#pragma once

#include <saccade/kernels/dtype.h>

namespace saccade::kernels {

/// c = alpha * op(a) op(b) + beta * c (+ bias as a row), row-major and dense.
/// op(a) is (m, k): a is stored (m, k), or (k, m) when transpose_a; op(b) is (k, n), stored (n, k) when transpose_b.
struct MatMul {
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  float alpha = 1.f, beta = 0.f;
  DType dtype = DType::f32;      ///< of a and b
  DType out_dtype = DType::f32;  ///< of c and bias
  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
  friend bool operator==(const MatMul&, const MatMul&) = default;
};

}  // namespace saccade::kernels
