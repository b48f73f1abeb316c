#include <omp.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/cpu_backend.h>

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

/// Chosen by measurement: see grouped_conv.h.
ConvPlan make_plan(const ConvKey& key) {
  return grouped_is_possible(key.conv) && key.conv.groups > 1 ? plan_grouped(key.conv, key.in, key.pass)
                                                              : plan_onednn(key.conv, key.in, key.pass);
}

}  // namespace

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
  static onednn::PlanCache<ConvKey, ConvPlan, ConvKeyHash> plans;
  const ConvKey key{conv, Segments(in.begin(), in.end()), pass, omp_get_max_threads()};
  return plans.get(key, [&] { return make_plan(key); });
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
                                        void* dw, void* workspace) {
  cpu::conv_plan(conv, in, ConvPass::backward_weight).run(x, dy, dw, workspace);
}

}  // namespace saccade::kernels
