#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace saccade::ssl {

/// A small picture for reports: rows from the top, channels interleaved.
struct Thumbnail {
  int width = 0, height = 0, channels = 1;  ///< 1: grey, 3: RGB
  std::vector<uint8_t> pixels;              ///< height * width * channels
  std::string label;                        ///< shown with it, may be empty
};

/// The bytes of a PNG file (8 bits a channel). Throws Error when the pixels do not fill the picture.
std::string encode_png(const Thumbnail& picture);

}  // namespace saccade::ssl
