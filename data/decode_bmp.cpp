#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <vector>

namespace saccade::data::formats {
namespace {

enum Compression : uint32_t { kNone = 0, kRle8 = 1, kRle4 = 2, kBitFields = 3 };

struct Header {
  int64_t width = 0, height = 0;
  bool top_down = false;
  uint32_t bits = 0, compression = kNone;
  std::array<uint32_t, 3> masks{};                    ///< of red, green and blue in 16, 24 and 32 bits
  std::array<std::array<uint8_t, 3>, 256> palette{};  ///< red, green and blue; black where the file has no colour
  size_t pixels_at = 0;
};

uint32_t little(std::span<const uint8_t> bytes, size_t at, size_t count) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; ++i) value |= static_cast<uint32_t>(bytes[at + i]) << (8 * i);
  return value;
}

/// The headers as Windows and OS/2 have written them: 12 (core), 40, 52, 56, 64 (OS/2), 108 or 124 bytes.
Header read_header(std::span<const uint8_t> bytes) {
  const auto need = [&](size_t count) {
    if (bytes.size() < count) throw Error("BMP: the file ends within its header");
  };
  need(18);
  const uint32_t header_bytes = little(bytes, 14, 4);
  constexpr uint32_t kKnown[] = {12, 40, 52, 56, 64, 108, 124};
  if (std::find(std::begin(kKnown), std::end(kKnown), header_bytes) == std::end(kKnown))
    throw Error(fmt::format("BMP: a header of {} bytes is not supported", header_bytes));
  need(14 + header_bytes);
  const bool core = header_bytes == 12;
  Header header;
  header.width = core ? static_cast<int32_t>(little(bytes, 18, 2)) : static_cast<int32_t>(little(bytes, 18, 4));
  header.height = core ? static_cast<int32_t>(little(bytes, 20, 2)) : static_cast<int32_t>(little(bytes, 22, 4));
  header.top_down = header.height < 0;
  if (header.top_down) header.height = -header.height;
  header.bits = core ? little(bytes, 24, 2) : little(bytes, 28, 2);
  if (!core) header.compression = little(bytes, 30, 4);

  size_t at = 14 + header_bytes;  // what follows the header: masks, palette, pixels
  if (header.bits == 16) header.masks = {0x7c00, 0x3e0, 0x1f};
  if (header.bits == 24 || header.bits == 32) header.masks = {0xff0000, 0xff00, 0xff};
  if (header.compression == kBitFields) {
    // After the header, which the larger ones merely count in.
    need(54 + 12);
    const std::array masks = {little(bytes, 54, 4), little(bytes, 58, 4), little(bytes, 62, 4)};
    if (header_bytes == 40) at += 12;
    if (masks != std::array<uint32_t, 3>{}) header.masks = masks;
  }
  header.pixels_at = little(bytes, 10, 4);
  if (header.bits <= 8) {
    const size_t entry = core ? 3 : 4;
    size_t colours = core ? 0 : little(bytes, 46, 4);
    if (colours == 0) colours = size_t{1} << header.bits;
    const size_t present = std::min({colours, header.palette.size(), (bytes.size() - at) / entry});
    for (size_t i = 0; i < present; ++i)
      for (size_t c = 0; c < 3; ++c) header.palette[i][c] = bytes[at + entry * i + 2 - c];
    // Some say that pixels follow the header, and mean the palette.
    if (header.pixels_at == 14 + header_bytes) header.pixels_at += entry * colours;
    at += entry * present;
  }
  if (header.pixels_at == 0) header.pixels_at = at;
  return header;
}

/// One row of 1, 2, 4 or 8 bits a pixel, the first in the highest bits.
void palette_row(const Header& header, const uint8_t* from, uint8_t* to) {
  const uint32_t in_a_byte = 8 / header.bits, mask = (1u << header.bits) - 1;
  for (uint32_t x = 0; x < header.width; ++x, to += 3) {
    const uint32_t shift = 8 - header.bits * (x % in_a_byte + 1);
    std::copy_n(header.palette[from[x / in_a_byte] >> shift & mask].data(), 3, to);
  }
}

/// One row of 2, 3 or 4 bytes a pixel.
void mask_row(const Header& header, const uint8_t* from, uint8_t* to) {
  const uint32_t step = header.bits / 8;
  std::array<uint32_t, 3> shift, largest;
  for (size_t c = 0; c < 3; ++c) {
    shift[c] = header.masks[c] == 0 ? 0 : static_cast<uint32_t>(std::countr_zero(header.masks[c]));
    largest[c] = header.masks[c] >> shift[c];
  }
  const bool bytes_alone = largest == std::array<uint32_t, 3>{255, 255, 255};
  for (int64_t x = 0; x < header.width; ++x, from += step, to += 3) {
    uint32_t pixel = 0;
    for (uint32_t i = 0; i < step; ++i) pixel |= static_cast<uint32_t>(from[i]) << (8 * i);
    for (size_t c = 0; c < 3; ++c) {
      const uint32_t value = (pixel & header.masks[c]) >> shift[c];
      to[c] = static_cast<uint8_t>(bytes_alone || largest[c] == 0 ? value : uint64_t{value} * 255 / largest[c]);
    }
  }
}

