#include <saccade/core/io/safetensors.h>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const fuzz::MemoryFile file({data, size});
  try {
    const io::SafetensorsHeader header = io::read_safetensors_header(file.path());
    uint64_t position = 0;
    for (const io::SafetensorsEntry& entry : header.entries) {
      fuzz::require(entry.begin == position && entry.end >= entry.begin, "tensors follow one another");
      position = entry.end;
    }
    fuzz::require(header.data_offset + position == size, "tensors fill the file");
    fuzz::require(io::load_safetensors(file.path()).tensors.size() == header.entries.size(), "all tensors are read");
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
