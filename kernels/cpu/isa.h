#pragma once

#include <saccade/kernels/dtype.h>
#include <saccade/kernels/processor.h>

#include <string_view>

/// Private to the CPU backend: what goes with the kernels that are compiled once per instruction set (simd/). The files
/// of simd/ read calls, pointers and counts, and call no inline function of other headers: a weak copy of one, compiled
/// for a wide set, could be the one the linker keeps for everybody.
namespace saccade::kernels::cpu {

/// A call by the kernel of an instruction set, with what else that takes (how the call is cut, scratch). Each file of
/// simd/ defines it for its calls, once a set.
namespace baseline {
template <class Call, class... With>
void compute(const Call& call, With... with);
}
namespace avx2 {
template <class Call, class... With>
void compute(const Call& call, With... with);
}
namespace avx512 {
template <class Call, class... With>
void compute(const Call& call, With... with);
}

/// By that of the set in use.
template <class Call, class... With>
void run_kernel(const Call& call, With... with) {
  const Isa isa = cpu_isa();
  if (isa == Isa::avx512) return avx512::compute(call, with...);
  isa == Isa::avx2 ? avx2::compute(call, with...) : baseline::compute(call, with...);
}

/// Functions that are no calls: the table of the set in use.
template <class Table>
const Table& for_this_processor() {
  const Isa isa = cpu_isa();
  return isa == Isa::avx512 ? Table::avx512 : isa == Isa::avx2 ? Table::avx2 : Table::baseline;
}

/// Throws unless the storage type is one the CPU's kernels read and write: f32, f16, bf16.
void require_floating(DType dtype, std::string_view where);

/// Between f32, f16 and bf16.
void cast_floating(DType from, DType to, int64_t n, const void* x, void* y);
/// y = a + b in f32; y may be a or b.
void add_floats(int64_t n, const void* a, const void* b, void* y);

}  // namespace saccade::kernels::cpu
