#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace saccade::data {

/// A decoded image: 8-bit pixels, row by row, channels interleaved (H, W, C). C is 1 (gray) or 3 (RGB, as stored:
/// sRGB).
struct Image {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;

  /// Takes a new size, keeping the memory where it suffices. The contents are then undefined.
  void resize(int h, int w, int c) {
    height = h;
    width = w;
    channels = c;
    pixels.resize(static_cast<size_t>(h) * w * c);
  }
  const uint8_t* row(int y) const { return pixels.data() + static_cast<size_t>(y) * width * channels; }
  uint8_t* row(int y) { return pixels.data() + static_cast<size_t>(y) * width * channels; }
};

}  // namespace saccade::data
