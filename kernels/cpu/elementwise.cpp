#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/error.h>

#include <cstring>

namespace saccade::kernels {

namespace cpu {

void require_floating(DType dtype, std::string_view where) {
  if (!is_floating(dtype)) {
    throw Error(std::string(where) + ": expected elements of f32, f16 or bf16, got " + std::string(name_of(dtype)));
  }
}

namespace {

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
  with_type(call.from, [&]<class From>(Type<From>) {
    with_type(call.to, [&]<class To>(Type<To>) {
      for (int64_t i = 0; i < call.n; ++i)
        write(read(static_cast<const From*>(call.x)[i]), static_cast<To*>(call.y)[i]);
    });
  });
}

}  // namespace

void cast_floating(DType from, DType to, int64_t n, const void* x, void* y) { run_kernel(Cast{from, to, n, x, y}); }

void add_floats(int64_t n, const void* a, const void* b, void* y) {
  run_kernel(Combine{Binary::add, DType::f32, n, a, b, y});
}

}  // namespace cpu

using namespace cpu;

void CpuBackend::compute(const Fill& call) {
  if (is_floating(call.dtype)) return run_kernel(call);
  with_type(call.dtype, [&]<class T>(Type<T>) {
    for (int64_t i = 0; i < call.n; ++i) write(call.value, static_cast<T*>(call.y)[i]);
  });
}

void CpuBackend::compute(const Copy& call) {
  if (call.bytes > 0) std::memcpy(call.y, call.x, static_cast<size_t>(call.bytes));
}

void CpuBackend::compute(const Cast& call) {
  if (call.from == call.to) return compute(Copy{bytes_of(call.from, call.n), call.x, call.y});
  is_floating(call.from) && is_floating(call.to) ? run_kernel(call) : cast_any(call);
}

void CpuBackend::compute(const Scale& call) {
  require_floating(call.dtype, call.name);
  Scale known = call;
  if (call.by != nullptr) known.factor = *call.by;
  run_kernel(known);
}

}  // namespace saccade::kernels
