#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/dino.h>
#include <support/temporary_folder.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "readings.h"
#include "tiny.h"

namespace saccade::ssl {
namespace {

DinoOptions tiny_options() {
  return {.outputs = 64, .hidden = 32, .dim = 16, .momentum = 0.98f, .freeze_iterations = 8};
}

Dino tiny_dino(const DinoOptions& options) { return {testing::tiny_trunk(), testing::tiny_trunk(7), options, 3}; }

Tensor seen(const Dino& model, const std::string& name) {
  for (const NamedTensor& t : model.seen())
    if (t.name == name) return t.tensor;
  return {};
}

std::vector<Tensor> copies(const std::vector<NamedTensor>& tensors, const std::string& prefix) {
  std::vector<Tensor> all;
  for (const auto& [name, tensor] : tensors)
    if (name.starts_with(prefix)) all.push_back(tensor.clone());
  return all;
}

bool same(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(a[i].raw(), b[i].raw(), a[i].bytes()) != 0) return false;
  return a.size() == b.size();
}

TEST(Dino, TheTeacherBeginsAsTheStudentAndIsNotTrained) {
  Dino model = tiny_dino(tiny_options());
  const auto all = model.named_tensors();
  EXPECT_TRUE(same(copies(all, "teacher.trunk."), copies(all, "trunk.")));
  EXPECT_TRUE(same(copies(all, "teacher.head."), copies(all, "head.")));
  for (const NamedTensor& p : model.trained_parameters()) EXPECT_FALSE(p.name.starts_with("teacher.")) << p.name;
  EXPECT_EQ(2 * model.trained_parameters().size(), model.named_parameters().size());
}

TEST(Dino, LossIsTheMeanOverPairsOfDifferentCropsOneOfThemTheTeachers) {
  Dino model = tiny_dino(tiny_options());
  const std::vector<Batch> batches{testing::tiny_batch(0, 4)};
  const double loss = double{model.loss(batches, 0, {}).item()};
  const Tensor targets = seen(model, "targets"), z = seen(model, "embeddings");
  ASSERT_EQ(targets.shape(), (Shape{2 * 4, 64}));
  ASSERT_EQ(z.shape(), (Shape{4 * 4, 16}));
  const Tensor* last = nullptr;
  const auto parameters = model.named_parameters();
  for (const NamedTensor& p : parameters)
    if (p.name == "head.last_layer.weight_v") last = &p.tensor;
  ASSERT_NE(last, nullptr);
  const Tensor scores = linear(z, l2_normalize(last->detach()));
  double expected = 0;
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t v = 0; v < 4; ++v)
      for (int64_t b = 0; b < 4 && v != i; ++b) {
        double all = 0;
        for (int64_t k = 0; k < 64; ++k) all += std::exp(double{scores.data<float>()[(v * 4 + b) * 64 + k]} / 0.1);
        for (int64_t k = 0; k < 64; ++k)
          expected -= double{targets.data<float>()[(i * 4 + b) * 64 + k]} *
                      (double{scores.data<float>()[(v * 4 + b) * 64 + k]} / 0.1 - std::log(all)) / (4 * 6);
      }
  EXPECT_NEAR(loss, expected, 1e-5);
}

TEST(Dino, TheTeacherSeesTheFirstCropsAlone) {
  Dino model = tiny_dino(tiny_options());
  std::vector<Batch> batches{testing::tiny_batch(0)};
  model.loss(batches, 0, {});
  const Tensor before = seen(model, "targets").clone();
  const Segment large = batches[0].images.segments().front();
  batches[0].images.slice(large.rows(), batches[0].images.dim(0)).fill(0.f);
  model.loss(batches, 0, {});
  EXPECT_TRUE(same({seen(model, "targets")}, {before}));
  DinoOptions one = tiny_options();
  one.teaching = 1;
  Dino single = tiny_dino(one);
  single.loss(batches, 0, {});
  EXPECT_EQ(seen(single, "targets").dim(0), 16);
}

TEST(Dino, TeacherAndCentreFollowAfterAnUpdate) {
  Dino model = tiny_dino(tiny_options());
  const std::vector<Batch> batches{testing::tiny_batch(0)};
  const Progress progress{.iteration = 5, .iterations = 10};
  model.loss(batches, 0, progress);
  for (const NamedTensor& p : model.trained_parameters()) p.tensor.copy_from(scale(p.tensor.detach(), 3.f));
  const auto teacher = copies(model.named_parameters(), "teacher."), student = copies(model.trained_parameters(), "");
  for (const float c : model.center().data<float>()) EXPECT_EQ(c, 0.f);
  model.updated(progress);
  const float m = model.momentum(progress);
  EXPECT_NEAR(m, 0.99, 1e-6);  // half way from 0.98 to 1
  double moved = 0;
  const auto now = copies(model.named_parameters(), "teacher.");
  for (size_t t = 0; t < now.size(); ++t)
    for (size_t i = 0; i < now[t].data<float>().size(); ++i) {
      const float expected = m * teacher[t].data<float>()[i] + (1 - m) * student[t].data<float>()[i];
      ASSERT_NEAR(now[t].data<float>()[i], expected, 1e-6 + 1e-5 * std::abs(expected));
    }
  for (const float c : model.center().data<float>()) moved += std::abs(double{c});
  EXPECT_GT(moved, 0.);
}

