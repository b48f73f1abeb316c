#include <saccade/data/exif.h>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const int orientation = data::exif_orientation({data, size});
  fuzz::require(orientation >= 1 && orientation <= 8, "an orientation is one of eight");
  const data::Image stored{.height = 2, .width = 3, .channels = 1, .pixels = {1, 2, 3, 4, 5, 6}};
  data::Image image = stored;
  data::make_upright(image, orientation);
  data::make_upright(image, orientation == 6 ? 8 : orientation == 8 ? 6 : orientation);
  fuzz::require(image.height == 2 && image.width == 3 && image.pixels == stored.pixels,
                "turned back, an image is as it was");
  return 0;
}
