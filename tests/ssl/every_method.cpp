// What a training promises, it promises of every method: plans to the byte, recomputation and fused updates without a
// changed bit, resuming with the same bits, skipped steps that leave no trace.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/dino.h>
#include <saccade/ssl/methods/simclr.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/planner.h>
#include <saccade/ssl/train/trainer.h>
#include <support/temporary_folder.h>

#include <csignal>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parts.h"
#include "tiny.h"

namespace saccade::ssl {
namespace {

using testing::parts_of;
using testing::PlainTrunk;

using Trunks = std::function<std::shared_ptr<nn::Trunk>()>;

std::unique_ptr<Objective> make(const std::string& method, const Trunks& trunk, bool head_bn = true) {
  if (method == "swav") {
    SwAVOptions options = testing::tiny_options();
    options.head_bn = head_bn;
    return std::make_unique<SwAV>(trunk(), options, 3);
  }
  if (method == "simclr")
    return std::make_unique<Simclr>(trunk(), SimclrOptions{.hidden = 32, .dim = 16, .head_bn = head_bn}, 3);
  return std::make_unique<Dino>(trunk(), trunk(), DinoOptions{.outputs = 24, .hidden = 32, .dim = 16, .momentum = 0.9f},
                                3);
}

std::shared_ptr<nn::Trunk> tiny() { return testing::tiny_trunk(); }

/// Crops of a tiny batch that the method takes: of SimCLR the two large ones.
Batch batch_for(const std::string& method, int64_t iteration, int64_t size = 16) {
  Batch batch = testing::tiny_batch(iteration, size);
  if (method != "simclr") return batch;
  const Segment large = batch.images.segments().front();
  const Tensor all = batch.images;
  const TagScope tag(Tag::batch);
  batch.images = Tensor::images({large}, all.dim(1));
  batch.images.copy_from(all.slice(0, large.rows()));
  return batch;
}

std::string bytes_of(const std::vector<NamedTensor>& tensors) {
  std::string bytes;
  for (const NamedTensor& t : tensors)
    bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return bytes;
}

class EveryMethod : public ::testing::TestWithParam<const char*> {
 protected:
  std::string method() const { return GetParam(); }
  std::unique_ptr<Objective> model() const { return make(method(), tiny); }

  StepSpec spec(const StepOptions& options) const {
    const Batch batch = batch_for(method(), 0);
    return {.objective = [method = method()] { return make(method, tiny); },
            .crops = batch.images.segments(),
            .batch = batch.size(),
            .channels = 1,
            .options = options};
  }

  /// Two steps; what is live in the allocator at the most, and the model.
  std::unique_ptr<Objective> train(const StepOptions& options, const std::vector<plan::Step>& steps,
                                   int64_t* peak = nullptr) const {
    Allocator& memory = allocator(Device::cpu);
    memory.trim();
    memory.reset_peaks();
    const int64_t before = memory.stats().total.live;
    auto objective = model();
    objective->trunk().follow(steps);
    const auto optimizer = optim::larc_sgd().build(objective->trained_parameters());
    std::optional<optim::LossScale> scale;
    if (options.precision == DType::f16) scale.emplace();
    optimizer->reserve();
    std::vector<Batch> batches;
    for (int64_t i = 0; i < options.accumulate; ++i) {
      const TagScope tag(Tag::batch);
      batches.push_back(batch_for(method(), i));
    }
    for (int64_t i = 0; i < 2; ++i)
      train_step(*objective, *optimizer, batches, {.iteration = i, .iterations = 2}, 0.1f, options,
                 scale ? &*scale : nullptr);
    if (peak != nullptr) *peak = memory.stats().total.peak - before;
    return objective;
  }

