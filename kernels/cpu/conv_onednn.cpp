#include <fmt/format.h>
#include <saccade/kernels/cpu/conv_plan.h>

#include <algorithm>
#include <vector>

#include "onednn_version.h"

namespace saccade::kernels::cpu {
namespace {

using namespace onednn;
using Desc = dnnl::memory::desc;
using Tag = dnnl::memory::format_tag;

/// oneDNN's convolution of one segment in NHWC, weights in the format that it likes best.
struct SegmentConv {
  Desc src, weights, dst, scratch;
  dnnl::primitive primitive;
};

Desc plain_weights(const Conv2d& c, dnnl::memory::data_type type, Tag tag_dense, Tag tag_grouped) {
  if (c.groups == 1) return Desc({c.out_channels, c.in_channels, c.kernel, c.kernel}, type, tag_dense);
  return Desc({c.groups, c.out_channels / c.groups, c.in_channels / c.groups, c.kernel, c.kernel}, type, tag_grouped);
}

SegmentConv make_segment(const Conv2d& c, const Segment& in, ConvPass pass) {
  const auto type = type_of(c.dtype);
  const Segment out = c.output(in);
  const Desc src({in.n, c.in_channels, in.h, in.w}, type, Tag::nhwc);
  const Desc dst({out.n, c.out_channels, out.h, out.w}, type, Tag::nhwc);
  const Desc any = plain_weights(c, type, Tag::any, Tag::any),
             gradient = plain_weights(c, dnnl::memory::data_type::f32, Tag::any, Tag::any);
  const dnnl::memory::dims stride{c.stride, c.stride}, padding{c.padding, c.padding};
  const auto direct = dnnl::algorithm::convolution_direct;
  const dnnl::primitive_attr attr = user_scratchpad();

  const auto forward = describe<dnnl::convolution_forward>(attr, dnnl::prop_kind::forward_training, direct, src, any,
                                                           dst, stride, padding, padding);
  if (pass == ConvPass::forward)
    return {src, forward.weights_desc(), dst, forward.scratchpad_desc(), dnnl::convolution_forward(forward)};
  if (pass == ConvPass::backward_data) {
    const auto data = describe_backward<dnnl::convolution_backward_data>(attr, forward, direct, src, any, dst, stride,
                                                                         padding, padding);
    return {src, data.weights_desc(), dst, data.scratchpad_desc(), dnnl::convolution_backward_data(data)};
  }
  const auto weight = describe_backward<dnnl::convolution_backward_weights>(attr, forward, direct, src, gradient, dst,
                                                                            stride, padding, padding);
  return {src, weight.diff_weights_desc(), dst, weight.scratchpad_desc(), dnnl::convolution_backward_weights(weight)};
}

/// A copy between weight formats; with `add` onto what is there.
struct Repack {
  Desc from, to, scratch;
  dnnl::reorder primitive;

