#include <saccade/kernels/cpu/conv_plan.h>
#include <saccade/kernels/cpu/isa.h>

#include <algorithm>

namespace saccade::kernels::cpu {
namespace {

constexpr int64_t chunk_elements = 1 << 20;  ///< of the larger side: 4 MiB, small against an L3 cache and a model

/// Some images of a segment.
struct Chunk {
  Segment in;
  SegmentOffsets at;
  int64_t in_elements, out_elements;
  size_t plan;
};

void widen(DType from, int64_t n, const void* x, void* y) { cast_floating(from, DType::f32, n, x, y); }

}  // namespace

ConvPlan plan_widened(const Conv2d& conv, const Segments& in, ConvPass pass) {
  const DType dtype = conv.dtype;
  Conv2d wide = conv;
  wide.dtype = DType::f32;
  std::vector<Chunk> chunks;
  std::vector<Segment> planned;
  std::vector<ConvPlan> plans;
  size_t scratch = 0;
  int64_t largest_in = 0, largest_out = 0;
  const std::vector<SegmentOffsets> offsets = segment_offsets(conv, in);
  for (size_t i = 0; i < in.size(); ++i) {
    const Segment s = in[i], one{1, s.h, s.w};
    const int64_t in_image = one.rows() * conv.in_channels, out_image = conv.output(one).rows() * conv.out_channels;
    const int64_t fit = std::max<int64_t>(1, chunk_elements / std::max({in_image, out_image, int64_t{1}}));
    const int64_t pieces = (s.n + fit - 1) / fit;
    for (int64_t p = 0; p < pieces; ++p) {
      const int64_t first = s.n * p / pieces, images = s.n * (p + 1) / pieces - first;
      Chunk chunk{{images, s.h, s.w}, offsets[i], images * in_image, images * out_image, 0};
      chunk.at.in += static_cast<size_t>(first * in_image) * size_of(dtype);
      chunk.at.out += static_cast<size_t>(first * out_image) * size_of(dtype);
      chunk.plan = static_cast<size_t>(std::find(planned.begin(), planned.end(), chunk.in) - planned.begin());
      if (chunk.plan == planned.size()) {
        planned.push_back(chunk.in);
        plans.push_back(choose_plan(wide, {chunk.in}, pass));
        scratch = std::max(scratch, plans.back().workspace);
      }
      largest_in = std::max(largest_in, chunk.in_elements), largest_out = std::max(largest_out, chunk.out_elements);
      chunks.push_back(chunk);
    }
  }
  const int64_t weights = conv.weight_elements();
  const bool weight = pass == ConvPass::backward_weight;
  const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
  WorkspaceLayout layout;
  const size_t in_at = layout.add(floats(largest_in)), out_at = layout.add(floats(largest_out));
  const size_t weights_at = layout.add(weight && chunks.size() == 1 ? 0 : floats(weights));
  const size_t scratch_at = layout.add(scratch);

  if (weight)
    return {layout.bytes, [=](const void* x, const void* dy, void* dw, void* ws) {
              for (size_t i = 0; i < chunks.size(); ++i) {
                const Chunk& c = chunks[i];
                widen(dtype, c.in_elements, plus(x, c.at.in), plus(ws, in_at));
                widen(dtype, c.out_elements, plus(dy, c.at.out), plus(ws, out_at));
                void* part = i == 0 ? dw : plus(ws, weights_at);
                plans[c.plan].run(plus(ws, in_at), plus(ws, out_at), part, plus(ws, scratch_at));
                if (i > 0) add_floats(weights, dw, part, dw);
              }
            }};
  const bool forward = pass == ConvPass::forward;
  return {layout.bytes, [=](const void* from, const void* w, void* to, void* ws) {
            widen(dtype, weights, w, plus(ws, weights_at));
            const size_t source = forward ? in_at : out_at, result = forward ? out_at : in_at;
            for (const Chunk& c : chunks) {
              const size_t from_at = forward ? c.at.in : c.at.out, to_at = forward ? c.at.out : c.at.in;
              widen(dtype, forward ? c.in_elements : c.out_elements, plus(from, from_at), plus(ws, source));
              plans[c.plan].run(plus(ws, source), plus(ws, weights_at), plus(ws, result), plus(ws, scratch_at));
              cast_floating(DType::f32, dtype, forward ? c.out_elements : c.in_elements, plus(ws, result),
                            plus(to, to_at));
            }
          }};
}

}  // namespace saccade::kernels::cpu
