#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/data/eval_view.h>
#include <saccade/data/view.h>
#include <saccade/kernels/error.h>

#include <algorithm>

#include "data/made_up.h"

namespace saccade::data {
namespace {

TEST(EvalView, TakesAnImageOfItsSizeAsItIs) {
  const Source source = made_up(1, 1);
  Image image;
  image.resize(28, 28, 1);
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i);
  std::vector<float> out(28 * 28);
  make_view({.resize = 28, .size = 28, .mean = {0, 0, 0}, .std = {1, 1, 1}}, image, out.data());
  for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i] * 255, image.pixels[i], 1e-4);
}

TEST(EvalView, ShowsTheMiddleOfTheScaledImage) {
  Image image;
  image.resize(40, 80, 1);
  for (int y = 0; y < 40; ++y) {
    for (int x = 0; x < 80; ++x) image.row(y)[x] = static_cast<uint8_t>(2 * x + y);
  }
  std::vector<float> out(10 * 10);
  make_view({.resize = 20, .size = 10, .mean = {0, 0, 0}, .std = {1, 1, 1}}, image, out.data());
  // Scaled by 1/2 to 20 x 40; the middle begins at row 5 and column 15, which is row 10 and column 30 here, plus 0.5.
  for (int y = 0; y < 10; ++y) {
    for (int x = 0; x < 10; ++x)
      ASSERT_NEAR(out[static_cast<size_t>(10 * y + x)] * 255, 4 * x + 61 + 2 * y + 10.5, 1.01);
  }
  EXPECT_THROW((EvalView{.resize = 10, .size = 20}.check()), Error);
}

/// A view of one's own: the two halves of an image, then a square at chance, all upside down.
View upside_down() {
  return {.crops = {{2, 12, 10}, {1, 8, 8}}, .make = [](const Image& image, Philox& random, const View::Put& put) {
            Planes crop;
            const auto show = [&](const Box& box, int height, int width) {
              resized_crop(image, box, height, width, false, crop);
              for (int c = 0; c < crop.channels; ++c) std::reverse(crop.plane(c), crop.plane(c) + crop.plane_size());
              put(crop);
            };
            const int half = image.width / 2;
            show({0, 0, image.height, half}, 12, 10);
            show({0, half, image.height, half}, 12, 10);
            show({static_cast<int>(random.below(4)), static_cast<int>(random.below(4)), 9, 9}, 8, 8);
          }};
}

