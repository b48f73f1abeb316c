#include <saccade/data/printable.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::string text = data::printable(std::string(data, data + size));
  fuzz::require(data::printable(text) == text, "what is printable stays as it is");
  fuzz::require(std::none_of(text.begin(), text.end(), [](char c) { return (c >= 0 && c < ' ') || c == 0x7f; }),
                "no control character is printable");
  (void)nlohmann::json(text).dump();  // throws where it is not UTF-8
  return 0;
}
