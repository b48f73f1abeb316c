#pragma once

#include <saccade/data/decode.h>
#include <saccade/kernels/error.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// @file
/// The image files of tests/goldens/decode, and what is said of those that cannot be read.
namespace saccade::data {

inline std::vector<uint8_t> golden_image(const std::string& name) {
  std::vector<uint8_t> bytes;
  read_file(SACCADE_GOLDENS "/decode/" + name, 1 << 20, bytes);
  return bytes;
}

inline std::string error_of(std::span<const uint8_t> bytes, const DecodeOptions& options = {}) {
  try {
    decode(bytes, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace saccade::data