TEST(Dino, SchedulesAreTheAuthors) {
  DinoOptions options = tiny_options();
  options.momentum = 0.996f;
  options.teacher_temperature = 0.07f;
  options.teacher_warmup_epochs = 4;
  const Dino model = tiny_dino(options);
  const auto temperature = [&](int64_t epoch) {
    return model.teacher_temperature({.iteration = 10 * epoch + 9, .iterations = 100, .per_epoch = 10});
  };
  EXPECT_FLOAT_EQ(temperature(0), 0.04f);
  EXPECT_FLOAT_EQ(temperature(1), 0.05f);
  EXPECT_FLOAT_EQ(temperature(3), 0.07f);
  EXPECT_FLOAT_EQ(temperature(9), 0.07f);
  EXPECT_FLOAT_EQ(model.momentum({.iteration = 0, .iterations = 100}), 0.996f);
  EXPECT_NEAR(model.momentum({.iteration = 25, .iterations = 100}), 1 - 0.004 * (1 + std::sqrt(0.5)) / 2, 1e-6);
}

TEST(Dino, AFrozenLastLayerGetsNoGradient) {
  Dino model = tiny_dino(tiny_options());
  const std::vector<Batch> batches{testing::tiny_batch(0)};
  for (const int64_t iteration : {7, 8}) {
    model.loss(batches, 0, {.iteration = iteration, .iterations = 20}).backward();
    for (const NamedTensor& p : model.trained_parameters()) {
      EXPECT_EQ(p.tensor.grad().defined(), iteration == 8 || p.name != "head.last_layer.weight_v") << p.name;
      p.tensor.set_grad({});
    }
  }
}

TEST(Dino, SaysWhatIsWrong) {
  Dino model = tiny_dino(tiny_options());
  std::vector<Batch> batches{testing::tiny_batch(0, 16)};
  batches[0].indices.pop_back();
  EXPECT_NE(test::complaint([&] { model.loss(batches, 0, {}); }).find("64 crops of 15 images"), std::string::npos);
  DinoOptions cold = tiny_options();
  cold.teacher_temperature = 0.f;
  EXPECT_THROW(tiny_dino(cold), Error);
  EXPECT_NE(test::complaint([&] {
              Dino(testing::tiny_trunk(), nn::regnet("y:d=2,w0=16,wa=8,wm=2,g=8,in=1,stem=simple,stem_width=8"),
                   tiny_options());
            }).find("the teacher's"),
            std::string::npos);
}

testing::Watched trained(const DinoOptions& options, int64_t iterations = 600) {
  Dino model = tiny_dino(options);
  return testing::watched(
      model, [](int64_t i) { return testing::tiny_batch(i); }, 5e-3f, iterations);
}

TEST(DinoHealth, IsSilentOnARunThatLearns) {
  const auto run = trained(tiny_options(), 800);
  EXPECT_EQ(run.words(), "");
  EXPECT_GT(run.last.value("target information"), 0.15);
  EXPECT_LT(run.last.value("target entropy"), 0.7);
  EXPECT_GT(run.last.value("target marginal"), 0.1);
  for (const char* name : {"KL", "center norm", "spread", "view margin"})
    EXPECT_TRUE(std::isfinite(run.last.value(name))) << name;
}

/// Without centring one output wins (section 5.3 of the paper, figure 7).
TEST(DinoHealth, NamesTheCentreWhereOneOutputHasAllImages) {
  DinoOptions options = tiny_options();
  options.center_momentum = 1.f;
  const auto run = trained(options);
  ASSERT_EQ(run.said.size(), 1u) << run.words();
  EXPECT_EQ(run.said[0].band, Band::alarm);
  EXPECT_NE(run.said[0].trouble.find("one of the teacher's outputs has nearly all images"), std::string::npos);
  EXPECT_NE(run.said[0].advice.at(0).find("Let the centre follow"), std::string::npos) << run.words();
  EXPECT_LT(run.last.value("target entropy"), 0.05);
  EXPECT_LT(run.last.value("target information"), 0.01);
  EXPECT_LT(run.last.value("KL"), 0.05);
}

/// Without sharpening all outputs become alike.
TEST(DinoHealth, NamesTheTemperatureWhereOutputsAreUniform) {
  DinoOptions options = tiny_options();
  options.teacher_temperature = options.teacher_temperature_start = 0.5f;
  const auto run = trained(options);
  ASSERT_EQ(run.said.size(), 1u) << run.words();
  EXPECT_EQ(run.said[0].band, Band::alarm);
  EXPECT_NE(run.said[0].trouble.find("the teacher's outputs are uniform"), std::string::npos);
  EXPECT_NE(run.said[0].advice.at(0).find("Sharpen the teacher"), std::string::npos) << run.words();
  EXPECT_GT(run.last.value("target entropy"), 0.99);
  EXPECT_LT(run.last.value("target information"), 0.01);
}

TEST(DinoHealth, CostsLessThanAHundredthOfTheStep) {
  Dino model = tiny_dino(tiny_options());
  EXPECT_LT(testing::share_of_readings(model, [](int64_t i) { return testing::tiny_batch(i, 32); }), 0.01);
}

}  // namespace
}  // namespace saccade::ssl
