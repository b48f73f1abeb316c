#pragma once

#include <saccade/kernels/pooling.h>

namespace saccade::kernels::cpu {

/// `Segment*, int64_t`: the segments of the call.
struct PoolingKernels {
  void (*average)(const GlobalAvgPool&, const Segment*, int64_t);
  void (*average_gradient)(const GlobalAvgPoolGradient&, const Segment*, int64_t);
  void (*scale)(const ChannelScale&, const Segment*, int64_t);
  void (*scale_factor_gradient)(const ChannelScaleFactorGradient&, const Segment*, int64_t);
  void (*scale_input_gradient)(const ChannelScaleInputGradient&, const Segment*, int64_t);
  /// One segment `in`, whose output is `out`.
  void (*max)(const Conv2d&, const Segment& in, const Segment& out, const void* x, void* y, uint8_t* argmax);
  void (*max_gradient)(const Conv2d&, const Segment& in, const Segment& out, const void* dy, const uint8_t* argmax,
                       void* dx);
  static const PoolingKernels baseline, avx2, avx512;
};

}  // namespace saccade::kernels::cpu
