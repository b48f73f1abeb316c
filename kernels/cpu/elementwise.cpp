#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cstring>

namespace saccade::kernels {

namespace cpu {

void require_floating(DType dtype, const char* where) {
  if (!is_floating(dtype)) {
    throw Error(std::string(where) + ": expected elements of f32, f16 or bf16, got " + std::string(name_of(dtype)));
  }
}

namespace {

const ElementwiseKernels& elementwise() {
  return for_this_processor(baseline::elementwise, avx2::elementwise, avx512::elementwise);
}
const RowKernels& rows() { return for_this_processor(baseline::rows, avx2::rows, avx512::rows); }

/// Calls body(pointer of the element type) for any dtype.
template <class Pointer, class Body>
void with_elements(DType dtype, Pointer* data, Body body) {
  constexpr bool constant = std::is_const_v<Pointer>;
  auto as = [&]<class T>(T) { body(static_cast<std::conditional_t<constant, const T*, T*>>(data)); };
  switch (dtype) {
    case DType::f32:
      return as(float{});
    case DType::f16:
      return as(Half{});
    case DType::bf16:
      return as(BFloat16{});
    case DType::i32:
      return as(int32_t{});
    case DType::i64:
      return as(int64_t{});
    case DType::u8:
      return as(uint8_t{});
  }
}

double read(float value) { return value; }
double read(Half value) { return value.to_float(); }
double read(BFloat16 value) { return value.to_float(); }
template <class Integer>
double read(Integer value) {
  return static_cast<double>(value);
}
void write(double value, Half& to) { to = Half::from(static_cast<float>(value)); }
void write(double value, BFloat16& to) { to = BFloat16::from(static_cast<float>(value)); }
template <class T>
void write(double value, T& to) {
  to = static_cast<T>(value);
}

/// Conversions from or to integers, through double (exact but for i64 beyond 2^53); towards an integer it truncates.
void cast_any(DType from, DType to, int64_t n, const void* x, void* y) {
  with_elements(from, x, [&](const auto* source) {
    with_elements(to, y, [&](auto* target) {
      for (int64_t i = 0; i < n; ++i) write(read(source[i]), target[i]);
    });
  });
}

}  // namespace

void cast_floating(DType from, DType to, int64_t n, const void* x, void* y) { elementwise().cast(from, to, n, x, y); }

void add_floats(int64_t n, const void* a, const void* b, void* y) { elementwise().add(DType::f32, n, a, b, y); }

}  // namespace cpu

using namespace cpu;

Device CpuBackend::device() const { return Device::cpu; }

void CpuBackend::fill(DType dtype, int64_t n, float value, void* y) {
  if (is_floating(dtype)) return elementwise().fill(dtype, n, value, y);
  with_elements(dtype, y, [&](auto* to) {
    for (int64_t i = 0; i < n; ++i) write(value, to[i]);
  });
}

void CpuBackend::copy(size_t bytes, const void* x, void* y) {
  if (bytes > 0) std::memcpy(y, x, bytes);
}

void CpuBackend::to_host(size_t bytes, const void* x, void* host) { copy(bytes, x, host); }
void CpuBackend::from_host(size_t bytes, const void* host, void* y) { copy(bytes, host, y); }

void CpuBackend::cast(DType from, DType to, int64_t n, const void* x, void* y) {
  if (from == to) return copy(static_cast<size_t>(n) * size_of(from), x, y);
  if (is_floating(from) && is_floating(to)) return elementwise().cast(from, to, n, x, y);
  cast_any(from, to, n, x, y);
}

void CpuBackend::add(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  require_floating(dtype, "add");
  elementwise().add(dtype, n, a, b, y);
}

void CpuBackend::scale(DType dtype, int64_t n, const void* x, float factor, void* y) {
  require_floating(dtype, "scale");
  elementwise().scale(dtype, n, x, factor, y);
}

void CpuBackend::scale_by(DType dtype, int64_t n, const void* x, const float* factor, void* y) {
  scale(dtype, n, x, *factor, y);
}

void CpuBackend::multiply(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  require_floating(dtype, "multiply");
  elementwise().multiply(dtype, n, a, b, y);
}

void CpuBackend::relu_forward(DType dtype, int64_t n, const void* x, void* y) {
  require_floating(dtype, "relu");
  elementwise().relu_forward(dtype, n, x, y);
}

void CpuBackend::relu_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  require_floating(dtype, "relu");
  elementwise().relu_backward(dtype, n, y, dy, dx);
}

void CpuBackend::sigmoid_forward(DType dtype, int64_t n, const void* x, void* y) {
  require_floating(dtype, "sigmoid");
  elementwise().sigmoid_forward(dtype, n, x, y);
}

void CpuBackend::sigmoid_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  require_floating(dtype, "sigmoid");
  elementwise().sigmoid_backward(dtype, n, y, dy, dx);
}

void CpuBackend::column_sum(DType dtype, int64_t row_count, int64_t channels, const void* x, float* out) {
  require_floating(dtype, "column_sum");
  rows().column_sum(dtype, row_count, channels, x, out);
}

void CpuBackend::sum(DType dtype, int64_t n, const void* x, float* out) {
  require_floating(dtype, "sum");
  rows().sum(dtype, n, x, out);
}

void CpuBackend::l2_normalize_forward(DType dtype, int64_t row_count, int64_t channels, float eps, const void* x,
                                      void* y, float* norm) {
  require_floating(dtype, "l2_normalize");
  rows().l2_normalize_forward(dtype, row_count, channels, eps, x, y, norm);
}

void CpuBackend::l2_normalize_backward(DType dtype, int64_t row_count, int64_t channels, float eps, const void* y,
                                       const float* norm, const void* dy, void* dx) {
  require_floating(dtype, "l2_normalize");
  rows().l2_normalize_backward(dtype, row_count, channels, eps, y, norm, dy, dx);
}

}  // namespace saccade::kernels
