#pragma once

#include <cstdint>
#include <string_view>

namespace saccade::kernels {

/// Instruction sets our CPU kernels are compiled for, narrowest first.
enum class Isa : uint8_t { baseline, avx2, avx512 };
constexpr std::string_view name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline";
}
/// The widest set this processor has, capped by the environment variable SACCADE_ISA (avx512, avx2, baseline), which
/// caps oneDNN as well. Read once, at the first use.
Isa cpu_isa();

/// Threads of the one pool of the process (OpenMP's, shared with oneDNN): OMP_NUM_THREADS, else the cores.
int cpu_threads();

}  // namespace saccade::kernels
