#include <gtest/gtest.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/vision/features.h>
#include <saccade/vision/fine_tune.h>

#include "made_up.h"

namespace saccade::vision {
namespace {

TEST(FineTune, OfASourceLearnsItsClassesThoughABatchWantsMoreImagesThanThereAre) {
  const auto trunk = nn::trunk(kTiny, 1);
  const data::Source labelled = data::subset(grays(), {0, 1, 2, 5, 6, 7});
  const ssl::Classifier tuned = fine_tune(trunk, labelled, mild_crops(tiny_info()),
                                          {.classes = 2, .iterations = 60, .trunk_lr = 5e-3f}, {.batch = 32});
  const data::Rows rows = features(*trunk, tiny_info(), grays());
  EXPECT_EQ(ssl::accuracy(tuned.linear().classify(rows.rows), rows.labels), 1);
}

TEST(MildCrops, AreOfTheNetworksSizeAndLeaveColourAlone) {
  const data::MultiCrop crops = mild_crops(tiny_info());
  EXPECT_EQ(crops.segments(5), (Segments{{5, 16, 16}}));
  EXPECT_FLOAT_EQ(crops.std[2], 0.4f);
  // Of an image of one gray all crops are that gray.
  data::Image image;
  grays().read(1, 0, image);
  Philox random(3);
  std::vector<float> crop(size_t{3} * 16 * 16);
  float* to = crop.data();
  for (int i = 0; i < 20; ++i) {
    data::make_crops(crops, image, random, {&to, 1});
    for (size_t p = 0; p < crop.size(); ++p)
      ASSERT_NEAR(crop[p], (221.f / 255 - tiny_info().mean[p % 3]) / tiny_info().std[p % 3], 1e-5);
  }
}

}  // namespace
}  // namespace saccade::vision
