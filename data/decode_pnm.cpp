#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cctype>

namespace saccade::data::formats {

void decode_pnm(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  size_t at = 2;
  // Numbers are separated by white space and comments that run to the end of their line.
  const auto number = [&](const char* what) {
    while (at < bytes.size() && (std::isspace(bytes[at]) || bytes[at] == '#')) {
      if (bytes[at] == '#') {
        while (at < bytes.size() && bytes[at] != '\n' && bytes[at] != '\r') ++at;
      } else {
        ++at;
      }
    }
    int64_t value = 0;
    const size_t first = at;
    for (; at < bytes.size() && std::isdigit(bytes[at]) && value < (1 << 28); ++at)
      value = value * 10 + (bytes[at] - '0');
    if (at == first) throw Error(fmt::format("PNM: the header has no {}", what));
    return value;
  };
  const int channels = bytes[1] == '6' ? 3 : 1;
  const int64_t width = number("width"), height = number("height"), maximum = number("maximum");
  if (maximum < 1 || maximum > 65535) throw Error(fmt::format("PNM: a maximum of {} is out of range", maximum));
  check_size("PNM", width, height, options.limits);
  const size_t needed = at + 1 + static_cast<size_t>(width * height) * channels * (maximum > 255 ? 2 : 1);
  if (bytes.size() < needed) {
    throw Error(fmt::format("PNM: {} x {} pixels of {} channels need {} bytes, the file has {}", width, height,
                            channels, needed, bytes.size()));
  }
  // One white-space byte ends the header.
  const uint8_t* from = bytes.data() + at + 1;
  out.resize(static_cast<int>(height), static_cast<int>(width), channels);
  if (maximum == 255) {
    std::copy_n(from, out.pixels.size(), out.pixels.data());
    return;
  }
  const auto to_8_bits = [&](int64_t v) {
    return static_cast<uint8_t>((std::min(v, maximum) * 255 + maximum / 2) / maximum);
  };
  for (size_t i = 0; i < out.pixels.size(); ++i) {
    out.pixels[i] = to_8_bits(maximum > 255 ? from[2 * i] << 8 | from[2 * i + 1] : from[i]);
  }
}

}  // namespace saccade::data::formats
