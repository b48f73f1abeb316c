#include <omp.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

#include "onednn.h"

namespace saccade::kernels {
namespace cpu {
namespace {

struct ConvKey {
  Conv2d conv;
  Segments in;
  ConvPass pass;
  int threads;
  bool operator==(const ConvKey&) const = default;
};

struct ConvKeyHash {
  size_t operator()(const ConvKey& key) const {
    onednn::KeyHash hash;
    const Conv2d& c = key.conv;
    hash(c.in_channels)(c.out_channels)(c.kernel)(c.stride)(c.padding)(c.groups)(static_cast<int64_t>(c.dtype));
    for (const Segment& s : key.in) hash(s.n)(s.h)(s.w);
    return hash(static_cast<int64_t>(key.pass))(key.threads).value;
  }
};

}  // namespace

/// Chosen by measurement (bench/conv; one thread of a Zen 4, f32):
/// - grouped 3x3: our own kernels are 1.0 to 3 times as fast as oneDNN (the table in grouped_conv.h), but not in weight
///   gradients of wide groups;
/// - dense 3x3 with more weights than pixels can pay for (ResNet's last stage on small crops): own 1.3 times in forward
///   and data gradient, unfolding 1.8 times in the weight gradient; elsewhere oneDNN is at 85 to 115 % of the peak;
/// - 1x1: one product over all segments 1.0 to 1.3 times, with stride 2 (of gathered rows) 1.1 to 1.7 times; but
///   oneDNN's convolution for few channels: 1.1 to 1.4 times, weight gradients below 128 x 128 1.1 to 1.8 times.
ConvPlan choose_plan(const Conv2d& c, const Segments& in, ConvPass pass) {
  const bool widened = !onednn::computes_in(c.dtype);
  if (is_pointwise(c)) {
    if (widened) return plan_widened(c, in, pass);
    const bool few = pass == ConvPass::forward         ? c.out_channels < 32 && c.stride == 1
                     : pass == ConvPass::backward_data ? c.in_channels < 48
                     : c.stride == 1                   ? c.weight_elements() <= 128 * 128
                                                       : c.in_channels < 48;
    return few ? plan_onednn(c, in, pass) : plan_pointwise(c, in, pass);
  }
  int64_t rows = 0;
  for (const Segment& s : in) rows += c.output(s).rows();
  const bool heavy = c.groups == 1 && c.kernel == 3 && rows <= 2 * c.in_channels;
  const int64_t widest = pass == ConvPass::backward_weight ? 32 : 64;
  const bool grouped = c.groups > 1 && std::max(c.in_channels, c.out_channels) / c.groups <= widest;
  if (grouped && grouped_is_possible(c)) return plan_grouped(c, in, pass, pairing_pays(c));
  if (widened) return plan_widened(c, in, pass);
  if (heavy && pass == ConvPass::backward_weight && unfold_is_possible(c, pass)) return plan_unfold(c, in, pass);
  if (heavy && grouped_is_possible(c)) return plan_grouped(c, in, pass, pairing_pays(c));
  return plan_onednn(c, in, pass);
}

std::vector<SegmentOffsets> segment_offsets(const Conv2d& c, const Segments& in) {
  std::vector<SegmentOffsets> offsets;
  SegmentOffsets next;
  for (const Segment& s : in) {
    offsets.push_back(next);
    next.in += static_cast<size_t>(s.rows() * c.in_channels) * size_of(c.dtype);
    next.out += static_cast<size_t>(c.output(s).rows() * c.out_channels) * size_of(c.dtype);
  }
  return offsets;
}

const ConvPlan& conv_plan(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) {
  require_floating(conv.dtype, "conv2d");
  static onednn::PlanCache<ConvKey, ConvPlan, ConvKeyHash> plans;
  const ConvKey key{conv, Segments(in.begin(), in.end()), pass, omp_get_max_threads()};
  return plans.get(key, [&] { return choose_plan(conv, key.in, pass); });
}

}  // namespace cpu

size_t CpuBackend::conv2d_workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) const {
  return cpu::conv_plan(conv, in, pass).workspace;
}

void CpuBackend::conv2d_forward(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* w, void* y,
                                void* workspace) {
  cpu::conv_plan(conv, in, ConvPass::forward).run(x, w, y, workspace);
}

void CpuBackend::conv2d_backward_data(const Conv2d& conv, std::span<const Segment> in, const void* dy, const void* w,
                                      void* dx, void* workspace) {
  cpu::conv_plan(conv, in, ConvPass::backward_data).run(dy, w, dx, workspace);
}

void CpuBackend::conv2d_backward_weight(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* dy,
                                        float* dw, void* workspace) {
  cpu::conv_plan(conv, in, ConvPass::backward_weight).run(x, dy, dw, workspace);
}

}  // namespace saccade::kernels
