#include <saccade/data/idx_files.h>
#include <saccade/data/source.h>

#include <algorithm>
#include <array>

#include "target.h"

/// The bytes, plain or gzipped, as images and as the labels of two.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const fuzz::MemoryFile file({data, size});
  try {
    const data::Source images = data::idx(file.path(), "");
    data::Image image;
    for (const int64_t i : {int64_t{0}, images.count - 1}) {
      images.read(i, 0, image);
      fuzz::require(!image.pixels.empty() && image.channels == images.channels, "an image has pixels");
    }
  } catch (const Error&) {
  }
  static constexpr std::array<uint8_t, 18> kTwoImages{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 9};
  const fuzz::MemoryFile two(kTwoImages);
  try {
    const data::Source source = data::idx(two.path(), file.path());
    fuzz::require(source.labels.size() == 2, "each image has a label");
    for (const int label : source.labels)
      fuzz::require(label >= 0 && label < source.num_classes(), "each label is of a class");
  } catch (const Error&) {
  }
  return 0;
}
