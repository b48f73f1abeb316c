#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <vector>

namespace saccade::data::formats {
namespace {

/// The text of a header, or of a whole file: numbers separated by white space, and comments that run to the end of
/// their line.
struct Text {
  std::span<const uint8_t> bytes;
  size_t at;

  void skip_space() {
    while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#') {
        while (at < bytes.size() && bytes[at] != '\n' && bytes[at] != '\r') ++at;
      } else {
        ++at;
      }
    }
  }
  int64_t number(const char* what) {
    skip_space();
    int64_t value = 0;
    const size_t first = at;
    for (; at < bytes.size() && std::isdigit(bytes[at]) && value < (1 << 28); ++at)
      value = value * 10 + (bytes[at] - '0');
    if (at == first) {
      throw Error(at < bytes.size() ? fmt::format("PNM: expected the {} at byte {}", what, at)
                                    : fmt::format("PNM: the file ends before the {}", what));
    }
    return value;
  }
  /// 0 or 1; they need no space between them.
  bool bit() {
    skip_space();
    if (at == bytes.size()) throw Error("PNM: the file ends within its pixels");
    if (bytes[at] != '0' && bytes[at] != '1') throw Error(fmt::format("PNM: byte {} is neither 0 nor 1", at));
    return bytes[at++] == '1';
  }
};

struct Header {
  bool binary, bits;
  int channels;
  int64_t width, height, maximum;
};

/// @param text  is left behind the header
Header read_header(Text& text) {
  const int kind = text.bytes[1] - '0';  // 1 to 3: text, 4 to 6: binary; of bits, gray and colour
  const bool bits = kind % 3 == 1;
  const int64_t width = text.number("width"), height = text.number("height");
  const int64_t maximum = bits ? 1 : text.number("maximum");
  if (maximum < 1 || maximum > 65535) throw Error(fmt::format("PNM: a maximum of {} is out of range", maximum));
  return {kind > 3, bits, kind % 3 == 0 ? 3 : 1, width, height, maximum};
}

}  // namespace

bool pnm_has_16_bits(std::span<const uint8_t> bytes) {
  Text text{bytes, 2};
  return read_header(text).maximum > 255;
}

void decode_pnm(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  Text text{bytes, 2};
  const auto [binary, bits, channels, width, height, maximum] = read_header(text);
  check_size("PNM", width, height, options.limits);
  // One white-space byte ends a binary header. A number as text is at least a digit and a space, a bit a digit.
  const size_t samples = static_cast<size_t>(width * height) * channels;
  const size_t stride = bits ? static_cast<size_t>(width + 7) / 8 : static_cast<size_t>(width) * channels;
  const size_t needed = text.at + (binary ? 1 + stride * static_cast<size_t>(height) * (maximum > 255 ? 2 : 1)
                                   : bits ? samples
                                          : 2 * samples);
  if (bytes.size() < needed) {
    throw Error(fmt::format("PNM: {} x {} pixels of {} channels need {} bytes, the file has {}", width, height,
                            channels, needed, bytes.size()));
  }
  out.resize(static_cast<int>(height), static_cast<int>(width), channels);
  const uint8_t* from = bytes.data() + text.at + 1;
  if (bits) {  // 1 is black
    for (int64_t y = 0; y < height; ++y) {
      uint8_t* row = out.row(static_cast<int>(y));
      for (int64_t x = 0; x < width; ++x) {
        const bool black = binary ? from[static_cast<size_t>(y) * stride + x / 8] >> (7 - x % 8) & 1 : text.bit();
        row[x] = black ? 0 : 255;
      }
    }
    return;
  }
  if (binary && maximum == 255) {
    std::copy_n(from, samples, out.pixels.data());
    return;
  }
  // In double and rounded half to even, which decides where the maximum is even.
  std::vector<uint8_t> to_8_bits(static_cast<size_t>(maximum) + 1);
  for (int64_t v = 0; v <= maximum; ++v) {
    to_8_bits[static_cast<size_t>(v)] =
        static_cast<uint8_t>(std::nearbyint(static_cast<double>(v) / static_cast<double>(maximum) * 255));
  }
  for (size_t i = 0; i < samples; ++i) {
    const int64_t value = !binary         ? text.number("next sample")
                          : maximum > 255 ? from[2 * i] << 8 | from[2 * i + 1]
                                          : from[i];
    if (!binary && value > maximum) throw Error(fmt::format("PNM: a sample of {} exceeds {}", value, maximum));
    out.pixels[i] = to_8_bits[static_cast<size_t>(std::min(value, maximum))];
  }
}

}  // namespace saccade::data::formats
