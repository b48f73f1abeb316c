#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/health.h>
#include <saccade/ssl/trainer.h>

#include <cmath>
#include <string>
#include <vector>

#include "tiny.h"

namespace saccade {
namespace {

using ssl::Band;
using ssl::HealthMessage;
using ssl::HealthMonitor;
using ssl::StepTensors;
using ssl::SwAV;
using ssl::SwAVOptions;

/// A step whose embeddings are (common * one direction + own * the image's + noise * the view's), normalised.
StepTensors made_step(uint64_t seed, float common, float own, float noise, int64_t rank = 32, int64_t k = 64,
                      float eps = 0.05f) {
  const int64_t batch = 128, dim = 32;
  Tensor z = Tensor::zeros({2 * batch, dim}), c = Tensor::empty({k, dim});
  Philox fixed(5), random(seed);
  for (float& v : c.data<float>()) v = fixed.normal();
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t d = 0; d < rank; ++d) {
      const float image = own * random.normal();
      for (int64_t view = 0; view < 2; ++view)
        z.data<float>()[static_cast<size_t>((view * batch + b) * dim + d)] =
            (d == 0 ? common : 0.f) + image + noise * random.normal();
    }
  StepTensors step{
      .batch = batch, .crops = 2, .assigning = 2, .embeddings = l2_normalize(z), .scores = {}, .assignments = {}};
  step.scores = linear(step.embeddings, l2_normalize(c));
  step.assignments = Tensor::empty({2 * batch, k});
  for (int64_t crop = 0; crop < 2; ++crop)
    step.assignments.slice(crop * batch, (crop + 1) * batch)
        .copy_from(sinkhorn(step.scores.slice(crop * batch, (crop + 1) * batch), eps, 3));
  return step;
}

SwAVOptions made_model() { return {.prototypes = 64, .hidden = 32, .dim = 32}; }

/// Feeds readings over 1,000 iterations and gathers what is said.
template <class Step, class Loss>
std::vector<HealthMessage> watch(HealthMonitor& monitor, Step step, Loss loss) {
  std::vector<HealthMessage> said;
  for (int64_t i = 0; i < 1000; i += 20)
    for (HealthMessage& m : monitor.observe(i, loss(i), step(i))) said.push_back(std::move(m));
  return said;
}

float falling(int64_t i) { return 4.16f - 0.002f * static_cast<float>(i); }  // from ln 64

TEST(Health, IsSilentOnAHealthyRun) {
  HealthMonitor monitor(made_model(), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f); }, falling);
  for (const auto& m : said) ADD_FAILURE() << m.text();
  const auto& reading = monitor.last();
  EXPECT_NEAR(reading.value("spread"), 1.0, 0.1);
  EXPECT_LT(reading.value("common direction"), 0.1);
  EXPECT_GT(reading.value("view margin"), 0.5);
  EXPECT_LT(reading.value("assignment entropy"), 0.95);
  EXPECT_GT(reading.value("prediction marginal"), 0.9);
  EXPECT_NEAR(reading.value("effective rank"), 32.0, 1.5);
  EXPECT_NEAR(reading.value("loss gap"), 0.002 * 980, 0.01);
  for (const auto& m : reading.metrics) EXPECT_EQ(m.band, Band::healthy) << m.name << " " << m.value;
}

TEST(Health, NamesCollapseOnceAndGivesAdviceInOrder) {
  HealthMonitor monitor(made_model(), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 30.f, 0.1f, 0.1f); },
      [](int64_t) { return 4.16f; });
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].band, Band::alarm);
  EXPECT_NE(said[0].trouble.find("collapsed"), std::string::npos);
  EXPECT_NE(said[0].trouble.find("one way"), std::string::npos);
  const std::vector<std::string> order = {"learning rate", "Freeze",     "eps 0.03", "fewer prototypes",
                                          "hard",          "batch norm", "crops"};
  ASSERT_EQ(said[0].advice.size(), order.size());
  for (size_t i = 0; i < order.size(); ++i)
    EXPECT_NE(said[0].advice[i].find(order[i]), std::string::npos) << said[0].advice[i];
  EXPECT_EQ(said[0].iteration, 480);  // settled at 200, then fifteen readings
}

TEST(Health, FlagsALossStuckAtLogOfThePrototypesOnlyWhenTheyAreReleased) {
  SwAVOptions model = made_model();
  model.freeze_prototypes_iterations = 400;
  HealthMonitor monitor(model, {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f); },
      [](int64_t) { return 4.15f; });
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("ln K"), std::string::npos);
  EXPECT_EQ(said[0].iteration, 880);  // 25 readings from iteration 400 on
}

