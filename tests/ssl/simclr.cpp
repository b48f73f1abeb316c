#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/simclr.h>
#include <support/temporary_folder.h>

#include <cmath>
#include <string>
#include <vector>

#include "readings.h"
#include "tiny.h"

namespace saccade::ssl {
namespace {

constexpr SimclrOptions kTiny{.hidden = 32, .dim = 16};

/// The two large crops of each image; `unrelated`: of one and of another.
Batch two_crops(int64_t iteration, int64_t size = 16, bool unrelated = false) {
  const Batch batch = testing::tiny_batch(iteration, size);
  const Segment large = batch.images.segments().front();
  Batch two = batch;
  two.images = Tensor::images({large}, 1);
  two.images.copy_from(batch.images.slice(0, large.rows()));
  if (!unrelated) return two;
  const int64_t half = large.rows() / 2, shift = 3 * large.h * large.w;
  two.images.slice(half, 2 * half - shift).copy_from(batch.images.slice(half + shift, 2 * half));
  two.images.slice(2 * half - shift, 2 * half).copy_from(batch.images.slice(half, half + shift));
  return two;
}

TEST(Simclr, LossIsTheCrossEntropyOfFindingTheOtherCropAmongAllOthers) {
  Simclr model(testing::tiny_trunk(), kTiny, 3);
  const std::vector<Batch> batches{two_crops(0, 8)};
  const double loss = double{model.loss(batches, 0, {}).item()};
  const Tensor z = model.seen().at(0).tensor;
  ASSERT_EQ(z.shape(), (Shape{16, 16}));
  double expected = 0;
  for (int64_t i = 0; i < 16; ++i) {
    double all = 0, other = 0;
    for (int64_t k = 0; k < 16; ++k) {
      double similarity = 0;
      for (int64_t d = 0; d < 16; ++d)
        similarity += double{z.data<float>()[i * 16 + d]} * double{z.data<float>()[k * 16 + d]};
      if (k == i) continue;
      all += std::exp(similarity / double{kTiny.temperature});
      if (k == (i + 8) % 16) other = similarity / double{kTiny.temperature};
    }
    expected += (std::log(all) - other) / 16;
  }
  EXPECT_NEAR(loss, expected, 1e-5);
}

TEST(Simclr, TakesTwoCropsAndNoOtherNumber) {
  Simclr model(testing::tiny_trunk(), kTiny, 3);
  const std::vector<Batch> four{testing::tiny_batch(0)};
  EXPECT_NE(test::complaint([&] { model.begin(four, {}); }).find("64 crops of 16 images; expected two of each"),
            std::string::npos);
  EXPECT_THROW(Simclr(testing::tiny_trunk(), {.temperature = 0.f}), Error);
}

/// A step whose embeddings are (common * one direction + the image's + noise * the view's), normalised.
std::vector<NamedTensor> made(uint64_t seed, float common, float noise) {
  const int64_t images = 64, dim = 16;
  Tensor z = Tensor::empty({2 * images, dim});
  for (int64_t b = 0; b < images; ++b) {
    Philox own(seed, static_cast<uint64_t>(b));
    std::vector<float> image(dim);
    for (float& v : image) v = own.normal();
    image[0] += common;
    for (int64_t view = 0; view < 2; ++view)
      for (int64_t d = 0; d < dim; ++d)
        z.data<float>()[static_cast<size_t>((view * images + b) * dim + d)] =
            image[static_cast<size_t>(d)] + noise * own.normal();
  }
  return {{"embeddings", l2_normalize(z)}};
}

TEST(SimclrHealth, TellsCollapsedEmbeddingsFromHealthyOnes) {
  const Simclr model(testing::tiny_trunk(), kTiny, 3);
  for (const bool collapsed : {false, true}) {
    HealthMonitor monitor(model.health(), {});
    std::string said;
    for (int64_t i = 0; i < 1000; i += 20)
      for (const HealthMessage& m :
           monitor.observe(i, collapsed ? 4.84f : 1.f, 64,
                           made(static_cast<uint64_t>(i), collapsed ? 60.f : 0.f, i == 0 ? 3.f : 0.2f)))
        said += m.text() + "\n";
    const HealthReading& reading = monitor.last();
    EXPECT_NEAR(reading.value("loss gap"), std::log(127.) - (collapsed ? 4.84 : 1.), 1e-3);
    if (collapsed) {
      EXPECT_GT(reading.value("uniformity"), -0.1);
      EXPECT_NE(said.find("ALARM"), std::string::npos) << said;
      EXPECT_NE(said.find("lie on one another"), std::string::npos) << said;
    } else {
      EXPECT_EQ(said, "");
      EXPECT_GT(reading.value("contrast accuracy"), 0.95);
      EXPECT_LT(reading.value("uniformity"), -2.);
      EXPECT_NEAR(reading.value("alignment"), 2 * (1 - 1 / 1.04), 0.03);
      for (const HealthMetric& m : reading.metrics) EXPECT_EQ(m.band, Band::healthy) << m.name << " " << m.value;
    }
  }
}

TEST(SimclrHealth, IsSilentOnARunThatLearns) {
  Simclr model(testing::tiny_trunk(), kTiny, 3);
  const auto run = testing::watched(
      model, [](int64_t i) { return two_crops(i); }, 5e-3f, 600);
  EXPECT_EQ(run.words(), "");
  EXPECT_GT(run.last.value("contrast accuracy"), 0.4);
  EXPECT_GT(run.last.value("loss gap"), 1.5);
}

TEST(SimclrHealth, SaysThatARunWithCropsThatHaveNothingInCommonDoesNotLearn) {
  Simclr model(testing::tiny_trunk(), kTiny, 3);
  const auto run = testing::watched(
      model, [](int64_t i) { return two_crops(i, 16, true); }, 5e-3f, 720);
  EXPECT_THAT(run.words(), ::testing::AnyOf(::testing::HasSubstr("crowded"), ::testing::HasSubstr("not learning")));
  EXPECT_NE(run.words().find("larger areas"), std::string::npos) << run.words();
}

// As on real images: at 5 the features were worth less than raw pixels, at 0.01 as much as any, however crowded.
TEST(SimclrHealth, NamesATemperatureThatKeepsItFromLearning) {
  for (const float temperature : {0.2f, 5.f}) {
    SimclrOptions options = kTiny;
    options.temperature = temperature;
    const Simclr model(testing::tiny_trunk(), options, 3);
    HealthLook look;
    look.images = 16;
    const std::string first = model.health()->advice({}, look).at(0);
    EXPECT_EQ(first.find("temperature of 0.1 to 0.5") != std::string::npos, temperature == 5.f) << first;
  }
}

TEST(SimclrHealth, SaysNothingOfCrowdedEmbeddingsThatTellImagesApart) {
  SimclrOptions options = kTiny;
  options.temperature = 0.005f;
  Simclr model(testing::tiny_trunk(), options, 3);
  const auto run = testing::watched(
      model, [](int64_t i) { return two_crops(i); }, 5e-3f, 720);
  EXPECT_EQ(run.words(), "");
  EXPECT_GT(run.last.value("common direction"), 0.7);
  EXPECT_GT(run.last.value("crop found"), 0.4);
}

TEST(SimclrHealth, CostsLessThanAHundredthOfTheStep) {
  Simclr model(testing::tiny_trunk(), kTiny, 3);
  EXPECT_LT(testing::share_of_readings(model, [](int64_t i) { return two_crops(i, 32); }), 0.01);
}

}  // namespace
}  // namespace saccade::ssl
