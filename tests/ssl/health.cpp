#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/report/chart.h>
#include <saccade/ssl/train/health.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

namespace saccade {
namespace {

using ssl::Band;
using ssl::HealthMessage;
using ssl::HealthMonitor;
using ssl::StepTensors;
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

std::vector<HealthMessage> observe(HealthMonitor& monitor, int64_t iteration, float loss, const StepTensors& step) {
  const std::vector<NamedTensor> seen{
      {"embeddings", step.embeddings}, {"scores", step.scores}, {"assignments", step.assignments}};
  return monitor.observe(iteration, loss, step.batch, seen);
}

SwAVOptions made_model() { return {.prototypes = 64, .hidden = 32, .dim = 32}; }

/// Feeds readings over 1,000 iterations, after one of a network that knows little, and gathers what is said.
template <class Step, class Loss>
std::vector<HealthMessage> watch(HealthMonitor& monitor, Step step, Loss loss) {
  std::vector<HealthMessage> said;
  for (int64_t i = 0; i < 1000; i += 20)
    for (HealthMessage& m : observe(monitor, i, loss(i), i == 0 ? made_step(0, 0.f, 1.f, 3.f) : step(i)))
      said.push_back(std::move(m));
  return said;
}

float falling(int64_t i) { return 4.16f - 0.002f * static_cast<float>(i); }  // from ln 64

TEST(Health, IsSilentOnAHealthyRun) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f); }, falling);
  for (const auto& m : said) ADD_FAILURE() << m.text();
  const auto& reading = monitor.last();
  EXPECT_NEAR(reading.value("spread"), 1.0, 0.1);
  EXPECT_LT(reading.value("common direction"), 0.1);
  EXPECT_GT(reading.value("view margin"), 0.5);
  EXPECT_LT(reading.value("assignment entropy"), 0.95);
  EXPECT_GT(reading.value("prediction marginal"), 0.9);
  EXPECT_GT(reading.value("crop found"), 0.9);
  EXPECT_GT(reading.value("prototypes in use"), 0.5);
  EXPECT_LT(reading.value("top prototype"), 0.2);
  EXPECT_NEAR(reading.value("effective rank"), 32.0, 1.5);
  EXPECT_NEAR(reading.value("loss gap"), 0.002 * 980, 0.01);
  for (const auto& m : reading.metrics) EXPECT_EQ(m.band, Band::healthy) << m.name << " " << m.value;
}

TEST(Health, SaysWhetherCropsAreFoundAndHowManyPrototypesAreUsed) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto read = [&](int64_t i, float common, float own, float noise) {
    observe(monitor, i, 4.f, made_step(1, common, own, noise));
    return monitor.last();
  };
  // Every image has a direction of its own, and both views have it.
  const auto told = read(0, 0.f, 1.f, 0.f);
  EXPECT_EQ(told.value("crop found"), 1);
  // All views are the same: none is found, and one prototype is nearest to all. Use is a mean over some ten readings.
  for (int64_t i = 20; i < 2000; i += 20) read(i, 1.f, 0.f, 0.f);
  const auto same = monitor.last();
  EXPECT_EQ(same.value("crop found"), 0);
  EXPECT_NEAR(same.value("top prototype"), 1, 1e-3);
  EXPECT_NEAR(same.value("prototypes in use"), 1. / 64, 1e-3);
}

/// A run over 1,000 iterations whose crops are told from others with so much noise, from a first reading with another.
std::vector<HealthMessage> watch_found(HealthMonitor& monitor, float first, float later) {
  std::vector<HealthMessage> said;
  for (int64_t i = 0; i < 1000; i += 20)
    for (HealthMessage& m :
         observe(monitor, i, falling(i), made_step(static_cast<uint64_t>(i), 0.f, 1.f, i == 0 ? first : later)))
      said.push_back(std::move(m));
  return said;
}

