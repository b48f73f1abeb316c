#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/data/multi_crop.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include <cmath>

#include "data/goldens.h"
#include "data/made_up.h"

namespace saccade::data {
namespace {

/// The crops of an image as bytes, one after the other.
struct ByteCrops {
  std::vector<std::vector<uint8_t>> crops;
  ByteCrops(const MultiCrop& settings, const Image& image, uint64_t stream) {
    std::vector<uint8_t*> places;
    for (const CropSpec& spec : settings.crops)
      for (int i = 0; i < spec.count; ++i) crops.emplace_back(spec.size * spec.size * image.channels);
    for (auto& crop : crops) places.push_back(crop.data());
    Philox random(7, stream);
    make_crops(settings, image, random, places);
  }
};

TEST(MultiCrop, DescribesItsBatches) {
  const MultiCrop crops = multi_crop({{2, 224, {.14, 1.}}, {6, 96, {.05, .14}}});
  EXPECT_EQ(crops.crops_per_image(), 8);
  EXPECT_EQ(crops.segments(10), (Segments{{20, 224, 224}, {60, 96, 96}}));
  EXPECT_NEAR(crops.useful_side(), 224 / std::sqrt(.14 * .75), 1e-3);
}

TEST(MultiCrop, IsReadFromText) {
  const auto two = parse_crops("2x224+6x96");
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].count, 6);
  EXPECT_EQ(two[1].size, 96);
  EXPECT_EQ(two[0].scale.low, 0.14f);
  EXPECT_EQ(two[1].scale.high, 0.14f);
  EXPECT_EQ(parse_crops("2x224")[0].scale.low, 0.08f);
  EXPECT_EQ(parse_crops("2x28@0.3-1+2x16@0.1-0.3")[1].scale.low, 0.1f);
  for (const char* wrong : {"", "2", "2x", "x4", "2x224+", "2x224@", "2x224@1", "2x224@0.5-0.1", "0x4", "2x-4",
                            "2x224 ", "2x99999", "2x224@0.1-2"}) {
    EXPECT_THROW(parse_crops(wrong), Error) << wrong;
  }
}

TEST(MultiCrop, RefusesSettingsOutOfRange) {
  EXPECT_THROW(multi_crop({}), Error);
  MultiCrop crops = small_crops();
  crops.blur_p = 1.5f;
  EXPECT_THROW(crops.check(), Error);
  crops = small_crops();
  crops.std[1] = 0;
  EXPECT_THROW(crops.check(), Error);
}

TEST(MultiCrop, EachAugmentationComesAsOftenAsAsked) {
  // A red image: grayscale makes its channels equal; anything else leaves green and blue below red.
  Image image;
  image.resize(32, 32, 3);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = i % 3 == 0 ? 200 : 40;
  MultiCrop crops = multi_crop({{1, 8, {.5f, 1.f}}});
  crops.hue = 0;
  crops.saturation = 0;
  int gray = 0, jittered = 0;
  float out[8 * 8 * 3];
  float* places[] = {out};
  for (uint64_t i = 0; i < 4000; ++i) {
    Philox random(1, i);
    make_crops(crops, image, random, places);
    const auto level = [&](int c) { return std::lround((out[c] * crops.std[c] + crops.mean[c]) * 255); };
    gray += level(0) == level(1) && level(1) == level(2);
    jittered += !(level(0) == level(1) ? level(0) == 88 : level(0) == 200);
  }
  EXPECT_NEAR(gray / 4000., 0.2, 0.02);
  EXPECT_NEAR(jittered / 4000., 0.8, 0.03);
}

TEST(MultiCrop, SwavsCropsKeepTheirBits) {
  // As they were before crops could have settings of their own.
  for (const auto& [name, expected] : {std::pair{"rgb.png", 3925865384u}, {"gray.png", 2623330156u}}) {
    const Image image = golden::image(name);
    uLong crc = crc32(0, nullptr, 0);
    for (uint64_t i = 0; i < 50; ++i) {
      const ByteCrops made(multi_crop({{2, 48, {.14f, 1.f}}, {4, 24, {.05f, .14f}}}), image, i);
      for (const auto& crop : made.crops) crc = crc32(crc, crop.data(), static_cast<uInt>(crop.size()));
    }
    EXPECT_EQ(crc, expected) << name;
  }
}