  /// Every unit is computed twice, each other one in the leaner way.
  std::vector<plan::Step> recompute_all() const {
    std::vector<plan::Step> steps;
    for (size_t unit = 0; unit < model()->trunk().unit_count(); ++unit)
      steps.push_back({.is_run = true,
                       .layer = unit,
                       .last = unit + 1,
                       .inside = {{.layer = unit, .last = unit + 1, .mode = unit % 2}}});
    return steps;
  }
};

const std::vector<StepOptions> kWays = {{},
                                        {.fuse_optimizer = true},
                                        {.accumulate = 2},
                                        {.precision = DType::bf16},
                                        {.precision = DType::bf16, .fuse_optimizer = true},
                                        {.precision = DType::f16},
                                        {.precision = DType::f16, .accumulate = 2}};

TEST_P(EveryMethod, UsesTheBytesThatWerePlanned) {
  plan::DescribedDevice device(plan::device_description("cpu"));
  for (const StepOptions& way : kWays) {
    Planner planner(spec(way), device);
    for (const auto& steps : {std::vector<plan::Step>(), recompute_all()}) {
      train(way, steps);  // fills the primitive cache
      int64_t peak = 0;
      train(way, steps, &peak);
      EXPECT_EQ(planner.rehearse(steps).peak, peak)
          << name_of(way.precision) << way.fuse_optimizer << way.accumulate << steps.size();
    }
  }
}

TEST_P(EveryMethod, LearnsTheSameBitsHoweverItsStepIsComputed) {
  for (const DType precision : {DType::f32, DType::bf16}) {
    const std::string plain = bytes_of(train({.precision = precision}, {})->named_tensors());
    EXPECT_EQ(bytes_of(train({.precision = precision}, recompute_all())->named_tensors()), plain);
    EXPECT_EQ(bytes_of(train({.precision = precision, .fuse_optimizer = true}, recompute_all())->named_tensors()),
              plain);
  }
}

TEST_P(EveryMethod, SeveralBatchesHaveTheLossAndTheGradientsOfOneOfAllTheirImages) {
  const auto plain = [] { return std::make_shared<PlainTrunk>(); };
  const auto whole = make(method(), plain, false), split = make(method(), plain, false);
  const auto one = optim::sgd().build(whole->trained_parameters()),
             two = optim::sgd().build(split->trained_parameters());
  for (int64_t i = 0; i < 3; ++i) {
    const Batch batch = batch_for(method(), i);
    const std::vector<Batch> parts =
        i == 1 ? std::vector{testing::part_of(batch, 0, 6), testing::part_of(batch, 6, 16)} : parts_of(batch, 4);
    const Progress progress{.iteration = i, .iterations = 3};
    std::map<std::string, Tensor> expected;
    const auto a = train_step(*whole, *one, {&batch, 1}, progress, 0.02f, {}, nullptr, [&](float) {
      for (const NamedTensor& t : whole->seen()) expected[t.name] = t.tensor;
    });
    const auto b = train_step(*split, *two, parts, progress, 0.02f, {.accumulate = static_cast<int64_t>(parts.size())},
                              nullptr, [&](float) {
                                for (const NamedTensor& t : split->seen()) {
                                  const auto theirs = expected[t.name].data<float>();
                                  ASSERT_LE(t.tensor.numel(), static_cast<int64_t>(theirs.size())) << t.name;
                                  for (size_t k = 0; k < t.tensor.data<float>().size(); ++k)
                                    ASSERT_NEAR(t.tensor.data<float>()[k], theirs[k], 2e-4) << t.name;
                                }
                              });
    EXPECT_NEAR(a.loss, b.loss, 1e-4);
    const auto theirs = whole->named_tensors(), ours = split->named_tensors();
    for (size_t t = 0; t < ours.size(); ++t)
      for (size_t k = 0; k < ours[t].tensor.data<float>().size(); ++k)
        ASSERT_NEAR(ours[t].tensor.data<float>()[k], theirs[t].tensor.data<float>()[k], 1e-4) << ours[t].name << i;
  }
}

TEST_P(EveryMethod, AStepThatOverflowsLeavesNoParameterAndNoCentreChanged) {
  const auto objective = model();
  const auto optimizer = optim::larc_sgd().build(objective->trained_parameters());
  const auto all = [&] {
    std::vector<NamedTensor> kept;  // batch norm has counted what it saw
    for (const NamedTensor& t : objective->named_tensors())
      if (t.name.find("running_") == std::string::npos) kept.push_back(t);
    return bytes_of(kept);
  };
  const std::string before = all();
  optim::LossScale scale({.first = 0x1p40f});
  const std::vector<Batch> batches{batch_for(method(), 0)};
  EXPECT_TRUE(train_step(*objective, *optimizer, batches, {}, 0.1f, {.precision = DType::f16}, &scale).skipped);
  if (method() != "swav") {  // whose prototypes are normalised before each loss
    EXPECT_EQ(all(), before);
  }
  optim::LossScale fitting({.first = 64.f});
  EXPECT_FALSE(train_step(*objective, *optimizer, batches, {}, 0.1f, {.precision = DType::f16}, &fitting).skipped);
  EXPECT_NE(all(), before);
}

/// Losses and health of all sittings, and the last weights.
struct Outcome {
  std::vector<float> losses;
  std::vector<double> health;
  std::string weights;
  bool operator==(const Outcome&) const = default;
};

TEST_P(EveryMethod, StoppedAndResumedGivesTheBitsOfNotStopping) {
  const auto sit = [&](Outcome& outcome, const TrainerOptions& options, const std::filesystem::path& folder,
                       int64_t stop) {
    const auto objective = model();
    Trainer trainer(*objective, optim::adamw(), options);
    trainer.observe({.on_step =
                         [&](const StepReport& r) {
                           outcome.losses.push_back(r.loss);
                           if (r.iteration == stop) std::raise(SIGINT);
                         },
                     .on_health =
                         [&](const HealthReading& h) {
                           for (const auto& m : h.metrics) outcome.health.push_back(m.value);
                         }});
    int64_t at = 0;
    trainer.fit({[&] { return batch_for(method(), at++); }, [&](int64_t i) { at = i; }, 8}, folder);
    outcome.weights = bytes_of(objective->named_tensors());
  };
  TrainerOptions plain{.iterations = 14, .lr = 5e-3f};
  plain.health.every = 3;
  plain.health.settle_iterations = 6;
  plain.health.spectrum_embeddings = 100;
  TrainerOptions fused = plain, half = plain, several = plain;
  fused.fuse_optimizer = true;
  fused.precision = DType::bf16;
  half.precision = DType::f16;
  half.loss_scale = {.first = 0x1p24f, .growth_interval = 3};  // overflows at first, and grows until it does again
  several.accumulate = 2;
  for (const TrainerOptions& options : {plain, fused, half, several}) {
    Outcome whole;
    sit(whole, options, {}, -1);
    EXPECT_EQ(whole.losses.size(), 14u);
    for (const int64_t stop : {0, 8}) {
      const test::TemporaryFolder folder;
      Outcome parts;
      sit(parts, options, folder.path(), stop);
      EXPECT_EQ(parts.losses.size(), static_cast<size_t>(stop + 1));
      sit(parts, options, folder.path(), -1);
      EXPECT_TRUE(parts == whole) << "stopped after " << stop << ", " << name_of(options.precision);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, EveryMethod, ::testing::Values("swav", "simclr", "dino"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace saccade::ssl
