#include <gtest/gtest.h>
#include <saccade/data/augment.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include <cmath>

#include "data/goldens.h"

namespace saccade::data {
namespace {

TEST(Augment, EveryOperationGivesPillowsPixels) {
  const auto cases = golden::lines("cases.txt");
  ASSERT_GT(cases.size(), 60u);
  for (const std::string& line : cases) {
    std::istringstream words(line);
    std::string operation, source, result;
    words >> operation >> source;
    const Image image = golden::image(source);
    Planes planes = golden::planes(image);
    int allowed = 0;
    if (operation == "resize") {
      Box box;
      int height, width, mirror;
      words >> box.top >> box.left >> box.height >> box.width >> height >> width >> mirror;
      resized_crop(image, box, height, width, mirror != 0, planes);
      // Here, and in Pillow before 12, the horizontal pass always comes first; later versions start with the vertical
      // one where that direction alone shrinks.
      allowed = height < box.height && width > box.width ? 1 : 0;
    } else if (operation == "gray") {
      to_gray(planes);
    } else {
      float argument;
      words >> argument;
      if (operation == "brightness") adjust_brightness(planes, argument);
      if (operation == "contrast") adjust_contrast(planes, argument);
      if (operation == "saturation") adjust_saturation(planes, argument);
      if (operation == "hue") adjust_hue(planes, argument);
      if (operation == "blur") gaussian_blur(planes, argument);
      if (operation == "solarize") solarize(planes, static_cast<int>(argument));
    }
    words >> result;
    EXPECT_LE(golden::largest_difference(planes, golden::image(result)), allowed) << line;
  }
}

TEST(Augment, HueGivesPillowsPixelsForEveryColour) {
  for (const std::string& line : golden::lines("hue.txt")) {
    std::istringstream words(line);
    float shift;
    uLong expected;
    words >> shift >> expected;
    uLong crc = crc32(0, nullptr, 0);
    Planes planes;
    planes.resize(256, 256, 3);
    std::vector<uint8_t> interleaved(3 * planes.plane_size());
    for (int red = 0; red < 256; ++red) {
      for (size_t i = 0; i < planes.plane_size(); ++i) {
        planes.plane(0)[i] = static_cast<uint8_t>(red);
        planes.plane(1)[i] = static_cast<uint8_t>(i >> 8);
        planes.plane(2)[i] = static_cast<uint8_t>(i);
      }
      adjust_hue(planes, shift);
      for (size_t i = 0; i < planes.plane_size(); ++i) {
        for (int c = 0; c < 3; ++c) interleaved[3 * i + c] = planes.plane(c)[i];
      }
      crc = crc32(crc, interleaved.data(), static_cast<uInt>(interleaved.size()));
    }
    EXPECT_EQ(crc, expected) << line;
  }
}

TEST(Augment, GrayImagesHaveNoColourToChange) {
  const Planes before = golden::planes(golden::image("gray.png"));
  Planes after = before;
  adjust_saturation(after, 0.3f);
  adjust_hue(after, 0.2f);
  to_gray(after);
  EXPECT_EQ(before.pixels, after.pixels);
}

TEST(Augment, NormalizeSubtractsTheMeanAndDividesByTheDeviation) {
  const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.228f, 0.224f, 0.225f};
  for (const char* name : {"rgb.png", "gray.png"}) {
    const Image image = golden::image(name);
    std::vector<float> out(image.pixels.size());
    normalize(golden::planes(image), mean, std, out.data());
    for (size_t i = 0; i < out.size(); ++i) {
      const size_t c = i % static_cast<size_t>(image.channels);
      ASSERT_NEAR(out[i], (image.pixels[i] / 255.0 - mean[c]) / std[c], 2e-6);
    }
  }
}

TEST(Augment, ABoxOutsideTheImageIsAnError) {
  const Image image = golden::image("gray.png");
  Planes out;
  EXPECT_THROW(resized_crop(image, {0, 0, 62, 50}, 8, 8, false, out), Error);
  EXPECT_THROW(resized_crop(image, {-1, 0, 5, 5}, 8, 8, false, out), Error);
  EXPECT_THROW(resized_crop(image, {0, 0, 0, 5}, 8, 8, false, out), Error);
  EXPECT_THROW(resized_crop(image, {0, 0, 5, 5}, 0, 8, false, out), Error);
}

TEST(ResizedWindow, IsThatPartOfTheWholeBitForBit) {
  Philox random(3);
  Planes whole, part;
  for (int i = 0; i < 300; ++i) {
    const Image image = golden::image(i % 2 ? "rgb.png" : "gray.png");
    const auto below = [&](int n) { return static_cast<int>(random.below(static_cast<uint32_t>(n))); };
    Box box{0, 0, 1 + below(image.height), 1 + below(image.width)};
    box.top = below(image.height - box.height + 1);
    box.left = below(image.width - box.width + 1);
    const int height = 1 + below(150), width = 1 + below(150);
    Window window{0, 0, 1 + below(height), 1 + below(width)};
    window.top = below(height - window.height + 1);
    window.left = below(width - window.width + 1);
    const bool mirror = i % 3 == 0;
    resized_crop(image, box, height, width, mirror, whole);
    resized_window(image, box, height, width, window, mirror, part);
    for (int c = 0; c < image.channels; ++c) {
      for (int y = 0; y < window.height; ++y) {
        const uint8_t* expected = whole.plane(c) + (window.top + y) * width + window.left;
        ASSERT_TRUE(std::equal(expected, expected + window.width, part.plane(c) + y * window.width)) << i;
      }
    }
  }
  const Image image = golden::image("gray.png");
  EXPECT_THROW(resized_window(image, {0, 0, 5, 5}, 9, 9, {0, 5, 9, 5}, false, part), Error);
  EXPECT_THROW(resized_window(image, {0, 0, 5, 5}, 9, 9, {0, 0, 0, 5}, false, part), Error);
}

TEST(RandomResizedBox, AreaAndAspectAreDistributedAsAsked) {
  Philox random(3);
  const int height = 3000, width = 4000, count = 20000;
  double area = 0, log_aspect = 0, square = 0;
  for (int i = 0; i < count; ++i) {
    const Box box = random_resized_box(height, width, {0.14f, 0.5f}, {3 / 4.f, 4 / 3.f}, random);
    ASSERT_GE(box.top, 0);
    ASSERT_GE(box.left, 0);
    ASSERT_LE(box.top + box.height, height);
    ASSERT_LE(box.left + box.width, width);
    const double a = std::log(static_cast<double>(box.width) / box.height);
    ASSERT_LE(std::abs(a), std::log(4 / 3.) + 1e-3);
    area += static_cast<double>(box.height) * box.width / height / width;
    log_aspect += a;
    square += a * a;
  }
  EXPECT_NEAR(area / count, 0.32, 0.002);
  EXPECT_NEAR(log_aspect / count, 0, 0.004);
  EXPECT_NEAR(square / count, std::pow(std::log(4 / 3.), 2) / 3, 0.0006);  // the variance of a uniform distribution
}

TEST(RandomResizedBox, AnImageTooLongIsCutInItsMiddle) {
  Philox random(3);
  EXPECT_EQ(random_resized_box(10, 1000, {0.9f, 1.0f}, {3 / 4.f, 4 / 3.f}, random), (Box{0, 493, 10, 13}));
  EXPECT_EQ(random_resized_box(1000, 10, {0.9f, 1.0f}, {3 / 4.f, 4 / 3.f}, random), (Box{493, 0, 13, 10}));
  EXPECT_EQ(random_resized_box(1, 1, {0.05f, 0.05f}, {3 / 4.f, 4 / 3.f}, random), (Box{0, 0, 1, 1}));
}

}  // namespace
}  // namespace saccade::data
