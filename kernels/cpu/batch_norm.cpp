#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

namespace saccade::kernels {

using namespace cpu;

namespace {

const BatchNormKernels& table() {
  return for_this_processor(baseline::batch_norm, avx2::batch_norm, avx512::batch_norm);
}

/// The shape of a call: how rows are cut, and where the scratch lies.
BatchNormCall plan(const BatchNorm& spec, std::span<const Segment> segments) {
  BatchNormCall call{};
  call.spec = spec;
  call.segments = segments.data();
  call.segment_count = static_cast<int64_t>(segments.size());
  call.padded = (spec.channels + 15) / 16 * 16;
  // About 32k elements (half of an L1 cache's worth of rows stays cheap to reduce; partial sums are 1/32 of the data
  // or less).
  call.chunk_rows = std::clamp<int64_t>(32768 / spec.channels, 64, 2048);
  for (const Segment& s : segments) call.chunks += (s.rows() + call.chunk_rows - 1) / call.chunk_rows;
  return call;
}

void place(BatchNormCall& call, void* workspace) {
  call.partial_sums = static_cast<float*>(workspace);
  call.coefficients = call.partial_sums + call.chunks * BatchNormCall::partial_rows * call.padded;
}

}  // namespace

size_t CpuBackend::batch_norm_workspace(const BatchNorm& spec, std::span<const Segment> segments) const {
  const BatchNormCall call = plan(spec, segments);
  return static_cast<size_t>(
             (call.chunks * BatchNormCall::partial_rows + call.segment_count * BatchNormCall::coefficient_rows) *
             call.padded) *
         sizeof(float);
}

void CpuBackend::batch_norm_forward(const BatchNorm& spec, std::span<const Segment> segments, const void* x,
                                    const void* residual, const float* gamma, const float* beta, float* mean,
                                    float* rstd, float* running_mean, float* running_var, void* y, void* workspace) {
  require_floating(spec.dtype, "batch_norm");
  BatchNormCall call = plan(spec, segments);
  place(call, workspace);
  call.x = x;
  call.residual = residual;
  call.gamma = gamma;
  call.beta = beta;
  call.mean = mean;
  call.rstd = rstd;
  call.running_mean = running_mean;
  call.running_var = running_var;
  call.y = y;
  table().forward(call);
}

void CpuBackend::batch_norm_apply(const BatchNorm& spec, std::span<const Segment> segments, const void* x,
                                  const float* gamma, const float* beta, const float* mean, const float* rstd,
                                  void* y) {
  require_floating(spec.dtype, "batch_norm");
  BatchNormCall call = plan(spec, segments);
  call.x = x;
  call.gamma = gamma;
  call.beta = beta;
  call.mean = const_cast<float*>(mean);  // as in backward
  call.rstd = const_cast<float*>(rstd);
  call.y = y;
  table().apply(call);
}

void CpuBackend::batch_norm_inference(const BatchNorm& spec, int64_t rows, const void* x, const void* residual,
                                      const float* gamma, const float* beta, const float* running_mean,
                                      const float* running_var, void* y) {
  require_floating(spec.dtype, "batch_norm");
  table().inference(spec, rows, x, residual, gamma, beta, running_mean, running_var, y);
}

void CpuBackend::batch_norm_backward(const BatchNorm& spec, std::span<const Segment> segments, const void* x,
                                     const void* y, const void* dy, const float* gamma, const float* beta,
                                     const float* mean, const float* rstd, void* dx, void* dresidual, float* dgamma,
                                     float* dbeta, void* workspace) {
  require_floating(spec.dtype, "batch_norm");
  BatchNormCall call = plan(spec, segments);
  place(call, workspace);
  call.x = x;
  call.saved_y = y;
  call.dy = dy;
  call.gamma = gamma;
  call.beta = beta;
  call.mean = const_cast<float*>(mean);  // one struct for both directions; backward only reads it
  call.rstd = const_cast<float*>(rstd);
  call.dx = dx;
  call.dresidual = dresidual;
  call.dgamma = dgamma;
  call.dbeta = dbeta;
  table().backward(call);
}

}  // namespace saccade::kernels
