// A method that the library does not know: BYOL in byol.h and byol.cpp, as docs/adding-a-method.md shows it, gets all
// that SwAV has from step, trainer, planner and monitor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/ssl/train/planner.h>
#include <saccade/ssl/train/trainer.h>
#include <support/temporary_folder.h>

#include <cmath>
#include <csignal>
#include <limits>
#include <string>
#include <vector>

#include "byol.h"
#include "tiny.h"

namespace saccade::ssl {
namespace {

using testing::tiny_batch;
using testing::tiny_trunk;

constexpr ByolOptions kOptions{.hidden = 32, .dim = 16, .momentum = 0.9f};

std::string bytes_of(const nn::Module& module) {
  std::string bytes;
  for (const NamedTensor& t : module.named_tensors())
    bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return bytes;
}

struct Outcome {
  std::string weights;
  std::vector<float> losses;
  std::vector<double> health;
  std::vector<std::string> said;
};

FitResult train(Outcome& outcome, TrainerOptions options, const std::filesystem::path& folder = {},
                int64_t stop_after = -1) {
  Byol model(tiny_trunk(), tiny_trunk(), kOptions, 3);
  Trainer trainer(model, optim::adamw(), std::move(options));
  trainer.observe({.on_step =
                       [&](const StepReport& r) {
                         outcome.losses.push_back(r.loss);
                         if (r.iteration == stop_after) std::raise(SIGINT);
                       },
                   .on_health =
                       [&](const HealthReading& h) {
                         for (const HealthMetric& m : h.metrics) outcome.health.push_back(m.value);
                       },
                   .on_message = [&](const HealthMessage& m) { outcome.said.push_back(m.text()); }});
  int64_t at = 0;
  const FitResult result = trainer.fit({[&] { return tiny_batch(at++); }, [&](int64_t i) { at = i; }, 8}, folder);
  outcome.weights = bytes_of(model);
  return result;
}

TEST(OwnMethod, IsStoppedAndResumedToTheSameBitsHoweverItsStepsAreComputed) {
  for (const auto& [precision, accumulate, fused] : {std::tuple{DType::f32, int64_t{1}, false},
                                                     {DType::f32, int64_t{2}, false},
                                                     {DType::bf16, int64_t{1}, true},
                                                     {DType::f16, int64_t{1}, false}}) {
    TrainerOptions run{.iterations = 12, .lr = 1e-3f, .precision = precision, .fuse_optimizer = fused};
    run.accumulate = accumulate;
    run.health.every = 2;
    run.loss_scale = {.first = 0x1p24f, .growth_interval = 3};
    Outcome whole, parts;
    train(whole, run);
    EXPECT_FALSE(whole.health.empty());
    const test::TemporaryFolder folder;
    EXPECT_TRUE(train(parts, run, folder.path(), 4).interrupted);
    EXPECT_FALSE(train(parts, run, folder.path()).interrupted);
    EXPECT_EQ(parts.losses, whole.losses) << name_of(precision) << accumulate;
    EXPECT_EQ(parts.health, whole.health) << name_of(precision) << accumulate;
    EXPECT_TRUE(parts.weights == whole.weights) << name_of(precision) << accumulate;
  }
}

TEST(OwnMethod, ItsTeacherFollowsAndIsNotOptimised) {
  Byol model(tiny_trunk(), tiny_trunk(), kOptions, 3);
  ASSERT_EQ(model.children()[3].first, "teacher");
  for (const NamedTensor& p : model.trained_parameters()) EXPECT_FALSE(p.name.starts_with("teacher")) << p.name;
  const auto optimizer = optim::adamw().build(model.trained_parameters());
  const std::vector<Batch> batch{tiny_batch(0)};
  const Tensor slow = model.children()[3].second->parameters()[0], fast = model.trunk().parameters()[0];
  const float before = slow.data<float>()[0];
  train_step(model, *optimizer, batch, {}, 1e-2f, {});
  EXPECT_NE(before, fast.data<float>()[0]);
  EXPECT_NEAR(slow.data<float>()[0], 0.9f * before + 0.1f * fast.data<float>()[0], 1e-6f);

  optim::LossScale scale({.first = 0x1p60f});  // overflows: no update, and none of the teacher's
  const std::vector<Tensor> parameters = model.children()[3].second->parameters();
  const float still = parameters[0].data<float>()[0];
  EXPECT_TRUE(train_step(model, *optimizer, batch, {}, 1e-2f, {.precision = DType::f16}, &scale).skipped);
  EXPECT_EQ(parameters[0].data<float>()[0], still);
}

TEST(OwnMethod, IsPlannedToTheByte) {
  const Method method = byol_method();
  for (const Setting& s : method.settings)
    if (s.name == "dim") s.set(16);
  constexpr const char* kTrunk = "y:d=5,w0=16,wa=10,wm=1.7,g=8";
  for (const int64_t accumulate : {1, 2}) {
    StepSpec spec;
    spec.objective = method.dearest(kTrunk);
    spec.batch = 4;
    spec.crops = {{8, 48, 48}, {12, 24, 24}};
    spec.recipe = optim::adamw();
    spec.options.accumulate = accumulate;
    plan::DescribedDevice cpu(plan::device_description("cpu"));
    Planner planner(spec, cpu);
    for (const StepPlan& plan : {planner.keep_all(Keep::eager), planner.recompute_each_block()}) {
      int64_t peak = 0;
      for (int time = 0; time < 2; ++time) {  // the first fills the cache of primitives
        Allocator& memory = allocator(Device::cpu);
        memory.reset_peaks();
        const int64_t before = memory.stats().total.live;
        const auto model = spec.objective();
        model->trunk().follow(plan.steps);
        const auto optimizer = spec.recipe.build(model->trained_parameters());
        optimizer->reserve();
        std::vector<Batch> batches(static_cast<size_t>(accumulate));
        for (Batch& batch : batches) {
          const TagScope tag(Tag::batch);
          batch.images = Tensor::images(spec.crops, 3);
          Philox random(5);
          for (float& x : batch.images.data<float>()) x = random.uniform(-1.f, 1.f);
          batch.indices.resize(4);
        }
        for (int64_t i = 0; i < 2; ++i) train_step(*model, *optimizer, batches, {.iteration = i}, 0.1f, spec.options);
        peak = memory.stats().total.peak - before;
      }
      EXPECT_EQ(plan.rehearsal.peak, peak) << plan.name << accumulate;
    }
  }
}

TEST(OwnMethod, ALossThatIsNotFiniteStopsTheRunBeforeItsUpdateWhicheverBatchItIsOf) {
  for (const int64_t bad : {4, 5}) {
    Byol model(tiny_trunk(), tiny_trunk(), kOptions, 3);
    TrainerOptions run{.iterations = 12, .lr = 1e-3f};
    run.accumulate = 2;
    Trainer trainer(model, optim::adamw(), run);
    int64_t at = 0;
    const auto next = [&] {
      Batch batch = tiny_batch(at);
      if (at++ == bad) batch.images.fill(std::numeric_limits<float>::quiet_NaN());
      return batch;
    };
    const test::TemporaryFolder folder;
    const std::string complaint = test::complaint([&] {
      trainer.fit({next, [&](int64_t i) { at = i; }, 8}, folder.path());
    });
    EXPECT_THAT(complaint, ::testing::HasSubstr("at iteration 2: training has diverged"));
    EXPECT_THAT(complaint, ::testing::HasSubstr("Embeddings of that batch are in"));
    for (const Tensor& p : model.parameters())
      for (const float v : p.data<float>()) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST(OwnMethod, LearnsAndTheMonitorIsSilent) {
  Outcome outcome;
  train(outcome, {.iterations = 400, .lr = 3e-3f});
  EXPECT_LT(outcome.losses.back(), outcome.losses.front());
  EXPECT_THAT(outcome.said, ::testing::IsEmpty());
}

TEST(OwnMethod, WithoutATeacherThatIsBehindTheMonitorNamesTheCollapse) {
  Byol model(tiny_trunk(), tiny_trunk(), kOptions, 3);
  HealthMonitor monitor(model.health(), {});
  std::vector<NamedTensor> seen{{"embeddings", Tensor::full({32, 16}, 0.25f)}};
  std::vector<HealthMessage> said;
  for (int64_t i = 0; i < 1000; i += 20)
    for (HealthMessage& m : monitor.observe(i, -2.f, 16, seen)) said.push_back(std::move(m));
  ASSERT_EQ(said.size(), 1u);
  EXPECT_THAT(said[0].trouble, ::testing::HasSubstr("collapsed"));
  EXPECT_THAT(said[0].advice.at(0), ::testing::HasSubstr("learning rate"));
  EXPECT_EQ(monitor.last().value("agreement"), 1.0);
}

}  // namespace
}  // namespace saccade::ssl
