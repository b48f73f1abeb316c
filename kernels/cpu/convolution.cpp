#include <omp.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/cpu_backend.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

#include "onednn_version.h"

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

/// 3x3 of so few channels a group that our own kernels are the choice.
bool few_a_group(const Conv2d& c, ConvPass pass) {
  const int64_t widest = pass == ConvPass::backward_weight ? 32 : 64;
  return c.groups > 1 && std::max(c.in_channels, c.out_channels) / c.groups <= widest && grouped_is_possible(c);
}

/// Dense 3x3 with more weights than pixels can pay for (ResNet's last stage on small crops).
bool heavy(const Conv2d& c, const Segments& in) {
  int64_t rows = 0;
  for (const Segment& s : in) rows += c.output(s).rows();
  return c.groups == 1 && grouped_is_possible(c) && rows <= 2 * c.in_channels;
}

/// 1x1 whose data gradient is faster by oneDNN than as one product.
bool few_for_data_gradient(const Conv2d& c) {
  return c.in_channels < 48 && (c.stride == 1 || onednn::has_fast_strided_data_gradients);
}

/// By bench/conv, one thread of a Zen 4, with oneDNN 2.6; measured again with 3.7, which differs in one place
/// (few_for_data_gradient):
/// - grouped 3x3: our own kernels are 1.0 to 3 times as fast as oneDNN (the table in grouped_conv.h), but not in weight
///   gradients of wide groups;
/// - heavy: own 1.3 times in forward and data gradient, unfolding 1.8 times in the weight gradient; elsewhere oneDNN is
///   at 85 to 115 % of the peak;
/// - 1x1: one product over all segments 1.0 to 1.3 times, with stride 2 (of gathered rows) 1.1 to 1.7 times; but
///   oneDNN's convolution for few channels: 1.1 to 1.4 times, weight gradients below 128 x 128 1.1 to 1.8 times.
ConvPlan choose_f32(const Conv2d& c, const Segments& in, ConvPass pass) {
  if (is_pointwise(c)) {
    const bool few = pass == ConvPass::forward         ? c.out_channels < 32 && c.stride == 1
                     : pass == ConvPass::backward_data ? few_for_data_gradient(c)
                     : c.stride == 1                   ? c.weight_elements() <= 128 * 128
                                                       : c.in_channels < 48;
    return few ? plan_onednn(c, in, pass) : plan_pointwise(c, in, pass);
  }
  if (few_a_group(c, pass)) return plan_grouped(c, in, pass, pairing_pays(c));
  if (!heavy(c, in)) return plan_onednn(c, in, pass);
  return pass == ConvPass::backward_weight ? plan_unfold(c, in, pass) : plan_grouped(c, in, pass, pairing_pays(c));
}

/// By the same, where the processor has AVX512_BF16. oneDNN computes at up to twice the rate, our own kernels as in
/// f32:
/// - grouped 3x3: weight gradients by our own, 1.2 to 7 times as fast but for groups of 24 (0.95); forward and data
///   gradient by our own in groups of 8 on maps of up to 6 columns, 1.1 to 1.9 times; oneDNN 1.1 to 2.1 times
///   elsewhere;
/// - heavy: unfolding 1.7 times in the weight gradient;
/// - 1x1: as in f32, but the product is 1.2 to 3 times as fast for weights from 64 x 64 on.
ConvPlan choose_bf16(const Conv2d& c, const Segments& in, ConvPass pass) {
  const bool weight = pass == ConvPass::backward_weight;
  if (is_pointwise(c)) {
    const bool few = pass == ConvPass::forward         ? c.stride == 1 ? c.out_channels < 32 : c.in_channels <= 16
                     : pass == ConvPass::backward_data ? few_for_data_gradient(c)
                     : c.stride == 1                   ? c.weight_elements() <= 48 * 48
                                                       : c.in_channels < 48 && c.out_channels <= 48;
    return few ? plan_onednn(c, in, pass) : plan_pointwise(c, in, pass);
  }
  const bool small_maps = std::all_of(in.begin(), in.end(), [&](const Segment& s) { return c.output(s).w <= 6; });
  if (few_a_group(c, pass) && (weight || (small_maps && c.in_channels <= 8 * c.groups)))
    return plan_grouped(c, in, pass, pairing_pays(c));
  return weight && heavy(c, in) ? plan_unfold(c, in, pass) : plan_onednn(c, in, pass);
}

}  // namespace

ConvPlan choose_plan(const Conv2d& c, const Segments& in, ConvPass pass) {
  if (c.dtype == DType::f32) return choose_f32(c, in, pass);
  if (onednn::computes_in(c.dtype)) return choose_bf16(c, in, pass);
  return few_a_group(c, pass) ? plan_grouped(c, in, pass, pairing_pays(c)) : plan_widened(c, in, pass);
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

void CpuBackend::compute(const Conv2dForward& c) {
  cpu::conv_plan(c.conv, c.segments, c.pass).run(c.x, c.w, c.y, c.workspace);
}
void CpuBackend::compute(const Conv2dBackwardData& c) {
  cpu::conv_plan(c.conv, c.segments, c.pass).run(c.dy, c.w, c.dx, c.workspace);
}
void CpuBackend::compute(const Conv2dBackwardWeight& c) {
  cpu::conv_plan(c.conv, c.segments, c.pass).run(c.x, c.dy, c.dw, c.workspace);
}

}  // namespace saccade::kernels
