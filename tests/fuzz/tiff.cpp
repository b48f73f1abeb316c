#include "image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return saccade::fuzz::decode_as(saccade::data::Format::tiff, {data, size});
}
