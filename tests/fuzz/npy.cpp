#include <saccade/core/io/npy.h>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const fuzz::MemoryFile file({data, size});
  try {
    const Tensor tensor = io::read_npy(file.path());
    fuzz::require(tensor.bytes() < size, "an array is not larger than its file");
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