TEST(Health, SaysWhenCropsAreFoundNoMoreOftenThanByTheUntrainedNetwork) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch_found(monitor, 2.f, 2.5f);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].band, Band::warn);
  EXPECT_NE(said[0].trouble.find("untrained network"), std::string::npos) << said[0].trouble;
  EXPECT_FALSE(said[0].advice.empty());
  EXPECT_LT(monitor.last().value("found gain"), 1);

  HealthMonitor learns(ssl::swav_health(made_model()), {});
  EXPECT_TRUE(watch_found(learns, 2.f, 1.f).empty());
  EXPECT_GT(learns.last().value("found gain"), 2);
}

TEST(Health, CropsThatAnUntrainedNetworkFindsAreTooMuchAlike) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch_found(monitor, 0.9f, 0.3f);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("too much alike"), std::string::npos) << said[0].trouble;
}

TEST(Health, ARunThatBeginsWithWeightsIsNotComparedWithAnUntrainedNetwork) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {.untrained = false});
  EXPECT_TRUE(watch_found(monitor, 2.f, 2.5f).empty());
  EXPECT_EQ(monitor.last().find("found gain"), nullptr);
}

TEST(Health, AShortRunIsToldSooner) {
  const ssl::HealthOptions usual, short_one = usual.for_run(1000, 100), long_one = usual.for_run(100'000, 100);
  EXPECT_EQ(long_one.found_iterations, usual.found_iterations);
  EXPECT_EQ(short_one.iterations_per_epoch, 100);
  HealthMonitor monitor(ssl::swav_health(made_model()), short_one);
  const auto said = watch_found(monitor, 2.f, 2.5f);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_LT(said[0].iteration, 500);
}

TEST(Health, GoesOnFromACheckpointThatDidNotCountTheUseOfPrototypes) {
  HealthMonitor before(ssl::swav_health(made_model()), {}), after(ssl::swav_health(made_model()), {});
  observe(before, 0, 4.f, made_step(1, 0.f, 1.f, 0.3f));
  std::string state = before.state();
  const size_t at = state.find("\"mean use\":[");
  ASSERT_NE(at, std::string::npos);
  state.erase(at, state.find("],", at) + 2 - at);
  after.load_state(state, before.state_tensors());
  observe(after, 20, 4.f, made_step(2, 0.f, 1.f, 0.3f));
  EXPECT_GT(after.last().value("prototypes in use"), 0.3);
}

TEST(Health, NamesCollapseOnceAndGivesAdviceInOrder) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
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

TEST(Health, AdviceNamesSettingsAsTheProgramDoesAndLeavesOutWhatItLacks) {
  ssl::HealthOptions options;
  options.names = {
      .lr = "--lr",
      .epochs = "",
      .batch = "--batch",
      .accumulate = "",
      .precision = "",
      .crops = "--crops",
      .jitter = "--jitter",
      .of_method = {{{"prototypes", "--prototypes"}, {"eps", "--eps"}}},
  };
  SwAVOptions model = made_model();
  HealthMonitor monitor(ssl::swav_health(model), options);
  StepTensors step = made_step(1, 0.f, 1.f, 0.3f);
  const auto said = observe(monitor, 0, NAN, step);
  ASSERT_EQ(said.size(), 1u);
  const std::vector<std::string> order = {"(--lr)", "--eps 0.03", "(--prototypes)",
                                          "(--crops), weaker colour jitter (--jitter)"};
  ASSERT_EQ(said[0].advice.size(), order.size()) << said[0].text();
  for (size_t i = 0; i < order.size(); ++i)
    EXPECT_NE(said[0].advice[i].find(order[i]), std::string::npos) << said[0].advice[i];
  EXPECT_EQ(said[0].text().find("::"), std::string::npos) << "a field of C++";

  model.prototypes = 3000;
  HealthMonitor wide(ssl::swav_health(model), options);
  const auto shared = observe(wide, 0, 8.f, made_step(1, 0.f, 1.f, 0.3f, 32, 3000));
  ASSERT_EQ(shared.size(), 1u);
  ASSERT_EQ(shared[0].advice.size(), 2u) << shared[0].text();
  EXPECT_NE(shared[0].advice[1].find("(--batch)"), std::string::npos);
}

TEST(Health, FlagsALossStuckAtLogOfThePrototypesOnlyWhenTheyAreReleased) {
  SwAVOptions model = made_model();
  model.freeze_prototypes_iterations = 400;
  HealthMonitor monitor(ssl::swav_health(model), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f); },
      [](int64_t) { return 4.15f; });
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("ln K"), std::string::npos);
  EXPECT_EQ(said[0].iteration, 880);  // 25 readings from iteration 400 on
}

