#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/cpu/simd/elementwise.h>
#include <saccade/kernels/cpu/simd/rows.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cstring>

namespace saccade::kernels {

namespace cpu {

void require_floating(DType dtype, std::string_view where) {
  if (!is_floating(dtype)) {
    throw Error(std::string(where) + ": expected elements of f32, f16 or bf16, got " + std::string(name_of(dtype)));
  }
}

namespace {

const ElementwiseKernels& elementwise() {
  return for_this_processor(ElementwiseKernels::baseline, ElementwiseKernels::avx2, ElementwiseKernels::avx512);
}
const RowKernels& rows() { return for_this_processor(RowKernels::baseline, RowKernels::avx2, RowKernels::avx512); }

template <class Call>
void run_floating(void (*kernel)(const Call&), DType dtype, std::string_view name, const Call& call) {
  require_floating(dtype, name);
  kernel(call);
}

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
void cast_any(const Cast& call) {
  with_elements(call.from, call.x, [&](const auto* source) {
    with_elements(call.to, call.y, [&](auto* target) {
      for (int64_t i = 0; i < call.n; ++i) write(read(source[i]), target[i]);
    });
  });
}

}  // namespace

void cast_floating(DType from, DType to, int64_t n, const void* x, void* y) { elementwise().cast({from, to, n, x, y}); }

void add_floats(int64_t n, const void* a, const void* b, void* y) {
  elementwise().combine({Binary::add, DType::f32, n, a, b, y});
}

}  // namespace cpu

using namespace cpu;

Device CpuBackend::device() const { return Device::cpu; }

void CpuBackend::to_host(size_t bytes, const void* x, void* host) { run(Copy{static_cast<int64_t>(bytes), x, host}); }
void CpuBackend::from_host(size_t bytes, const void* host, void* y) { run(Copy{static_cast<int64_t>(bytes), host, y}); }

void CpuBackend::run(const Fill& call) {
  if (is_floating(call.dtype)) return elementwise().fill(call);
  with_elements(call.dtype, call.y, [&](auto* to) {
    for (int64_t i = 0; i < call.n; ++i) write(call.value, to[i]);
  });
}

void CpuBackend::run(const Copy& call) {
  if (call.bytes > 0) std::memcpy(call.y, call.x, static_cast<size_t>(call.bytes));
}

void CpuBackend::run(const Cast& call) {
  if (call.from == call.to) return run(Copy{bytes_of(call.from, call.n), call.x, call.y});
  is_floating(call.from) && is_floating(call.to) ? elementwise().cast(call) : cast_any(call);
}

void CpuBackend::run(const Map& c) { run_floating(elementwise().map, c.dtype, name_of(c.function), c); }
void CpuBackend::run(const MapGradient& c) {
  run_floating(elementwise().map_gradient, c.dtype, name_of(c.function), c);
}
void CpuBackend::run(const Combine& c) { run_floating(elementwise().combine, c.dtype, name_of(c.function), c); }
void CpuBackend::run(const Scale& c) { run_floating(elementwise().scale, c.dtype, c.name, c); }
void CpuBackend::run(const ScaleBy& c) { run(Scale{c.dtype, c.n, c.x, *c.factor, c.y}); }
void CpuBackend::run(const ColumnSum& c) { run_floating(rows().column_sum, c.dtype, c.name, c); }
void CpuBackend::run(const Sum& c) { run_floating(rows().sum, c.dtype, c.name, c); }
void CpuBackend::run(const L2Normalize& c) { run_floating(rows().l2_normalize, c.dtype, c.name, c); }
void CpuBackend::run(const L2NormalizeGradient& c) { run_floating(rows().l2_normalize_gradient, c.dtype, c.name, c); }
void CpuBackend::run(const LogSumExp& c) { run_floating(rows().log_sum_exp, c.dtype, c.name, c); }
void CpuBackend::run(const LogSumExpGradient& c) { run_floating(rows().log_sum_exp_gradient, c.dtype, c.name, c); }

}  // namespace saccade::kernels
