#pragma once

#include <saccade/data/decode.h>

#include "target.h"

namespace saccade::fuzz {

/// Decodes the bytes if they are of this format, twice into the same image. Other bytes do not enter the corpus.
inline int decode_as(data::Format format, std::span<const uint8_t> bytes) {
  if (data::detect_format(bytes) != format) return -1;
  data::Image image;
  data::DecodeLimits limits;
  limits.max_pixels = 1 << 14;
  for (const data::DecodeOptions& options :
       {data::DecodeOptions{.channels = 3, .limits = limits},
        data::DecodeOptions{.channels = 1, .useful_side = 16, .exif = false, .limits = limits}}) {
    try {
      data::decode(bytes, options, image);
    } catch (const Error&) {
      continue;
    }
    require(image.width > 0 && image.height > 0 && image.channels == options.channels, "an image has the size it says");
    require(int64_t{image.width} * image.height <= limits.max_pixels, "an image is within the limit");
    require(image.pixels.size() == static_cast<size_t>(image.width) * image.height * image.channels,
            "an image has all of its pixels");
  }
  return 0;
}

}  // namespace saccade::fuzz