  static Repack make(const Desc& from, const Desc& to, bool add) {
    dnnl::primitive_attr attr = user_scratchpad();
    if (add) {
      dnnl::post_ops after;
      after.append_sum(1.f);
      attr.set_post_ops(after);
    }
    const dnnl::reorder::primitive_desc desc(engine(), from, engine(), to, attr);
    return {from, to, desc.scratchpad_desc(), dnnl::reorder(desc)};
  }
  void run(const void* source, void* target, void* workspace) const {
    primitive.execute(stream(), {{DNNL_ARG_FROM, at(from, source)},
                                 {DNNL_ARG_TO, at(to, target)},
                                 {DNNL_ARG_SCRATCHPAD, at(scratch, workspace)}});
  }
};

/// Forward and data gradient by oneDNN: pack the weights once a format, then segment by segment.
ConvPlan plan_images(const Conv2d& conv, const Segments& in, ConvPass pass) {
  const bool forward = pass == ConvPass::forward;
  const Desc plain = plain_weights(conv, type_of(conv.dtype), Tag::ohwi, Tag::gohwi);
  struct Packing {
    Repack repack;
    size_t offset;
  };
  struct Step {
    SegmentConv conv;
    SegmentOffsets rows;
    int packing;  ///< -1: the plain weights as they are
  };
  WorkspaceLayout layout;
  std::vector<Packing> packings;
  std::vector<Step> steps;
  size_t scratch = 0;
  const std::vector<SegmentOffsets> offsets = segment_offsets(conv, in);
  for (size_t i = 0; i < in.size(); ++i) {
    Step step{make_segment(conv, in[i], pass), offsets[i], -1};
    if (step.conv.weights != plain) {
      const auto same = std::find_if(packings.begin(), packings.end(),
                                     [&](const Packing& p) { return p.repack.to == step.conv.weights; });
      step.packing = static_cast<int>(same - packings.begin());
      if (same == packings.end()) {
        packings.push_back({Repack::make(plain, step.conv.weights, false), layout.add(step.conv.weights.get_size())});
        scratch = std::max(scratch, packings.back().repack.scratch.get_size());
      }
    }
    scratch = std::max(scratch, step.conv.scratch.get_size());
    steps.push_back(std::move(step));
  }
  const size_t scratch_at = layout.add(scratch);
  auto run = [=](const void* a, const void* w, void* out, void* ws) {
    void* scratch_bytes = plus(ws, scratch_at);
    for (const Packing& p : packings) p.repack.run(w, plus(ws, p.offset), scratch_bytes);
    for (const Step& s : steps) {
      const void* weights = s.packing < 0 ? w : plus(ws, packings[static_cast<size_t>(s.packing)].offset);
      const int from = forward ? DNNL_ARG_SRC : DNNL_ARG_DIFF_DST, to = forward ? DNNL_ARG_DST : DNNL_ARG_DIFF_SRC;
      const Desc &from_desc = forward ? s.conv.src : s.conv.dst, &to_desc = forward ? s.conv.dst : s.conv.src;
      s.conv.primitive.execute(stream(), {{from, at(from_desc, plus(a, forward ? s.rows.in : s.rows.out))},
                                          {DNNL_ARG_WEIGHTS, at(s.conv.weights, weights)},
                                          {to, at(to_desc, plus(out, forward ? s.rows.out : s.rows.in))},
                                          {DNNL_ARG_SCRATCHPAD, at(s.conv.scratch, scratch_bytes)}});
    }
  };
  return {layout.bytes, run};
}

/// Weight gradient by oneDNN: each segment's into the workspace, then onto dw in segment order.
ConvPlan plan_weights(const Conv2d& conv, const Segments& in) {
  const Desc plain = plain_weights(conv, dnnl::memory::data_type::f32, Tag::ohwi, Tag::gohwi);
  struct Step {
    SegmentConv conv;
    Repack repack;
    SegmentOffsets rows;
    bool direct;  ///< dw itself is the primitive's result
  };
  WorkspaceLayout layout;
  std::vector<Step> steps;
  size_t scratch = 0, packed = 0;
  const std::vector<SegmentOffsets> offsets = segment_offsets(conv, in);
  for (size_t i = 0; i < in.size(); ++i) {
    SegmentConv segment = make_segment(conv, in[i], ConvPass::backward_weight);
    Repack repack = Repack::make(segment.weights, plain, i > 0);
    const bool direct = i == 0 && segment.weights == plain;
    scratch = std::max({scratch, segment.scratch.get_size(), repack.scratch.get_size()});
    if (!direct) packed = std::max(packed, segment.weights.get_size());
    steps.push_back({std::move(segment), std::move(repack), offsets[i], direct});
  }
  const size_t packed_at = layout.add(packed), scratch_at = layout.add(scratch);
  auto run = [=](const void* x, const void* dy, void* dw, void* ws) {
    void* scratch_bytes = plus(ws, scratch_at);
    for (const Step& s : steps) {
      void* target = s.direct ? dw : plus(ws, packed_at);
      s.conv.primitive.execute(stream(), {{DNNL_ARG_SRC, at(s.conv.src, plus(x, s.rows.in))},
                                          {DNNL_ARG_DIFF_DST, at(s.conv.dst, plus(dy, s.rows.out))},
                                          {DNNL_ARG_DIFF_WEIGHTS, at(s.conv.weights, target)},
                                          {DNNL_ARG_SCRATCHPAD, at(s.conv.scratch, scratch_bytes)}});
      if (!s.direct) s.repack.run(target, dw, scratch_bytes);
    }
  };
  return {layout.bytes, run};
}

// Where oneDNN 2.6 must not be called, as the tests of narrow convolutions found.

/// 1x1 with a stride: it gathers the pixels that the stride lands on to a scratchpad laid out for whole vectors of
/// channels, and writes past its end where there are fewer (its issue 6035).
bool oversteps(const Conv2d& c, ConvPass pass) {
  constexpr int64_t widest_vector = 16;
  return pass == ConvPass::backward_weight && is_pointwise(c) && c.stride > 1 && c.in_channels < widest_vector;
}

/// 1x1 in bf16: of an odd number of channels the last goes into the data gradient as garbage.
bool garbles_odd_channels(const Conv2d& c, ConvPass pass) {
  return pass == ConvPass::backward_data && c.dtype == DType::bf16 && is_pointwise(c) && c.out_channels % 2 != 0;
}

/// In bf16 with a stride, on maps one pixel wide: it multiplies what nobody wrote to its scratchpad by zero.
bool reads_unwritten(const Conv2d& c, const Segments& in, ConvPass pass) {
  return pass == ConvPass::backward_weight && c.dtype == DType::bf16 && c.kernel > 1 && c.stride > 1 &&
         std::any_of(in.begin(), in.end(), [](const Segment& s) { return s.w == 1; });
}

}  // namespace

bool onednn_computes_in(DType dtype) { return computes_in(dtype); }

ConvPlan plan_onednn(const Conv2d& conv, const Segments& in, ConvPass pass) {
  if (oversteps(conv, pass) || garbles_odd_channels(conv, pass)) return plan_pointwise(conv, in, pass);
  if (reads_unwritten(conv, in, pass)) return plan_widened(conv, in, pass);
  try {
    if (pass == ConvPass::backward_weight) return plan_weights(conv, in);
    return plan_images(conv, in, pass);
  } catch (const dnnl::error& error) {
    rethrow(error, fmt::format("conv2d {}x{} stride {} padding {} of {} to {} channels in {} groups, {}", conv.kernel,
                               conv.kernel, conv.stride, conv.padding, conv.in_channels, conv.out_channels, conv.groups,
                               name_of(conv.dtype)));
  }
}

}  // namespace saccade::kernels::cpu
