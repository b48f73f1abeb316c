#include <omp.h>
#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/grouped_conv.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

namespace saccade::kernels::cpu {
namespace {

/// Forward and data gradient: the weights packed once, then segment by segment.
ConvPlan plan_images(const Conv2d& conv, const Segments& in, bool gradient, bool pair) {
  const int64_t gi = conv.in_channels / conv.groups, go = conv.out_channels / conv.groups;
  const GroupedConv c{conv.groups, gradient ? go : gi, gradient ? gi : go, conv.stride, gradient, pair, conv.dtype};
  const auto& kernels = for_this_processor<GroupedConvKernels>();
  const std::vector<SegmentOffsets> offsets = segment_offsets(conv, in);
  std::vector<GroupedImages> images;
  size_t scratch = 0;
  for (const Segment& s : in) {
    const Segment o = conv.output(s);
    images.push_back(gradient ? GroupedImages{s.n, o.h, o.w, s.h, s.w} : GroupedImages{s.n, s.h, s.w, o.h, o.w});
    scratch = std::max(scratch, kernels.images_scratch_bytes(c, images.back()));
  }
  WorkspaceLayout layout;
  layout.add(kernels.packed_weights_bytes(c));
  const bool widened = conv.dtype != DType::f32;
  const int64_t weights = conv.weight_elements();
  const size_t weights_at = layout.add(widened ? static_cast<size_t>(weights) * sizeof(float) : 0);
  const size_t scratch_at = layout.add(scratch * static_cast<size_t>(omp_get_max_threads()));
  auto run = [=, &kernels](const void* source, const void* w, void* result, void* ws) {
    float* packed = static_cast<float*>(ws);
    if (widened) cast_floating(c.dtype, DType::f32, weights, w, plus(ws, weights_at));
    kernels.pack_weights(c, static_cast<const float*>(widened ? plus(ws, weights_at) : w), packed);
    for (size_t i = 0; i < images.size(); ++i) {
      const void* from = plus(source, gradient ? offsets[i].out : offsets[i].in);
      void* to = plus(result, gradient ? offsets[i].in : offsets[i].out);
      kernels.images(c, images[i], from, packed, to, reinterpret_cast<float*>(plus(ws, scratch_at)));
    }
  };
  return {layout.bytes, run};
}

/// Weight gradient: partial sums of every segment's chunks, then their sum.
ConvPlan plan_weights(const Conv2d& conv, const Segments& in, bool pair) {
  const GroupedConv c{
      conv.groups, conv.in_channels / conv.groups, conv.out_channels / conv.groups, conv.stride, false, pair,
      conv.dtype};
  const auto& k = for_this_processor<GroupedConvWeightKernels>();
  struct Step {
    GroupedImages images;
    SegmentOffsets rows;
    size_t partial_at;
  };
  const std::vector<SegmentOffsets> offsets = segment_offsets(conv, in);
  std::vector<Step> steps;
  int64_t chunks = 0;
  size_t scratch = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    const Segment o = conv.output(in[i]);
    const GroupedImages images{in[i].n, in[i].h, in[i].w, o.h, o.w};
    steps.push_back({images, offsets[i], static_cast<size_t>(chunks) * k.partial_bytes(c)});
    chunks += k.chunks(images);
    scratch = std::max(scratch, k.scratch_bytes(c, images));
  }
  WorkspaceLayout layout;
  layout.add(static_cast<size_t>(chunks) * k.partial_bytes(c));
  const size_t scratch_at = layout.add(scratch * static_cast<size_t>(omp_get_max_threads()));
  auto run = [=, &k](const void* x, const void* dy, void* dw, void* ws) {
    for (const Step& s : steps)
      k.partials(c, s.images, plus(x, s.rows.in), plus(dy, s.rows.out),
                 reinterpret_cast<float*>(plus(ws, s.partial_at)), reinterpret_cast<float*>(plus(ws, scratch_at)));
    k.sum(c, chunks, static_cast<float*>(ws), static_cast<float*>(dw));
  };
  return {layout.bytes, run};
}

}  // namespace

bool grouped_is_possible(const Conv2d& c) {
  return c.kernel == 3 && c.padding == 1 && (c.stride == 1 || c.stride == 2);
}

bool pairing_pays(const Conv2d& c) { return c.groups % 2 == 0 || c.groups > 4; }

ConvPlan plan_grouped(const Conv2d& c, const Segments& in, ConvPass pass, bool pair) {
  pair = pair && c.groups > 1 && c.in_channels == 8 * c.groups && c.out_channels == 8 * c.groups;
  if (pass == ConvPass::backward_weight) return plan_weights(c, in, pair);
  return plan_images(c, in, pass == ConvPass::backward_data, pair);
}

}  // namespace saccade::kernels::cpu
