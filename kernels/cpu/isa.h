#pragma once

#include <saccade/kernels/dtype.h>
#include <saccade/kernels/processor.h>

#include <string_view>

/// Private to the CPU backend: what goes with the kernels that are compiled once per instruction set (simd/), tables of
/// functions, one table a family. The files of simd/ read calls, pointers and counts, and call no inline function of
/// other headers: a weak copy of one, compiled for a wide set, could be the one the linker keeps for everybody.
namespace saccade::kernels::cpu {

/// The table of the instruction set in use.
template <class Table>
const Table& for_this_processor(const Table& baseline, const Table& avx2, const Table& avx512) {
  const Isa isa = cpu_isa();
  return isa == Isa::avx512 ? avx512 : isa == Isa::avx2 ? avx2 : baseline;
}

/// Throws unless the storage type is one the CPU's kernels read and write: f32, f16, bf16.
void require_floating(DType dtype, std::string_view where);

/// Between f32, f16 and bf16.
void cast_floating(DType from, DType to, int64_t n, const void* x, void* y);
/// y = a + b in f32; y may be a or b.
void add_floats(int64_t n, const void* a, const void* b, void* y);

}  // namespace saccade::kernels::cpu