TEST(Health, FlagsViewsThatAreNoMoreAlikeThanOtherImages) {
  HealthMonitor monitor(made_model(), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 0.f, 1.f); }, falling);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("views"), std::string::npos);
}

TEST(Health, FlagsUniformAssignmentsOfATooLargeEps) {
  HealthMonitor monitor(made_model(), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f, 32, 64, 2.f); }, falling);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("uniform"), std::string::npos);
}

TEST(Health, FlagsLostDimensions) {
  HealthMonitor monitor(made_model(), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f, i < 320 ? 32 : 3); },
      falling);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("effective rank"), std::string::npos);
}

TEST(Health, FlagsALossThatRisesWithTheQueue) {
  const auto run = [](float step) {
    HealthMonitor monitor(made_model(), {.iterations_per_epoch = 200});
    std::vector<HealthMessage> said;
    for (int64_t i = 0; i < 1000; i += 20)
      for (HealthMessage& m : monitor.observe(i, i < 400 ? 3.f : 3.f * step,
                                              made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f), i >= 400))
        said.push_back(std::move(m));
    return said;
  };
  const auto risen = run(1.05f);
  ASSERT_EQ(risen.size(), 1u);
  EXPECT_NE(risen[0].trouble.find("queue"), std::string::npos);
  EXPECT_EQ(run(0.97f).size(), 0u);
}

TEST(Health, FlagsEmbeddingsThatAreNotOfUnitLength) {
  HealthMonitor monitor(made_model(), {});
  StepTensors step = made_step(1, 0.f, 1.f, 0.3f);
  step.embeddings = scale(step.embeddings, 3.f);
  const auto said = monitor.observe(0, 4.f, step);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("unit length"), std::string::npos);
}

TEST(Health, RemembersAllOfItsState) {
  const auto step = [](int64_t i) { return made_step(static_cast<uint64_t>(i), 30.f, 0.1f, 0.1f); };
  HealthMonitor whole(made_model(), {}), first(made_model(), {}), second(made_model(), {});
  size_t said_whole = 0, said_parts = 0;
  for (int64_t i = 0; i < 1000; i += 20) {
    said_whole += whole.observe(i, 4.16f, step(i)).size();
    if (i == 440) second.load_state(first.state(), first.state_tensors());
    said_parts += (i < 440 ? first : second).observe(i, 4.16f, step(i)).size();
  }
  EXPECT_EQ(said_whole, 1u);
  EXPECT_EQ(said_parts, 1u);
  EXPECT_EQ(whole.state(), second.state());
}

/// Real training of a tiny network, made to go wrong.
std::vector<HealthMessage> trained(SwAVOptions model_options, float lr, int64_t iterations = 900, int64_t batch = 16) {
  SwAV model(testing::tiny_trunk(), model_options, 3);
  ssl::TrainerOptions options{.iterations = iterations, .lr = lr, .final_lr_ratio = 1.f};
  ssl::Trainer trainer(model, optim::adamw({.weight_decay = 1e-6f}), options);
  std::vector<HealthMessage> said;
  trainer.observe({.on_message = [&](const HealthMessage& m) { said.push_back(m); }});
  int64_t at = 0;
  trainer.fit({[&] { return testing::tiny_batch(at++, batch); }, [&](int64_t i) { at = i; }, 8});
  return said;
}

TEST(HealthOfARun, IsSilentOnATinyHealthyOne) {
  for (const auto& m : trained(testing::tiny_options(), 5e-3f, 800, 32)) ADD_FAILURE() << m.text();
}

TEST(HealthOfARun, FlagsALearningRateFarTooHigh) { EXPECT_FALSE(trained(testing::tiny_options(), 1000.f).empty()); }

TEST(HealthOfARun, FlagsAnEpsFarTooLarge) {
  SwAVOptions options = testing::tiny_options();
  options.eps = 5.f;
  EXPECT_FALSE(trained(options, 2e-3f).empty());
}

TEST(HealthOfARun, FlagsEmbeddingsWithoutNormalisation) {
  SwAVOptions options = testing::tiny_options();
  options.unit_embeddings = false;
  const auto said = trained(options, 2e-3f, 60);
  ASSERT_FALSE(said.empty());
  EXPECT_NE(said[0].text().find("Normalise embeddings"), std::string::npos);
}

TEST(HealthOfARun, FlagsPrototypesFarAboveTheBatch) {
  SwAVOptions options = testing::tiny_options();
  options.prototypes = 3000;
  options.eps = 1.f;
  EXPECT_FALSE(trained(options, 2e-3f, 900, 4).empty());
}

}  // namespace
}  // namespace saccade
