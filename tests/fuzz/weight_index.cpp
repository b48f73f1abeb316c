#include <saccade/core/io/weight_file.h>

#include <vector>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::vector<char> bytes(data, data + size);
  try {
    for (const auto& [tensor, file] : io::read_weight_index(io::ByteSource(bytes)))
      fuzz::require(!file.empty() && file != ".." && file.find('/') == file.npos, "shards lie beside the index");
  } catch (const Error&) {
  }
  return 0;
}