TEST(Health, LeavesARunAloneThatLooksCollapsedButLearns) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  std::vector<HealthMessage> said;
  for (int64_t i = 0; i < 600; i += 20)
    for (HealthMessage& m : observe(monitor, i, falling(i), made_step(static_cast<uint64_t>(i), 30.f, 0.1f, 0.1f)))
      said.push_back(std::move(m));
  for (const auto& m : said) ADD_FAILURE() << m.text();
  EXPECT_EQ(monitor.last().metrics[2].band, Band::alarm);  // the common direction
}

TEST(Health, FlagsEmbeddingsThatStayCrowded) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 12.f, 1.f, 0.3f); }, falling);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_EQ(said[0].band, Band::warn);
  EXPECT_NE(said[0].trouble.find("crowded"), std::string::npos);
  EXPECT_EQ(said[0].iteration, 680);
}

TEST(Health, FlagsPrototypesFarAboveTheEmbeddingsThatShareThem) {
  const StepTensors step = made_step(1, 0.f, 1.f, 0.3f, 32, 3000);
  for (const int64_t queue : {0, 512, 640}) {
    SwAVOptions model = made_model();
    model.prototypes = 3000;
    model.queue_length = queue;
    HealthMonitor monitor(ssl::swav_health(model), {});
    const auto said = observe(monitor, 0, 8.f, step);
    ASSERT_EQ(said.size(), queue < 640 ? 1u : 0u) << queue;
    if (queue == 640) continue;
    EXPECT_NE(said[0].trouble.find("3000 prototypes share " + std::to_string(128 + queue)), std::string::npos);
    EXPECT_NE(said[0].trouble.find(queue == 0 ? "below 3.154" : "below 1.545"), std::string::npos)  // ln(3000 / rows)
        << said[0].trouble;
    EXPECT_NE(said[0].advice[1].find("2944"), std::string::npos) << said[0].advice[1];
    EXPECT_TRUE(observe(monitor, 20, 8.f, step).empty());
    std::string later;  // ln 3000 - 2.5 is most of what ln(128 or 640) allows
    for (int64_t i = 40; i < 400; i += 20)
      for (const HealthMessage& m : observe(monitor, i, 2.5f, step)) later += m.trouble;
    EXPECT_NE(later.find("near the floor"), std::string::npos) << later;
  }
}

/// What healthy runs were seen to have late in training (Fashion-MNIST; made images), and collapsed ones.
TEST(Health, BandsHoldWhatRunsWereSeenToHave) {
  const HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto band = [&](const char* name, double value) {
    return ssl::find_guide(monitor.guides(), name)->band(value);
  };
  const std::vector<std::pair<const char*, std::vector<double>>> healthy = {
      {"spread", {0.67, 0.94, 0.98}},          {"common direction", {0.01, 0.16, 0.40}},
      {"view margin", {0.57, 0.75, 1.3}},      {"assignment entropy", {0.13, 0.40, 0.64, 0.91}},
      {"prediction marginal", {0.95, 0.995}},  {"Sinkhorn error", {0.01, 0.5, 1.1, 5.0}},
      {"spectrum slope", {1.7, 2.1, 2.8, 3.3}}};
  for (const auto& [name, values] : healthy)
    for (const double value : values) EXPECT_EQ(band(name, value), Band::healthy) << name << " " << value;
  const std::vector<std::pair<const char*, double>> collapsed = {
      {"spread", 0.02}, {"common direction", 0.98}, {"view margin", 0.001}, {"assignment entropy", 0.999}};
  for (const auto& [name, value] : collapsed) EXPECT_EQ(band(name, value), Band::alarm) << name << " " << value;
  EXPECT_EQ(ssl::find_guide(monitor.guides(), "no metric"), nullptr);
}

