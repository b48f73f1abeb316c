#pragma once

#include <saccade/data/augment.h>
#include <saccade/data/decode.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

/// Files that tests/goldens/augment.py wrote.
namespace saccade::data::golden {

inline std::string path(const std::string& name) { return std::string(SACCADE_GOLDENS "/augment/") + name; }

inline std::vector<uint8_t> bytes(const std::string& name) {
  std::vector<uint8_t> all;
  read_file(path(name), int64_t{1} << 30, all);
  return all;
}

inline Image image(const std::string& name, int channels = 0) { return decode(bytes(name), {.channels = channels}); }

inline std::vector<std::string> lines(const std::string& name) {
  std::ifstream file(path(name));
  std::vector<std::string> all;
  for (std::string line; std::getline(file, line);) all.push_back(line);
  return all;
}

inline Planes planes(const Image& image) {
  Planes out;
  resized_crop(image, {0, 0, image.height, image.width}, image.height, image.width, false, out);
  return out;
}

/// The largest difference of any sample; 256 where the shapes differ.
inline int largest_difference(const Planes& a, const Image& b) {
  if (a.height != b.height || a.width != b.width || a.channels != b.channels) return 256;
  int largest = 0;
  for (size_t i = 0; i < a.plane_size(); ++i) {
    for (int c = 0; c < a.channels; ++c) {
      largest = std::max(largest, std::abs(a.plane(c)[i] - b.pixels[i * a.channels + c]));
    }
  }
  return largest;
}

}  // namespace saccade::data::golden