std::string complaint(const std::function<void()>& doing) {
  try {
    doing();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(View, OfOnesOwnMakesTheSameBitsWithAnyNumberOfWorkers) {
  std::vector<Batch> reference;
  for (const int workers : {0, 1, 3}) {
    Loader loader(made_up(20), upside_down(), {.batch = 6, .workers = workers, .seed = 5});
    for (size_t i = 0; i < 7; ++i) {
      Batch batch = loader.next();
      ASSERT_EQ(batch.images.segments(), (Segments{{12, 12, 10}, {6, 8, 8}}));
      if (workers == 0)
        reference.push_back(std::move(batch));
      else
        ASSERT_TRUE(same_bits(batch, reference[i])) << workers << " workers, batch " << i;
    }
  }
}

TEST(View, OfOnesOwnIsNormalisedWhereverItsBytesGo) {
  for (const int channels : {1, 3}) {
    View view = upside_down();
    view.mean = {0.1f, 0.2f, 0.3f};
    view.std = {0.5f, 0.6f, 0.7f};
    Loader numbers(made_up(12, channels), view, {.batch = 6}),
        bytes(made_up(12, channels), view, {.batch = 6, .bytes = true});
    BatchUpload upload(Device::cpu);
    const Batch raw = bytes.next(), batch = numbers.next();
    ASSERT_TRUE(same_bits(upload(raw), batch));
    const double mean = channels == 1 ? 0.2 : 0.1, std = channels == 1 ? 0.6 : 0.5;
    EXPECT_NEAR(batch.images.data<float>()[0], (raw.images.data<uint8_t>()[0] / 255. - mean) / std, 1e-6);
  }
}

TEST(View, HasTheRandomNumbersOfItsSampleAlone) {
  // A crop of one pixel that is what the first random number says.
  const View dice = {.crops = {{1, 1, 1}}, .make = [](const Image& image, Philox& random, const View::Put& put) {
                       Planes crop;
                       crop.resize(1, 1, image.channels);
                       std::fill_n(crop.pixels.begin(), 3, static_cast<uint8_t>(random.next_u32()));
                       put(crop);
                     }};
  Loader loader(made_up(10), dice, {.batch = 5, .seed = 3, .bytes = true});
  for (int i = 0; i < 4; ++i) {
    const Batch batch = loader.next();
    for (size_t b = 0; b < 5; ++b) {
      Philox random(3, Philox::mix(static_cast<uint64_t>(batch.epoch), static_cast<uint64_t>(batch.indices[b])));
      EXPECT_EQ(batch.images.data<uint8_t>()[3 * b], static_cast<uint8_t>(random.next_u32()));
    }
  }
}

TEST(View, ThatPutsOtherCropsThanItSaysIsRefusedInASentence) {
  const auto putting = [](std::vector<std::array<int, 3>> crops, int workers = 0) {
    return complaint([&] {
      View view = {.crops = {{2, 8, 6}, {1, 4, 4}}, .make = [&](const Image&, Philox&, const View::Put& put) {
                     Planes crop;
                     for (const auto& [h, w, c] : crops) {
                       crop.resize(h, w, c);
                       std::ranges::fill(crop.pixels, 0);
                       put(crop);
                     }
                   }};
      Loader(made_up(4), view, {.batch = 4, .workers = workers, .shuffle = false}).next();
    });
  };
  EXPECT_EQ(putting({{8, 6, 3}, {8, 6, 3}, {4, 4, 3}}), "");
  for (const int workers : {0, 2}) {
    EXPECT_EQ(putting({{8, 6, 3}, {8, 6, 3}}, workers), "image 0: view: expected 3 crops of an image, got 2");
    EXPECT_EQ(putting({{8, 6, 3}, {8, 6, 3}, {4, 4, 3}, {4, 4, 3}}, workers),
              "image 0: view: expected 3 crops of an image, got more");
  }
  EXPECT_EQ(putting({{8, 6, 3}, {6, 8, 3}, {4, 4, 3}}),
            "image 0: view: crop 2: expected 8 x 6 pixels of 3 channels, got 6 x 8 of 3");
  EXPECT_EQ(putting({{8, 6, 3}, {8, 6, 3}, {4, 4, 1}}),
            "image 0: view: crop 3: expected 4 x 4 pixels of 3 channels, got 4 x 4 of 1");
  EXPECT_EQ(putting({}), "image 0: view: expected 3 crops of an image, got 0");
}

TEST(View, ThatCannotBeMadeIsRefusedBeforeAnythingIsRead) {
  const auto complaint_on = [](const View& view) { return complaint([&] { Loader(made_up(4), view, {.batch = 1}); }); };
  View view = upside_down();
  view.make = {};
  EXPECT_EQ(complaint_on(view), "view: expected a function that makes the crops of an image, got none");
  view = upside_down();
  view.crops = {};
  EXPECT_EQ(complaint_on(view), "view: expected one crop at least, got none");
  view.crops = {{1, 8, 10000}};
  EXPECT_EQ(complaint_on(view),
            "view: expected a positive number of crops, of 1 to 8192 pixels a side, got 1 of 8 x 10000");
  view = upside_down();
  view.std[2] = 0;
  EXPECT_EQ(complaint_on(view), "std: expected a positive number, got 0");
  view = upside_down();
  view.useful_side = -1;
  EXPECT_EQ(complaint_on(view), "view: useful_side: expected 0 or a number of pixels, got -1");
}

TEST(View, IsShownImagesOfTheSideThatItSaysIsUseful) {
  Source source = made_up(4);
  double asked = -1;
  source.read = [&, read = source.read](int64_t i, double side, Image& out) {
    asked = side;
    read(i, side, out);
  };
  View view = upside_down();
  Loader(source, view, {.batch = 1}).next();
  EXPECT_EQ(asked, 0);  // in full
  view.useful_side = 17;
  Loader(source, view, {.batch = 1}).next();
  EXPECT_EQ(asked, 17);
}

TEST(View, WhatItThrowsEndsTheBatchAndIsNoUnreadableImage) {
  View view = upside_down();
  view.make = [](const Image&, Philox&, const View::Put&) { throw Error("no such corner"); };
  Loader loader(made_up(4), view, {.batch = 2, .shuffle = false});
  EXPECT_EQ(complaint([&] { loader.next(); }), "image 0: no such corner");
  EXPECT_TRUE(loader.failures().empty());
}

}  // namespace
}  // namespace saccade::data
