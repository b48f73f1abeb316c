#pragma once

#include <saccade/kernels/call.h>
#include <saccade/kernels/matmul.h>
#include <saccade/kernels/segments.h>

#include <string_view>

namespace saccade::kernels {

/// A 2-D convolution without bias. Images (N, H, W, in_channels), weights (out_channels, kernel, kernel,
/// in_channels / groups), both dense; dtype is that of images, their gradients and weights. Accumulation and the weight
/// gradient are f32.
struct Conv2d {
  int64_t in_channels = 0, out_channels = 0;
  int64_t kernel = 1, stride = 1, padding = 0, groups = 1;
  DType dtype = DType::f32;

  Segment output(const Segment& in) const {
    return {in.n, (in.h + 2 * padding - kernel) / stride + 1, (in.w + 2 * padding - kernel) / stride + 1};
  }
  int64_t weight_elements() const { return out_channels * kernel * kernel * (in_channels / groups); }
  /// True when the convolution of all segments is one matrix product over the pixel rows.
  bool is_matmul() const { return kernel == 1 && stride == 1 && padding == 0 && groups == 1; }
  /// Floating-point operations (2 a multiply-accumulate) of one pass over a segment.
  double flops(const Segment& in) const {
    return 2.0 * static_cast<double>(output(in).rows()) * static_cast<double>(weight_elements());
  }
  /// Of all segments.
  double flops(const Segments& in) const {
    double sum = 0;
    for (const Segment& s : in) sum += flops(s);
    return sum;
  }
  int64_t input_bytes(const Segments& in) const { return bytes_of(dtype, total_rows(in) * in_channels); }
  int64_t output_bytes(const Segments& in) const {
    int64_t rows = 0;
    for (const Segment& s : in) rows += output(s).rows();
    return bytes_of(dtype, rows * out_channels);
  }
  int64_t weight_bytes() const { return bytes_of(dtype, weight_elements()); }
  friend bool operator==(const Conv2d&, const Conv2d&) = default;
};

/// The three computations of a convolution's training step.
enum class ConvPass : uint8_t { forward, backward_data, backward_weight };

/// The product that a pass of a 1x1 convolution is: over rows of pixels, of all segments at once.
inline MatMul product_of(const Conv2d& c, int64_t rows, ConvPass pass) {
  const int64_t ic = c.in_channels, oc = c.out_channels;
  if (pass == ConvPass::forward) return {rows, oc, ic, false, true, 1.f, 0.f, c.dtype, c.dtype};         // y = x w^T
  if (pass == ConvPass::backward_data) return {rows, ic, oc, false, false, 1.f, 0.f, c.dtype, c.dtype};  // dx = dy w
  return {oc, ic, rows, true, false, 1.f, 0.f, c.dtype, DType::f32};                                     // dw = dy^T x
}

/// What the calls of a convolution begin with. One does all segments, so that weights are repacked once and the weight
/// gradient is whole. x: rows of segments x in_channels, y: rows of output(segments) x out_channels.
struct OnConvolution {
  Conv2d conv = {};
  Segments segments = {};
  static void shape(auto& c, auto&& visit) { visit(c.conv), visit(c.segments); }
  double flops() const { return conv.flops(segments); }
};

struct Conv2dForward : OnConvolution {
  const void *x = nullptr, *w = nullptr;
  void *y = nullptr, *workspace = nullptr;
  static constexpr std::string_view name = "conv2d";
  static constexpr ConvPass pass = ConvPass::forward;
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.conv.input_bytes(c.segments), Use::fresh);
    visit(c.w, c.conv.weight_bytes(), Use::read);
    visit(c.y, c.conv.output_bytes(c.segments), Use::write);
  }
};

struct Conv2dBackwardData : OnConvolution {
  const void *dy = nullptr, *w = nullptr;
  void *dx = nullptr, *workspace = nullptr;
  static constexpr std::string_view name = "conv2d_backward_data";
  static constexpr ConvPass pass = ConvPass::backward_data;
  static void operands(auto& c, auto&& visit) {
    visit(c.dy, c.conv.output_bytes(c.segments), Use::fresh);
    visit(c.w, c.conv.weight_bytes(), Use::read);
    visit(c.dx, c.conv.input_bytes(c.segments), Use::write);
  }
};

/// dw is f32 whatever the dtype: it is what the f32 master weights are updated from.
struct Conv2dBackwardWeight : OnConvolution {
  const void *x = nullptr, *dy = nullptr;
  float* dw = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "conv2d_backward_weight";
  static constexpr ConvPass pass = ConvPass::backward_weight;
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.conv.input_bytes(c.segments), Use::read);
    visit(c.dy, c.conv.output_bytes(c.segments), Use::fresh);
    visit(c.dw, bytes_of_floats(c.conv.weight_elements()), Use::write);
  }
};

}  // namespace saccade::kernels
