#pragma once

#include <saccade/kernels/conv.h>

#include <functional>
#include <span>
#include <vector>

/// How the CPU computes convolutions: a pass over given segments is planned once, then run. Private to the CPU backend
/// (and to its benchmark, which compares the ways).
namespace saccade::kernels::cpu {

/// Divides a workspace into pieces that start on cache lines.
struct WorkspaceLayout {
  size_t bytes = 0;
  size_t add(size_t piece) {
    const size_t offset = bytes;
    bytes += (piece + 63) / 64 * 64;
    return offset;
  }
};

inline const char* plus(const void* p, size_t bytes) { return static_cast<const char*>(p) + bytes; }
inline char* plus(void* p, size_t bytes) { return static_cast<char*>(p) + bytes; }

/// A planned pass over all segments: scratch bytes, and what runs it. (a, b, out) is (x, w, y), (dy, w, dx) or
/// (x, dy, dw).
struct ConvPlan {
  size_t workspace = 0;
  std::function<void(const void* a, const void* b, void* out, void* workspace)> run;
};

/// Where each segment's images begin in the input and the output, in bytes.
struct SegmentOffsets {
  size_t in = 0, out = 0;
};
std::vector<SegmentOffsets> segment_offsets(const Conv2d&, const Segments& in);

/// The plan that the backend uses, cached.
const ConvPlan& conv_plan(const Conv2d&, std::span<const Segment> in, ConvPass);

/// A plan made the way that measurements say is the fastest.
ConvPlan choose_plan(const Conv2d&, const Segments& in, ConvPass);

/// On copies in f32, a few images at a time: for types that the instruction set does not compute in.
ConvPlan plan_widened(const Conv2d&, const Segments& in, ConvPass);

/// By oneDNN: any convolution of a type it computes in: f32, and bf16 with AVX512_BF16.
ConvPlan plan_onednn(const Conv2d&, const Segments& in, ConvPass);
bool onednn_computes_in(DType);

/// 1x1 as one matrix product over the pixel rows of all segments; with a stride, over copies of those it lands on.
ConvPlan plan_pointwise(const Conv2d&, const Segments& in, ConvPass);
bool is_pointwise(const Conv2d&);

/// The inputs under the kernel copied out for every output pixel, then one matrix product: dense, not the data
/// gradient.
ConvPlan plan_unfold(const Conv2d&, const Segments& in, ConvPass);
bool unfold_is_possible(const Conv2d&, ConvPass);

/// By our own kernels: 3x3, padding 1, stride 1 or 2, any number of channels a group (few is what they are for).
/// pair: groups of 8 in pairs, on AVX-512.
ConvPlan plan_grouped(const Conv2d&, const Segments& in, ConvPass, bool pair);
bool grouped_is_possible(const Conv2d&);
/// True unless half a pair would be too much of a waste. On a Zen 4, which computes 512 bits in two halves, pairs are
/// 0.78 to 1.66 times as fast (tiny maps gain); where the datapath is as wide as the registers they halve the
/// arithmetic.
bool pairing_pays(const Conv2d&);

}  // namespace saccade::kernels::cpu