TEST(CropSettings, AreThoseOfTheirCropsAlone) {
  const Image image = golden::image("rgb.png");
  const MultiCrop plain = {.crops = {{4, 32, {.14f, 1.f}}}, .flip_p = 0, .jitter_p = 0, .grayscale_p = 0, .blur_p = 0};
  const std::vector<CropSettings> settings = {{.grayscale_p = 1.f},
                                              {},
                                              {.solarize_p = 1.f, .solarize_threshold = 100},
                                              {.blur_p = 1.f, .blur_sigma = Range{3, 3}}};
  for (uint64_t i = 0; i < 20; ++i) {
    // One crop each time, so that all have the same box.
    for (const CropSettings& own : settings) {
      MultiCrop with = plain;
      with.crops = {{1, 32, {.14f, 1.f}, own}, {1, 32, {.14f, 1.f}}};
      const auto before = ByteCrops(plain, image, i).crops[0], after = ByteCrops(with, image, i).crops[0];
      Planes expected = golden::planes({32, 32, 3, before});
      if (own.grayscale_p) to_gray(expected);
      if (own.solarize_p) solarize(expected, 100);
      if (own.blur_p) gaussian_blur(expected, 3);
      EXPECT_EQ(golden::largest_difference(expected, {32, 32, 3, after}), 0);
    }
  }
}

TEST(CropSettings, JitterHasTheStrengthsOfItsCrops) {
  Image image;
  image.resize(16, 16, 3);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = i % 3 == 0 ? 100 : 50;
  // Brightness alone, by up to a tenth for the first crop and up to a half for the second.
  MultiCrop crops = multi_crop({{1, 8, {.5f, 1.f}, {.jitter_p = 1.f, .brightness = 0.1f}}, {1, 8, {.5f, 1.f}}});
  crops.jitter_p = 1;
  crops.brightness = 0.5f;
  crops.contrast = crops.saturation = crops.hue = crops.grayscale_p = crops.blur_p = 0;
  int lowest[2] = {255, 255}, highest[2] = {};
  for (uint64_t i = 0; i < 500; ++i) {
    const ByteCrops made(crops, image, i);
    for (size_t c = 0; c < 2; ++c) {
      lowest[c] = std::min<int>(lowest[c], made.crops[c][0]);
      highest[c] = std::max<int>(highest[c], made.crops[c][0]);
    }
  }
  EXPECT_NEAR(lowest[0], 90, 1);
  EXPECT_NEAR(highest[0], 110, 1);
  EXPECT_NEAR(lowest[1], 50, 2);
  EXPECT_NEAR(highest[1], 150, 2);
}

TEST(CropSettings, CropsOfOneSizeAreOneSegmentWhateverTheirSettings) {
  const MultiCrop crops = multi_crop(parse_crops("1x32@0.14-1,blur=1+1x32@0.14-1,solarize=0.2+4x16@0.05-0.14"));
  EXPECT_EQ(crops.segments(10), (Segments{{20, 32, 32}, {40, 16, 16}}));
  Loader loader(made_up(8), crops, {.batch = 4});
  EXPECT_EQ(loader.next().images.segments(), crops.segments(4));
}

TEST(CropSettings, AreReadFromText) {
  const auto crops =
      parse_crops("1x96@0.14-1,blur=1+1x96,blur=0.1,solarize=0.2,threshold=100+6x32,sigma=0.1-0.5,hue=0");
  ASSERT_EQ(crops.size(), 3u);
  EXPECT_EQ(crops[0], (CropSpec{1, 96, {.14f, 1.f}, {.blur_p = 1.f}}));
  EXPECT_EQ(crops[1], (CropSpec{1, 96, {.14f, 1.f}, {.blur_p = .1f, .solarize_p = .2f, .solarize_threshold = 100}}));
  EXPECT_EQ(crops[2], (CropSpec{6, 32, {.05f, .14f}, {.hue = 0.f, .blur_sigma = Range{.1f, .5f}}}));
  const auto all = parse_crops("1x8,flip=0,jitter=0.1,gray=0.2,brightness=0.3,contrast=0.4,saturation=0.6");
  EXPECT_EQ(
      all[0].own,
      (CropSettings{
          .flip_p = 0.f, .jitter_p = .1f, .brightness = .3f, .contrast = .4f, .saturation = .6f, .grayscale_p = .2f}));
}

