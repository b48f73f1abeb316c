#include <saccade/data/decode.h>

#include <algorithm>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::span<const uint8_t> bytes(data, size);
  const data::Format format = data::detect_format(bytes);
  fuzz::require(format == data::detect_format(bytes.first(std::min(size, data::kFormatBytes))),
                "a format is told from the first bytes alone");
  fuzz::require(!data::name_of(format).empty() && !data::advice_on(format).empty(), "a format has a name");
  return 0;
}
