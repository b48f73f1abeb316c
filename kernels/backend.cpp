#include <cpuid.h>
#include <dnnl.h>
#include <omp.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>
#include <saccade/kernels/rehearsal.h>

#include <cstdlib>
#include <string_view>

namespace saccade::kernels {

namespace {

CpuBackend& cpu_backend() {
  static CpuBackend cpu;
  cpu_isa();  // caps oneDNN, which must happen before its first primitive
  return cpu;
}

}  // namespace

Backend& backend(Device device) {
  if (device == Device::cuda) return cuda_backend();
  return device == Device::meta ? meta_backend() : cpu_backend();
}

namespace {

/// What __builtin_cpu_supports() of older compilers does not know.
bool has_f16c_and_lzcnt() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_F16C) == 0) return false;
  return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT) != 0;
}

Isa widest_of_this_processor() {
  __builtin_cpu_init();
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && has_f16c_and_lzcnt();
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::avx512 : v3 ? Isa::avx2 : Isa::baseline;
}

Isa choose_isa() {
  const Isa widest = widest_of_this_processor();
  const char* text = std::getenv("SACCADE_ISA");
  if (text == nullptr || *text == '\0') return widest;
  for (const Isa cap : {Isa::baseline, Isa::avx2, Isa::avx512}) {
    if (std::string_view(text) != name_of(cap)) continue;
    // oneDNN's narrowest cap is SSE4.1. A failure means that it has been used already, with what it chose itself.
    if (cap == Isa::baseline) dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
    if (cap == Isa::avx2) dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
    return cap < widest ? cap : widest;
  }
  throw Error("SACCADE_ISA: expected avx512, avx2 or baseline, got \"" + std::string(text) + "\"");
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = choose_isa();
  return isa;
}

int cpu_threads() { return omp_get_max_threads(); }

}  // namespace saccade::kernels
