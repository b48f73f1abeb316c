#pragma once

#include <saccade/kernels/dtype.h>
#include <saccade/kernels/segments.h>

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
  friend bool operator==(const Conv2d&, const Conv2d&) = default;
};

/// The three computations of a convolution's training step.
enum class ConvPass : uint8_t { forward, backward_data, backward_weight };

}  // namespace saccade::kernels
