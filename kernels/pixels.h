#pragma once

#include <saccade/kernels/call.h>
#include <saccade/kernels/segments.h>

#include <string_view>

namespace saccade::kernels {

/// How the bytes of a pixel become numbers, a factor and an offset a channel: y = byte * factor + offset, in f32, the
/// product rounded before the sum.
struct PixelScale {
  float factor[4] = {}, offset[4] = {};
};

/// Crops of bytes, at most 4 channels, to numbers of the dtype (f32, f16, bf16).
struct CropsToBatch {
  Segments segments = {};
  int64_t channels = 0;
  const uint8_t* bytes = nullptr;
  PixelScale scale = {};
  DType dtype = DType::f32;
  void* y = nullptr;
  static constexpr std::string_view name = "crops_to_batch";
  static void operands(auto& c, auto&& visit) {
    const int64_t n = total_rows(c.segments) * c.channels;
    visit(c.bytes, n, Use::read);
    visit(c.y, bytes_of(c.dtype, n), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.segments), visit(c.channels), visit(c.dtype); }
};

}  // namespace saccade::kernels
