#pragma once

#include <saccade/kernels/conv.h>

#include <string>
#include <string_view>

/// @file
/// Pooling and per-image channel scaling (squeeze-excite's map-sized parts). pooled, scale: (images, channels), images
/// of all segments in order, in the dtype of x.

namespace saccade::kernels {

/// What these calls begin with.
struct OnImages {
  Segments segments = {};
  int64_t channels = 0;
  DType dtype = DType::f32;
  static void shape(auto& c, auto&& visit) { visit(c.segments), visit(c.channels), visit(c.dtype); }
  int64_t map_bytes() const { return bytes_of(dtype, total_rows(segments) * channels); }
  int64_t pooled_bytes() const { return bytes_of(dtype, total_images(segments) * channels); }
};

/// pooled = the mean of each image's pixels.
struct GlobalAvgPool : OnImages {
  const void* x = nullptr;
  void* pooled = nullptr;
  static constexpr std::string_view name = "global_avg_pool";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::fresh);
    visit(c.pooled, c.pooled_bytes(), Use::write);
  }
};

struct GlobalAvgPoolGradient : OnImages {
  const void* dpooled = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "global_avg_pool_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.dpooled, c.pooled_bytes(), Use::fresh);
    visit(c.dx, c.map_bytes(), Use::write);
  }
};

/// y = x * scale of its image and channel.
struct ChannelScale : OnImages {
  const void *x = nullptr, *scale = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "channel_scale";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::fresh);
    visit(c.scale, c.pooled_bytes(), Use::read);
    visit(c.y, c.map_bytes(), Use::write);
  }
};

/// dscale[n, c] = sum over the image's pixels of dy * x.
struct ChannelScaleFactorGradient : OnImages {
  const void *x = nullptr, *dy = nullptr;
  void* dscale = nullptr;
  static constexpr std::string_view name = "channel_scale_factor_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::read);
    visit(c.dy, c.map_bytes(), Use::fresh);
    visit(c.dscale, c.pooled_bytes(), Use::write);
  }
};

/// dx = dy * scale + dpooled / (h*w); dpooled may be null; dx may be dy.
struct ChannelScaleInputGradient : OnImages {
  const void *dy = nullptr, *scale = nullptr, *dpooled = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "channel_scale_input_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.dy, c.map_bytes(), Use::fresh);
    visit(c.scale, c.pooled_bytes(), Use::read);
    visit(c.dpooled, c.pooled_bytes(), optional(Use::read));
    visit(c.dx, c.map_bytes(), Use::write);
  }
};

/// What max pooling begins with, kernel x kernel.
struct OnWindows {
  Conv2d window = {};
  Segments segments = {};
  static void shape(auto& c, auto&& visit) { visit(c.window), visit(c.segments); }
  int64_t positions() const { return window.output_bytes(segments) / bytes_of(window.dtype, 1); }
  /// Why no device pools by this window: a sentence, or nothing.
  std::string refusal() const {
    if (window.kernel < 1 || window.kernel > 15)
      return "max_pool: expected a window of at most 15 x 15 (its positions are kept in a byte), got " +
             std::to_string(window.kernel);
    if (2 * window.padding > window.kernel)
      return "max_pool: expected a padding of at most half the window, so that no window lies outside the image, got " +
             std::to_string(window.padding) + " for a window of " + std::to_string(window.kernel);
    return {};
  }
};

/// Max pooling. `argmax`: the position in the window, one a y element.
struct MaxPool : OnWindows {
  const void* x = nullptr;
  void* y = nullptr;
  uint8_t* argmax = nullptr;
  static constexpr std::string_view name = "max_pool";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.window.input_bytes(c.segments), Use::fresh);
    visit(c.y, c.window.output_bytes(c.segments), Use::write);
    visit(c.argmax, c.positions(), Use::write);
  }
};

struct MaxPoolGradient : OnWindows {
  const void* dy = nullptr;
  const uint8_t* argmax = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "max_pool_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.dy, c.window.output_bytes(c.segments), Use::fresh);
    visit(c.argmax, c.positions(), Use::read);
    visit(c.dx, c.window.input_bytes(c.segments), Use::write);
  }
};

}  // namespace saccade::kernels
