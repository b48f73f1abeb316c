#include <gtest/gtest.h>
#include <saccade/vision/baselines.h>
#include <saccade/vision/features.h>

#include <algorithm>

#include "made_up.h"

namespace saccade::vision {
namespace {

TEST(Baselines, FeaturesOfEachNetworkAreAsAloneAndPixelsAreThoseItIsShown) {
  const auto one = nn::trunk(kTiny, 1), other = nn::trunk(kTiny, 2);
  const ssl::TrunkInfo info = tiny_info();
  const std::vector<data::Rows> rows = features_and_pixels({one.get(), other.get()}, info, grays());
  ASSERT_EQ(rows.size(), 3u);
  const data::Rows alone[] = {features(*one, info, grays()), features(*other, info, grays())};
  for (size_t i = 0; i < 2; ++i)
    EXPECT_TRUE(std::ranges::equal(rows[i].rows.data<float>(), alone[i].rows.data<float>())) << i;
  for (const data::Rows& each : rows) {
    EXPECT_EQ(each.indices, alone[0].indices);
    EXPECT_EQ(each.labels, alone[0].labels);
    EXPECT_EQ(each.failures.size(), 1u);
  }
  const Tensor& pixels = rows[2].rows;
  ASSERT_EQ(pixels.shape(), (Shape{7, 16 * 16 * 3}));
  for (int64_t row = 0; row < 7; ++row) {
    const auto sample = rows[2].indices[static_cast<size_t>(row)];
    const auto gray = static_cast<float>((sample % 2 == 0 ? 20 : 220) + sample);
    for (size_t i = 0; i < 16 * 16 * 3; ++i)
      ASSERT_NEAR(pixels.data<float>()[static_cast<size_t>(row) * 768 + i],
                  (gray / 255 - info.mean[i % 3]) / info.std[i % 3], 1e-5);
  }
}

TEST(Baselines, PixelsOfALargeViewAreMeansOfAreas) {
  EXPECT_EQ(pixel_side(224, 3), 18);
  EXPECT_EQ(pixel_side(224, 1), 32);
  EXPECT_EQ(pixel_side(28, 1), 28);
  EXPECT_EQ(pixel_side(16, 3), 16);
  // Rows of black and white by turns: areas of two rows are all of the same gray.
  data::Source stripes = grays(2);
  stripes.read = [](int64_t, double, data::Image& out) {
    out.resize(36, 36, 3);
    for (size_t i = 0; i < out.pixels.size(); ++i) out.pixels[i] = i / (36 * 3) % 2 == 0 ? 255 : 0;
  };
  const ssl::TrunkInfo info{.trunk = kTiny, .size = 36, .mean = {0, 0, 0}, .std = {1, 1, 1}, .view = "whole"};
  const auto rows = features_and_pixels({}, info, stripes);
  ASSERT_EQ(rows.size(), 1u);
  ASSERT_EQ(rows[0].rows.shape(), (Shape{2, 18 * 18 * 3}));
  for (const float v : rows[0].rows.data<float>()) ASSERT_NEAR(v, 0.5f, 1e-6);
}

TEST(Baselines, OfKnnAreTheSharesThatEachHasRight) {
  const auto trunk = nn::trunk(kTiny, 1);
  const data::LabelledPair same{.train = grays(), .test = grays(), .summary = ""};
  EXPECT_EQ(knn_baselines(*trunk, tiny_info(), same, {.neighbours = 1}),
            (ssl::Baselines{{"raw pixels", 1}, {"untrained network", 1}}));
  // All seven vote, evenly weighted: dark, of which there are four, is said of each.
  const auto all = knn_baselines(*trunk, tiny_info(), same, {.neighbours = 7, .temperature = 1e6f});
  EXPECT_NEAR(all[0].second, 4. / 7, 1e-9);
  EXPECT_NEAR(all[1].second, 4. / 7, 1e-9);
}

}  // namespace
}  // namespace saccade::vision
