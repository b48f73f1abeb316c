#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

namespace saccade::kernels {

using namespace cpu;

namespace {

const AssignmentKernels& table() {
  return for_this_processor(baseline::assignment, avx2::assignment, avx512::assignment);
}

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

size_t CpuBackend::sinkhorn_workspace(const Sinkhorn& spec) const {
  const SinkhornScratch scratch = plan(spec, nullptr);
  return static_cast<size_t>(spec.rows + 2 * scratch.chunks * spec.prototypes) * sizeof(float);
}

void CpuBackend::sinkhorn_potentials(const Sinkhorn& spec, const float* scores, float* potentials, void* workspace) {
  table().sinkhorn_potentials(spec, plan(spec, workspace), scores, potentials);
}

void CpuBackend::sinkhorn_assign(const Sinkhorn& spec, const float* scores, const float* potentials, float* q) {
  table().sinkhorn_assign(spec, scores, potentials, q);
}

void CpuBackend::swapped_prediction(const SwappedPrediction& spec, const float* scores, const float* q, float* loss,
                                    float* dscores) {
  table().swapped_prediction(spec, scores, q, loss, dscores);
}

void CpuBackend::cross_entropy(int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                               float* dlogits) {
  table().cross_entropy(rows, classes, logits, labels, loss, dlogits);
}

}  // namespace saccade::kernels
