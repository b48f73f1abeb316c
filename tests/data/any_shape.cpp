#include <gtest/gtest.h>
#include <saccade/data/eval_view.h>
#include <saccade/data/multi_crop.h>

#include <algorithm>
#include <vector>

#include "data/peak_memory.h"

/// Images that are nothing but long are images like any other, and cost what their view shows.
namespace saccade::data {
namespace {

Image strip(int height, int width, int channels) {
  Image image;
  image.resize(height, width, channels);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i * i / 7 + i);
  return image;
}

TEST(AnyShape, TheViewIsTheMiddleOfTheWholeImageScaled) {
  for (const auto& [height, width] : {std::pair{1, 3000}, {3000, 1}, {2, 900}, {5, 331}, {331, 5}}) {
    for (const int channels : {1, 3}) {
      const Image image = strip(height, width, channels);
      const EvalView view{.resize = 37, .size = 32};
      std::vector<uint8_t> out(static_cast<size_t>(32 * 32 * channels)), expected(out.size());
      make_view(view, image, out.data());
      const int longer = 37 * std::max(height, width) / std::min(height, width);
      const int h = height > width ? longer : 37, w = height > width ? 37 : longer;
      Planes whole;
      resized_crop(image, {0, 0, height, width}, h, w, false, whole);
      // Half a pixel is rounded to the even side.
      const auto middle = [](int side) { return (side - 32) / 2 + ((side - 32) % 4 == 3); };
      for (int c = 0; c < channels; ++c) {
        for (int y = 0; y < 32; ++y) {
          for (int x = 0; x < 32; ++x) {
            expected[static_cast<size_t>((y * 32 + x) * channels + c)] =
                whole.plane(c)[(static_cast<size_t>(middle(h) + y)) * static_cast<size_t>(w) + middle(w) + x];
          }
        }
      }
      EXPECT_EQ(out, expected) << height << " x " << width << " x " << channels;
    }
  }
}

TEST(AnyShape, AViewTakesTheMemoryOfWhatItShows) {
  std::vector<uint8_t> out(224 * 224 * 3);
  const EvalView view;
  const int limit = 1 << 26;  // of pixels
  for (const auto& [height, width] : {std::pair{1, 30000}, {30000, 1}, {2, 9000}, {9000, 2}, {1, limit}, {limit, 1}}) {
    const Image image = strip(height, width, 1);
    EXPECT_LT(peak_kb([&] { make_view(view, image, out.data()); }), 4000) << height << " x " << width;
  }
}

TEST(AnyShape, CropsTakeTheMemoryOfWhatTheyShow) {
  const MultiCrop crops = multi_crop({{2, 224, {.14f, 1.f}}, {6, 96, {.05f, .14f}}});
  std::vector<std::vector<uint8_t>> memory;
  std::vector<uint8_t*> out;
  for (int i = 0; i < crops.crops_per_image(); ++i) memory.emplace_back(224 * 224 * 3);
  for (auto& crop : memory) out.push_back(crop.data());
  const int limit = 1 << 26;
  for (const auto& [height, width] : {std::pair{1, 30000}, {30000, 1}, {2, 9000}, {1, limit}, {limit, 1}}) {
    const Image image = strip(height, width, 1);
    Philox random(1);
    EXPECT_LT(peak_kb([&] { make_crops(crops, image, random, out); }), 4000) << height << " x " << width;
  }
}

}  // namespace
}  // namespace saccade::data
