#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/simd/batch_norm.h>

#include <algorithm>

namespace saccade::kernels {

using namespace cpu;

namespace {

/// What lies at the beginning of a workspace: moments or factors.
int64_t result_floats(const BatchNormPlan& plan) {
  return plan.segment_count * BatchNormPlan::result_rows * plan.padded;
}

BatchNormPlan plan_of(const BatchNorm& norm, const Segments& segments, void* workspace = nullptr) {
  BatchNormPlan plan{};
  plan.channels = norm.channels;
  plan.padded = (norm.channels + 15) / 16 * 16;
  plan.segments = segments.data();
  plan.segment_count = static_cast<int64_t>(segments.size());
  plan.all_rows = total_rows(segments);
  // About 32k elements (half of an L1 cache's worth of rows stays cheap to reduce; partial sums are 1/32 of the data
  // or less).
  plan.chunk_rows = std::clamp<int64_t>(32768 / norm.channels, 64, 2048);
  for (const Segment& s : segments) plan.chunks += (s.rows() + plan.chunk_rows - 1) / plan.chunk_rows;
  if (workspace != nullptr) plan.partial_sums = static_cast<float*>(workspace) + result_floats(plan);
  return plan;
}

size_t workspace_of(const BatchNorm& norm, const Segments& segments) {
  const BatchNormPlan plan = plan_of(norm, segments);
  return static_cast<size_t>(
      bytes_of_floats(plan.chunks * BatchNormPlan::partial_rows * plan.padded + result_floats(plan)));
}

void run_planned(const auto& call, void* workspace = nullptr) {
  require_floating(call.norm.dtype, "batch_norm");
  run_kernel(call, plan_of(call.norm, call.segments, workspace));
}

}  // namespace

size_t CpuBackend::scratch(const BatchNormMoments& call) const { return workspace_of(call.norm, call.segments); }
size_t CpuBackend::scratch(const BatchNormBackwardSums& call) const { return workspace_of(call.norm, call.segments); }

void CpuBackend::compute(const BatchNormMoments& call) { run_planned(call, call.workspace); }
void CpuBackend::compute(const BatchNormMerge& call) { run_planned(call); }
void CpuBackend::compute(const BatchNormApply& call) { run_planned(call); }
void CpuBackend::compute(const BatchNormBackwardSums& call) { run_planned(call, call.workspace); }
void CpuBackend::compute(const BatchNormBackwardMap& call) { run_planned(call); }
void CpuBackend::compute(const BatchNormInference& call) {
  require_floating(call.norm.dtype, "batch_norm");
  run_kernel(call);
}

}  // namespace saccade::kernels
