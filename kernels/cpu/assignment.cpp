#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/simd/assignment.h>

#include <algorithm>

namespace saccade::kernels {

using namespace cpu;

namespace {

/// Chunks of rows, each with its own column sums: at most 32, of 16 rows or more.
SinkhornScratch plan(const Sinkhorn& spec, void* workspace) {
  SinkhornScratch scratch{};
  scratch.chunk_rows = std::max<int64_t>(16, (spec.rows + 31) / 32);
  scratch.chunks = (spec.rows + scratch.chunk_rows - 1) / scratch.chunk_rows;
  scratch.row_potentials = static_cast<float*>(workspace);
  scratch.columns = scratch.row_potentials + spec.rows;
  scratch.exponentials = scratch.columns + scratch.chunks * spec.prototypes;
  return scratch;
}

}  // namespace

size_t CpuBackend::scratch(const SinkhornRows& call) const {
  const SinkhornScratch scratch = plan(call.spec, nullptr);
  return static_cast<size_t>(bytes_of_floats(call.spec.rows + 2 * scratch.chunks * call.spec.prototypes));
}

void CpuBackend::compute(const SinkhornRows& call) { run_kernel(call, plan(call.spec, call.workspace)); }
void CpuBackend::compute(const SinkhornColumns& call) { run_kernel(call, plan(call.spec, call.workspace)); }

}  // namespace saccade::kernels
