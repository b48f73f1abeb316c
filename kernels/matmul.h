#pragma once

#include <saccade/kernels/call.h>

#include <string_view>

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

/// `bias` (n) may be null.
struct MatrixProduct {
  MatMul product = {};
  const void *a = nullptr, *b = nullptr, *bias = nullptr;
  void *c = nullptr, *workspace = nullptr;
  static constexpr std::string_view name = "matmul";
  static void operands(auto& call, auto&& visit) {
    const MatMul& p = call.product;
    visit(call.a, bytes_of(p.dtype, p.m * p.k), Use::fresh);
    visit(call.b, bytes_of(p.dtype, p.k * p.n), Use::read);
    visit(call.bias, bytes_of(p.out_dtype, p.n), optional(Use::read));
    visit(call.c, bytes_of(p.out_dtype, p.m * p.n), p.beta == 0.f ? Use::write : Use::update);
  }
  static void shape(auto& call, auto&& visit) {
    auto& p = call.product;
    visit(p.m), visit(p.n), visit(p.k), visit(p.transpose_a), visit(p.transpose_b), visit(p.beta), visit(p.dtype),
        visit(p.out_dtype);
  }
  double flops() const { return product.flops(); }
};

}  // namespace saccade::kernels
