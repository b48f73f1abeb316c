#include <saccade/core/io/weight_file.h>

#include <vector>

#include "target.h"

/// Whole files of weights, of whatever format, and those that are none.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::vector<char> bytes(data, data + size);
  try {
    const io::WeightFile weights = io::read_weights(io::ByteSource(bytes), "weights.pth");
    const DeviceScope meta(Device::meta);
    const io::WeightFile shapes = io::read_weights(io::ByteSource(bytes), "weights.pth");
    fuzz::require(shapes.tensors.size() == weights.tensors.size(), "shapes alone are of as many tensors");
    for (size_t i = 0; i < shapes.tensors.size(); ++i)
      fuzz::require(shapes.tensors[i].name == weights.tensors[i].name &&
                        shapes.tensors[i].tensor.shape() == weights.tensors[i].tensor.shape() &&
                        shapes.tensors[i].tensor.dtype() == weights.tensors[i].tensor.dtype(),
                    "shapes alone are those of the tensors");
  } catch (const OutOfMemory&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