TEST(Health, EveryMetricHasAGuideAndTheReportShadesItsBands) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f); }, falling);
  EXPECT_EQ(monitor.last().metrics.size(), 15u);
  for (const auto& m : monitor.last().metrics) {
    const ssl::MetricGuide* guide = ssl::find_guide(monitor.guides(), m.name);
    ASSERT_NE(guide, nullptr) << m.name;
    EXPECT_NE(guide->note, "") << m.name;
    for (const double value : {-1., 0.015, 0.055, 0.3, 0.7, 0.92, 0.97, 0.995, 5.}) {
      Band shaded = Band::healthy;
      for (const ssl::BandRange& range : ssl::health_bands(*guide))
        if (value >= range.from && value <= range.to) shaded = range.band;
      EXPECT_EQ(shaded, guide->band(value)) << m.name << " " << value;
    }
  }
}

TEST(Health, FlagsViewsThatAreNoMoreAlikeThanOtherImages) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 0.f, 1.f); },
      [](int64_t) { return 4.16f; });
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("views"), std::string::npos);
}

TEST(Health, FlagsUniformAssignmentsOfATooLargeEps) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f, 32, 64, 2.f); },
      [](int64_t) { return 4.16f; });
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("uniform"), std::string::npos);
}

TEST(Health, FlagsLostDimensions) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {.settle_iterations = 100, .stuck_iterations = 100});
  const auto said = watch(
      monitor, [](int64_t i) { return made_step(static_cast<uint64_t>(i), 0.f, 1.f, 0.3f, i < 320 ? 32 : 3); },
      falling);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("effective rank"), std::string::npos);
}

TEST(Health, FlagsALossThatRisesWithTheQueue) {
  const auto run = [](float step) {
    HealthMonitor monitor(ssl::swav_health(made_model(), [](int64_t i) { return i >= 400; }),
                          {.iterations_per_epoch = 200});
    std::vector<HealthMessage> said;
    for (int64_t i = 0; i < 1000; i += 20)
      for (HealthMessage& m : observe(monitor, i, i < 400 ? 3.f : 3.f * step,
                                      made_step(static_cast<uint64_t>(i), 0.f, 1.f, i == 0 ? 3.f : 0.3f)))
        said.push_back(std::move(m));
    return said;
  };
  const auto risen = run(1.05f);
  ASSERT_EQ(risen.size(), 1u);
  EXPECT_NE(risen[0].trouble.find("queue"), std::string::npos);
  EXPECT_EQ(run(0.97f).size(), 0u);
}

TEST(Health, FlagsEmbeddingsThatAreNotOfUnitLength) {
  HealthMonitor monitor(ssl::swav_health(made_model()), {});
  StepTensors step = made_step(1, 0.f, 1.f, 0.3f);
  step.embeddings = scale(step.embeddings, 3.f);
  const auto said = observe(monitor, 0, 4.f, step);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].trouble.find("unit length"), std::string::npos);
}

TEST(Health, RemembersAllOfItsState) {
  const auto step = [](int64_t i) { return made_step(static_cast<uint64_t>(i), 30.f, 0.1f, 0.1f); };
  HealthMonitor whole(ssl::swav_health(made_model()), {}), first(ssl::swav_health(made_model()), {}),
      second(ssl::swav_health(made_model()), {});
  size_t said_whole = 0, said_parts = 0;
  for (int64_t i = 0; i < 1000; i += 20) {
    const float loss = 4.16f + 0.0005f * static_cast<float>(i % 60);
    said_whole += observe(whole, i, loss, step(i)).size();
    if (i == 440) second.load_state(first.state(), first.state_tensors());
    said_parts += observe(i < 440 ? first : second, i, loss, step(i)).size();
  }
  EXPECT_EQ(said_whole, 1u);
  EXPECT_EQ(said_parts, 1u);
  EXPECT_EQ(whole.state(), second.state());
}

}  // namespace
}  // namespace saccade
