#pragma once

#include <cstddef>
#include <cstdint>

/// The hot loops of augmentation, compiled once per instruction set from one source. All of them compute the same bits
/// on each set: integers, or floating point without contraction.
namespace saccade::data {

/// A resize filter of one direction: for each output position the first input position and `taps` weights, padded with
/// zeros to a multiple of four taps.
struct FilterTable {
  const int32_t* first;
  const int32_t* weights;  ///< [output][taps]
  const int32_t* quads;    ///< [output][taps][4]: each weight four times, for loops over pixels of four bytes
  int taps;
  int outputs;  ///< of a horizontal filter a multiple of four, the last ones with weights 0
};

inline constexpr int kWeightBits = 22;  ///< 8-bit pixels times weights below 1 just fit 32 bits

struct PixelLoops {
  /// RGB to pixels of four bytes (the last is 0). Reads no byte beyond rgb + 3 * width.
  void (*rgb_to_quads)(const uint8_t* rgb, int width, uint8_t* quads);
  /// Four gray rows to pixels of four bytes.
  void (*rows_to_quads)(const uint8_t* const rows[4], int width, uint8_t* quads);
  /// One row of four-byte pixels through the filter. Reads up to first + taps pixels of each output, whose weights
  /// beyond the image's edge are 0.
  void (*filter_quads)(const uint8_t* quads, const FilterTable& filter, uint8_t* out);
  /// Byte b of each pixel goes to planes[b], for b < count.
  void (*split_quads)(const uint8_t* quads, int width, int count, uint8_t* const planes[4]);
  /// One output row of the vertical pass: the weighted sum of `taps` rows. May write up to 15 bytes beyond `width`, and
  /// read as many beyond each row.
  void (*filter_rows)(const uint8_t* first_row, size_t stride, const int32_t* weights, int taps, int width,
                      uint8_t* out);

  /// constant + factor * (p - constant), clamped to 0..255 and truncated.
  void (*blend_constant)(uint8_t* p, size_t count, int constant, float factor);
  /// The same towards each pixel's own gray level.
  void (*blend_gray)(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, float factor);
  uint64_t (*sum)(const uint8_t* p, size_t count);
  uint64_t (*sum_gray)(const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count);
  void (*gray)(uint8_t* r, uint8_t* g, uint8_t* b, size_t count);
  void (*shift_hue)(uint8_t* r, uint8_t* g, uint8_t* b, size_t count, int shift);

  /// One box of an extended box blur: taps are the 2 * radius + 3 neighbours of a line of `count` pixels, in order
  /// (rows of the image, or one row at successive offsets). out[x] = (inner * (sum of all taps but the first and last)
  /// + edge * (first + last) + 2^23) >> 24
  void (*box_blur)(const uint8_t* const* taps, int radius, uint32_t inner, uint32_t edge, int count, uint8_t* out);

  /// Planes to interleaved floats: out[i * channels + c] = plane[c][i] * scale[c] + offset[c].
  void (*interleave)(const uint8_t* const planes[3], int channels, size_t count, const float* scale,
                     const float* offset, float* out);
  /// The same as they are: out[i * channels + c] = plane[c][i].
  void (*interleave_bytes)(const uint8_t* const planes[3], int channels, size_t count, uint8_t* out);
};

namespace baseline {
extern const PixelLoops pixel_loops;
}
namespace avx2 {
extern const PixelLoops pixel_loops;
}
namespace avx512 {
extern const PixelLoops pixel_loops;
}

/// The loops of the widest instruction set this processor has and SACCADE_ISA allows.
const PixelLoops& pixel_loops();

}  // namespace saccade::data
