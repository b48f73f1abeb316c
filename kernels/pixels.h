#pragma once

namespace saccade::kernels {

/// How the bytes of a pixel become numbers, a factor and an offset a channel: y = byte * factor + offset, in f32, the
/// product rounded before the sum.
struct PixelScale {
  float factor[4] = {}, offset[4] = {};
};

}  // namespace saccade::kernels