/// Runs of equal pixels, pixels as they are, ends of line and jumps, in Pillow's reading of them where files break the
/// rules: a run ends with its row, pixels as they are go on in the next one. What is jumped over has colour 0. The rows
/// come in the order of the file.
std::vector<uint8_t> run_length_indices(const Header& header, std::span<const uint8_t> bytes) {
  const bool nibbles = header.compression == kRle4;
  const size_t width = static_cast<size_t>(header.width), count = width * static_cast<size_t>(header.height);
  std::vector<uint8_t> indices(count);
  size_t at = header.pixels_at, done = 0, x = 0;
  bool row_begun = false;
  const auto skip = [&](size_t pixels) { done += std::min(pixels, count - done); };
  const auto next = [&] {
    if (at >= bytes.size()) {
      throw Error(fmt::format("BMP: the file ends after {} of {} pixels", done, count));
    }
    return bytes[at++];
  };
  while (done < count) {
    const size_t run = next(), value = next();
    if (run > 0) {
      const size_t length = std::min({run, x < width ? width - x : 0, count - done});
      for (size_t i = 0; i < length; ++i)
        indices[done + i] = static_cast<uint8_t>(!nibbles ? value : i % 2 == 0 ? value >> 4 : value & 15);
      done += length;
      x += length;
      row_begun = true;
    } else if (value == 0) {  // end of line
      skip(row_begun ? (width - done % width) % width : width);
      x = 0;
      row_begun = false;
    } else if (value == 1) {  // end of the image
      break;
    } else if (value == 2) {  // a jump
      const size_t right = next(), rows = next();
      skip(right + rows * width);
      x = done % width;
      row_begun = row_begun || right > 0;
    } else {  // `value` pixels as they are
      const size_t length = std::min(value, count - done);
      uint8_t pair = 0;
      for (size_t i = 0; i < length; ++i) {
        if (!nibbles || i % 2 == 0) pair = next();
        indices[done + i] = static_cast<uint8_t>(!nibbles ? pair : i % 2 == 0 ? pair >> 4 : pair & 15);
      }
      done += length;
      x += value;
      row_begun = true;
      at += at % 2;
    }
  }
  return indices;
}

}  // namespace

void decode_bmp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  const Header header = read_header(bytes);
  const uint32_t bits = header.bits;
  if (bits != 1 && bits != 2 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
    throw Error(fmt::format("BMP: {} bits a pixel are not supported", bits));
  if (header.compression > kBitFields || (header.compression == kBitFields && bits <= 8) ||
      (header.compression == kRle8 && bits != 8) || (header.compression == kRle4 && bits != 4)) {
    throw Error(fmt::format("BMP: compression {} of {} bits a pixel is not supported: convert it to PNG",
                            header.compression, bits));
  }
  check_size("BMP", header.width, header.height, options.limits);
  const auto row_of = [&](int64_t y) { return out.row(static_cast<int>(header.top_down ? y : header.height - 1 - y)); };

  if (header.compression == kRle8 || header.compression == kRle4) {
    const std::vector<uint8_t> indices = run_length_indices(header, bytes);
    out.resize(static_cast<int>(header.height), static_cast<int>(header.width), 3);
    const uint8_t* from = indices.data();
    for (int64_t y = 0; y < header.height; ++y) {
      uint8_t* to = row_of(y);
      for (int64_t x = 0; x < header.width; ++x, to += 3) std::copy_n(header.palette[*from++].data(), 3, to);
    }
    return;
  }
  // Rows are padded to four bytes, which the last one may lack.
  const int64_t row_bytes = (header.width * bits + 7) / 8, stride = (header.width * bits + 31) / 32 * 4;
  const int64_t needed = static_cast<int64_t>(header.pixels_at) + stride * (header.height - 1) + row_bytes;
  if (needed > static_cast<int64_t>(bytes.size())) {
    throw Error(fmt::format("BMP: {} x {} pixels of {} bits need {} bytes, the file has {}", header.width,
                            header.height, bits, needed, bytes.size()));
  }
  out.resize(static_cast<int>(header.height), static_cast<int>(header.width), 3);
  for (int64_t y = 0; y < header.height; ++y) {
    const uint8_t* from = bytes.data() + header.pixels_at + y * stride;
    if (bits <= 8)
      palette_row(header, from, row_of(y));
    else
      mask_row(header, from, row_of(y));
  }
}

}  // namespace saccade::data::formats
