#pragma once

#include <saccade/kernels/call.h>

#include <string_view>

/// @file
/// Sums, and calls on the rows of a matrix.

namespace saccade::kernels {

/// What calls on the rows of a matrix begin with.
struct OnRows {
  DType dtype = DType::f32;
  int64_t rows = 0, channels = 0;
  static void shape(auto& c, auto&& visit) { visit(c.rows), visit(c.channels), visit(c.dtype); }
  int64_t bytes() const { return bytes_of(dtype, rows * channels); }
};

/// out[c] = sum over rows of x[row, c] (a bias' gradient), f32 whatever the dtype of x.
struct ColumnSum : OnRows {
  const void* x = nullptr;
  float* out = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "column_sum";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.bytes(), Use::fresh);
    visit(c.out, bytes_of_floats(c.channels), Use::write);
  }
};

/// out[0] = sum of all elements, f32.
struct Sum {
  DType dtype = DType::f32;
  int64_t n = 0;
  const void* x = nullptr;
  float* out = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "sum";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, bytes_of(c.dtype, c.n), Use::fresh);
    visit(c.out, bytes_of_floats(1), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.n), visit(c.dtype); }
};

/// y = x / max(|x|, eps) a row; norm[row] = max(|x|, eps).
struct L2Normalize : OnRows {
  float eps = 1e-12f;
  const void* x = nullptr;
  void* y = nullptr;
  float* norm = nullptr;
  static constexpr std::string_view name = "l2_normalize";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.bytes(), Use::fresh);
    visit(c.y, c.bytes(), Use::write);
    visit(c.norm, bytes_of_floats(c.rows), Use::write);
  }
};

/// dx = (dy - y * (y . dy)) / norm; where the norm was clamped to eps, dx = dy / eps. dx may be dy.
struct L2NormalizeGradient : OnRows {
  float eps = 1e-12f;
  const void* y = nullptr;
  const float* norm = nullptr;
  const void* dy = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "l2_normalize_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.y, c.bytes(), Use::read);
    visit(c.norm, bytes_of_floats(c.rows), Use::read);
    visit(c.dy, c.bytes(), Use::fresh);
    visit(c.dx, c.bytes(), Use::write);
  }
};

/// out[row] = ln sum over channels of e^x, f32: no exponential overflows.
struct LogSumExp : OnRows {
  const void* x = nullptr;
  float* out = nullptr;
  static constexpr std::string_view name = "log_sum_exp";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.bytes(), Use::fresh);
    visit(c.out, bytes_of_floats(c.rows), Use::write);
  }
};

/// dx = e^(x - out[row]) dout[row].
struct LogSumExpGradient : OnRows {
  const void* x = nullptr;
  const float *out = nullptr, *dout = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "log_sum_exp_gradient";
  static void operands(auto& c, auto&& visit) {
    visit_each(visit, bytes_of_floats(c.rows), Use::read, c.out, c.dout);
    visit(c.x, c.bytes(), Use::read);
    visit(c.dx, c.bytes(), Use::write);
  }
};

}  // namespace saccade::kernels