TEST(CropSettings, AreWrittenAsTheyAreRead) {
  EXPECT_EQ(to_text(parse_crops("2x224+6x96")), "2x224@0.14-1+6x96@0.05-0.14");
  EXPECT_EQ(to_text(parse_crops("1x96,threshold=90,sigma=0.1-2,solarize=0.25,blur=1.0,flip=0+6x32@1e-3-0.5")),
            "1x96@0.14-1,flip=0,blur=1,solarize=0.25,sigma=0.1-2,threshold=90+6x32@0.001-0.5");
  for (const char* text : {"2x32@0.2-1+4x20@0.08-0.4",
                           "1x8@0.3-1,jitter=0.1,brightness=0.3,contrast=3e-05,saturation=2,"
                           "hue=0.5,gray=1,blur=0.7+1x8@0.33333334-0.9"}) {
    EXPECT_EQ(to_text(parse_crops(text)), text);
  }
}

TEST(CropSettings, ThatCannotBeReadAreRefusedInASentence) {
  const auto complaint = [](const char* text) -> std::string {
    try {
      parse_crops(text);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(complaint("2x32,blurr=1"),
            "crops \"2x32,blurr=1\": \"blurr\" is no setting of crops: expected flip, jitter, brightness, contrast, "
            "saturation, hue, gray, blur, solarize, sigma or threshold");
  EXPECT_EQ(complaint("2x32,blur=0.1,blur=0.2"),
            "crops \"2x32,blur=0.1,blur=0.2\": blur is given twice in \"2x32,blur=0.1,blur=0.2\"");
  EXPECT_EQ(complaint("2x32,blur=1.5"), "multi_crop: 2x32: blur_p: expected 0 to 1, got 1.5");
  EXPECT_EQ(complaint("2x32+1x8,sigma=3-2"),
            "multi_crop: 1x8: blur_sigma: expected 0 <= low <= high <= 100, got 3 to 2");
  EXPECT_EQ(complaint("2x32,threshold=300"), "multi_crop: 2x32: solarize_threshold: expected 0 to 256, got 300");
  for (const char* wrong : {"2x32,", "2x32,blur", "2x32,blur=", "2x32,=1", "2x32,blur=x", "2x32,blur=0.1x",
                            "2x32,blur=0.1@0.1-1", "2x32,blur=nan", "2x32,sigma=1", "2x32,threshold=1.5", ",blur=1"}) {
    EXPECT_NE(complaint(wrong), "") << wrong;
  }
}

TEST(Recipes, DinosFirstTwoCropsAreNotAlike) {
  const MultiCrop crops = dino_crops({{2, 96, {.14f, 1.f}}, {6, 32, {.05f, .14f}, {.blur_p = 0.f}}});
  EXPECT_EQ(to_text(crops.crops), "1x96@0.14-1,blur=1+1x96@0.14-1,blur=0.1,solarize=0.2+6x32@0.05-0.14,blur=0");
  EXPECT_EQ(to_text(dino_crops(parse_crops("5x32,solarize=0")).crops),
            "1x32@0.08-1,blur=1,solarize=0+1x32@0.08-1,blur=0.1,solarize=0+3x32@0.08-1,solarize=0");
  EXPECT_EQ(crops.blur_p, 0.5f);
  EXPECT_EQ(crops.brightness, 0.4f);
  EXPECT_EQ(crops.saturation, 0.2f);
  EXPECT_EQ(crops.hue, 0.1f);
}

TEST(Recipes, SimclrsJitterHasItsStrength) {
  const MultiCrop crops = simclr_crops(32, 0.5f);
  EXPECT_EQ(to_text(crops.crops), "2x32@0.08-1");
  EXPECT_EQ(crops.brightness, 0.4f);
  EXPECT_EQ(crops.saturation, 0.4f);
  EXPECT_EQ(crops.hue, 0.1f);
  EXPECT_THROW(simclr_crops(32, 3), Error);  // a hue of 0.6
}

}  // namespace
}  // namespace saccade::data
