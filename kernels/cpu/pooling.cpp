#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels {

namespace {

/// Segment by segment, with its output and the elements of both before it.
void run_segments(const auto& call) {
  if (const std::string refusal = call.refusal(); !refusal.empty()) throw Error(refusal);
  cpu::require_floating(call.window.dtype, "max_pool");
  int64_t in_before = 0, out_before = 0;
  for (const Segment& s : call.segments) {
    const Segment out = call.window.output(s);
    cpu::run_kernel(call, s, out, in_before, out_before);
    in_before += s.rows() * call.window.in_channels;
    out_before += out.rows() * call.window.in_channels;
  }
}

}  // namespace

void CpuBackend::compute(const MaxPool& call) { run_segments(call); }
void CpuBackend::compute(const MaxPoolGradient& call) { run_segments(call); }

}  // namespace saccade::kernels
