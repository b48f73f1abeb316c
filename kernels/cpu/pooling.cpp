#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>
#include <saccade/kernels/cpu/simd/pooling.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels {

using namespace cpu;

namespace {

const PoolingKernels& table() {
  return for_this_processor(PoolingKernels::baseline, PoolingKernels::avx2, PoolingKernels::avx512);
}

template <class Call>
void run_segments(void (*kernel)(const Call&, const Segment*, int64_t), const Call& call) {
  require_floating(call.dtype, call.name);
  kernel(call, call.segments.data(), static_cast<int64_t>(call.segments.size()));
}

/// Calls body(segment, its output, elements of the input before it, elements of the output before it).
template <class Call, class Body>
void for_segments(const Call& call, Body body) {
  if (const std::string refusal = call.refusal(); !refusal.empty()) throw Error(refusal);
  require_floating(call.window.dtype, "max_pool");
  int64_t in_before = 0, out_before = 0;
  for (const Segment& s : call.segments) {
    const Segment out = call.window.output(s);
    body(s, out, in_before, out_before);
    in_before += s.rows() * call.window.in_channels;
    out_before += out.rows() * call.window.in_channels;
  }
}

}  // namespace

void CpuBackend::run(const GlobalAvgPool& call) { run_segments(table().average, call); }
void CpuBackend::run(const GlobalAvgPoolGradient& call) { run_segments(table().average_gradient, call); }
void CpuBackend::run(const ChannelScale& call) { run_segments(table().scale, call); }
void CpuBackend::run(const ChannelScaleFactorGradient& call) { run_segments(table().scale_factor_gradient, call); }
void CpuBackend::run(const ChannelScaleInputGradient& call) { run_segments(table().scale_input_gradient, call); }

void CpuBackend::run(const MaxPool& call) {
  const DType dtype = call.window.dtype;
  for_segments(call, [&](const Segment& in, const Segment& out, int64_t in_before, int64_t out_before) {
    table().max(call.window, in, out, static_cast<const char*>(call.x) + bytes_of(dtype, in_before),
                static_cast<char*>(call.y) + bytes_of(dtype, out_before), call.argmax + out_before);
  });
}

void CpuBackend::run(const MaxPoolGradient& call) {
  const DType dtype = call.window.dtype;
  for_segments(call, [&](const Segment& in, const Segment& out, int64_t in_before, int64_t out_before) {
    table().max_gradient(call.window, in, out, static_cast<const char*>(call.dy) + bytes_of(dtype, out_before),
                         call.argmax + out_before, static_cast<char*>(call.dx) + bytes_of(dtype, in_before));
  });
}

}  // namespace saccade::kernels
