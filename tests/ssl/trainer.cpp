#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/kernels/error.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/train/trainer.h>
#include <support/temporary_folder.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tiny.h"

namespace saccade {
namespace {

using ssl::BatchSource;
using ssl::SwAV;
using ssl::Trainer;
using ssl::TrainerOptions;
using test::TemporaryFolder;
using testing::tiny_batch;

/// 8 batches an epoch; counts what was asked for.
struct TinyLoader {
  int64_t at = 0, served = 0;
  Batch next() {
    ++served;
    return tiny_batch(at++);
  }
  void seek(int64_t iteration) { at = iteration; }
  int64_t batches_per_epoch() const { return 8; }
};

ssl::SwAVOptions with_queue() {
  ssl::SwAVOptions options = testing::tiny_options();
  options.queue_length = 48;
  options.queue_start_iteration = 4;
  options.freeze_prototypes_iterations = 6;
  return options;
}

TrainerOptions tiny_run() {
  TrainerOptions options{.iterations = 20, .lr = 0.3f, .warmup_iterations = 5};
  options.health.every = 4;
  options.health.settle_iterations = 8;
  options.health.spectrum_embeddings = 100;
  return options;
}

/// Every byte of the model, and all that the observers were told.
struct Outcome {
  std::string weights;
  std::vector<float> losses;
  std::vector<double> health;
  int64_t skipped = 0;  ///< iterations without an update
  bool operator==(const Outcome&) const = default;
};

std::string bytes_of(const SwAV& model) {
  std::string bytes;
  for (const NamedTensor& t : model.named_tensors())
    bytes.append(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return bytes;
}

/// Runs to the end, or asks to stop behind iteration `stop_after`, as Ctrl-C would. Losses of all sittings are kept.
ssl::FitResult train(Outcome& outcome, const std::filesystem::path& folder, int64_t stop_after = -1,
                     const optim::Recipe& recipe = optim::larc_sgd(), const TrainerOptions& run = tiny_run()) {
  SwAV model(testing::tiny_trunk(), with_queue(), 3);
  Trainer trainer(model, recipe, run);
  trainer.observe({.on_step =
                       [&](const ssl::StepReport& r) {
                         outcome.losses.push_back(r.loss);
                         if (r.iteration == stop_after) std::raise(SIGINT);
                       },
                   .on_health =
                       [&](const ssl::HealthReading& h) {
                         for (const auto& m : h.metrics) outcome.health.push_back(m.value);
                       },
                   .on_notice =
                       [&](const std::string& sentence) {
                         if (sentence.find("overflowed") != std::string::npos) ++outcome.skipped;
                       }});
  TinyLoader loader;
  const auto result = trainer.fit(loader, folder);
  outcome.weights = bytes_of(model);
  return result;
}

TEST(Trainer, SameSeedGivesTheSameBitsAfterTwentySteps) {
  Outcome first, second;
  EXPECT_EQ(train(first, {}).iterations, 20);
  train(second, {});
  EXPECT_EQ(first.losses.size(), 20u);
  EXPECT_TRUE(first == second);
}

TEST(Trainer, StoppedAnywhereAndResumedGivesTheBitsOfNotStopping) {
  for (const auto& recipe : {optim::larc_sgd(), optim::adamw()}) {
    Outcome whole;
    train(whole, {}, -1, recipe);
    for (const int64_t stop : {0, 3, 5, 9, 14, 18}) {
      const TemporaryFolder folder;
      Outcome parts;
      EXPECT_TRUE(train(parts, folder.path(), stop, recipe).interrupted);
      EXPECT_EQ(parts.losses.size(), static_cast<size_t>(stop + 1));
      EXPECT_FALSE(train(parts, folder.path(), -1, recipe).interrupted);
      EXPECT_EQ(parts.losses, whole.losses) << "stopped after " << stop;
      EXPECT_EQ(parts.health, whole.health) << "stopped after " << stop;
      EXPECT_TRUE(parts.weights == whole.weights) << "stopped after " << stop;
    }
  }
}

TEST(Trainer, ResumesExactlyHoweverAStepIsComputed) {
  TrainerOptions fused = tiny_run(), half = tiny_run(), several = tiny_run();
  fused.fuse_optimizer = true;
  fused.precision = DType::bf16;
  half.precision = DType::f16;
  half.loss_scale = {.first = 0x1p24f, .growth_interval = 3};  // overflows at first, and grows until it does again
  several.accumulate = 2;
  for (const TrainerOptions& run : {fused, half, several}) {
    const optim::Recipe recipe = optim::larc_sgd({.weight_decay = 1e-6f, .momentum_dtype = DType::bf16});
    Outcome whole;
    train(whole, {}, -1, recipe, run);
    EXPECT_EQ(whole.losses.size(), 20u);
    EXPECT_EQ(whole.skipped > 1, run.precision == DType::f16);
    for (const int64_t stop : {4, 11}) {
      const TemporaryFolder folder;
      Outcome parts;
      EXPECT_TRUE(train(parts, folder.path(), stop, recipe, run).interrupted);
      EXPECT_FALSE(train(parts, folder.path(), -1, recipe, run).interrupted);
      EXPECT_TRUE(parts == whole) << "stopped after " << stop << ", " << name_of(run.precision);
    }
  }
}

TEST(Trainer, FusedAndSeparateOptimizerGiveTheSameRun) {
  TrainerOptions fused = tiny_run();
  fused.fuse_optimizer = true;
  for (const auto& recipe : {optim::larc_sgd(), optim::adamw()}) {
    Outcome one, two;
    train(one, {}, -1, recipe);
    train(two, {}, -1, recipe, fused);
    EXPECT_TRUE(one == two);
  }
  fused.accumulate = 2;
  SwAV model(testing::tiny_trunk(), with_queue(), 3);
  EXPECT_NE(test::complaint([&] { Trainer(model, optim::larc_sgd(), fused); }).find("cannot be fused"),
            std::string::npos);
}

TEST(Trainer, AnIterationTakesSoManyBatchesAndCountsTheirImages) {
  TrainerOptions run{.epochs = 3};
  run.accumulate = 3;
  SwAV model(testing::tiny_trunk(), testing::tiny_options(), 3);
  Trainer trainer(model, optim::larc_sgd(), run);
  std::vector<int64_t> images, epochs;
  trainer.observe({.on_step = [&](const ssl::StepReport& r) {
    images.push_back(r.images);
    epochs.push_back(r.epoch);
  }});
  TinyLoader loader;
  EXPECT_EQ(trainer.fit(loader).iterations, 8);  // 3 epochs of 8 batches
  EXPECT_EQ(loader.served, 24);
  EXPECT_EQ(images, std::vector<int64_t>(8, 48));
  EXPECT_EQ(epochs, (std::vector<int64_t>{0, 0, 0, 1, 1, 1, 2, 2}));
}

TEST(Trainer, RefusesACheckpointOfAnotherNumberOfBatches) {
  const TemporaryFolder folder;
  Outcome outcome;
  train(outcome, folder.path(), 3);
  TrainerOptions run = tiny_run();
  run.accumulate = 2;
  EXPECT_NE(
      test::complaint([&] { train(outcome, folder.path(), -1, optim::larc_sgd(), run); }).find("batches an iteration"),
      std::string::npos);
}

/// A trunk that passes on features whose gradient is too large for f16 whatever the loss is scaled by.
class Exploding : public nn::Trunk {
 public:
  Exploding() {
    const nn::Init init{.seed = 1};
    conv_ = add_child("conv", std::make_shared<nn::Conv2d>(1, 16, nn::Conv2d::Options{.kernel = 3}, init / "conv"));
  }
  int64_t out_channels() const override { return 16; }

 protected:
  Tensor stem(const Tensor& images) override {
    const Tensor y = (*conv_)(images);
    if (!autograd::recording({y})) return y;
    const Tensor same = y.detach();
    autograd::record(same, "exploding", {y}, [](Tensor dy, autograd::Gradients& to) {
      dy.fill(std::numeric_limits<float>::infinity());
      to.give(0, dy);
    });
    return same;
  }

 private:
  std::shared_ptr<nn::Conv2d> conv_;
};

TEST(Trainer, SkipsStepsThatOverflowAndStopsWhenEveryOneDoes) {
  SwAV model(std::make_shared<Exploding>(), testing::tiny_options(), 3);
  TrainerOptions run = tiny_run();
  run.iterations = 100;
  run.precision = DType::f16;
  Trainer trainer(model, optim::larc_sgd(), run);
  std::vector<std::string> notices;
  trainer.observe({.on_notice = [&](const std::string& sentence) { notices.push_back(sentence); }});
  TinyLoader loader;
  const std::string complaint = test::complaint([&] { trainer.fit(loader); });
  EXPECT_NE(complaint.find("f16 cannot hold them"), std::string::npos) << complaint;
  EXPECT_EQ(notices.size(), 27u);  // from 2^16 to 2^-11
  EXPECT_NE(notices[0].find("the loss scale is now 32768"), std::string::npos) << notices[0];
  for (const NamedTensor& t : model.named_parameters())
    for (const float v : t.tensor.data<float>()) ASSERT_TRUE(std::isfinite(v)) << t.name;
}

TEST(Trainer, GoesOnFromTheLastGoodCheckpointWhenTheNewestIsBroken) {
  const TemporaryFolder folder;
  Outcome whole, parts;
  train(whole, {});
  train(parts, folder.path(), 13);
  const auto steps = io::checkpoint_steps(folder / "checkpoints");
  ASSERT_EQ(steps, (std::vector<int64_t>{8, 14}));
  std::filesystem::resize_file(folder / "checkpoints" / "step-00000014.ckpt", 1000);
  parts = {};
  train(parts, folder.path());
  EXPECT_EQ(parts.losses.size(), 12u);  // from 8 on
  EXPECT_TRUE(parts.weights == whole.weights);
}

TEST(Trainer, RefusesACheckpointOfAnotherModelOrLength) {
  const TemporaryFolder folder;
  Outcome outcome;
  train(outcome, folder.path(), 3);
  SwAV model(testing::tiny_trunk(), testing::tiny_options(), 3);  // no queue
  TinyLoader loader;
  EXPECT_THROW(Trainer(model, optim::larc_sgd(), tiny_run()).fit(loader, folder.path()), Error);
  SwAV same(testing::tiny_trunk(), with_queue(), 3);
  TrainerOptions longer = tiny_run();
  longer.iterations = 40;
  EXPECT_NE(test::complaint([&] {
              Trainer(same, optim::larc_sgd(), longer).fit(loader, folder.path());
            }).find("another folder"),
            std::string::npos);
}

TEST(Trainer, StopsBeforeTheUpdateWhenTheLossIsNotFinite) {
  const TemporaryFolder folder;
  SwAV model(testing::tiny_trunk(), testing::tiny_options(), 3);
  Trainer trainer(model, optim::larc_sgd(), tiny_run());
  std::string said;
  trainer.observe({.on_message = [&](const ssl::HealthMessage& m) { said += m.text(); }});
  TinyLoader good;
  const BatchSource source(
      [&] {
        Batch batch = good.next();
        if (batch.iteration == 2) batch.images.fill(std::numeric_limits<float>::quiet_NaN());
        return batch;
      },
      [&](int64_t i) { good.seek(i); }, 8);
  EXPECT_NE(test::complaint([&] { trainer.fit(source, folder.path()); }).find("iteration 2"), std::string::npos);
  EXPECT_NE(said.find("no longer finite"), std::string::npos) << said;
  EXPECT_TRUE(std::filesystem::exists(folder / "not-finite.safetensors"));
  for (const NamedTensor& t : model.named_parameters())
    for (const float v : t.tensor.data<float>()) ASSERT_TRUE(std::isfinite(v)) << t.name;
}

/// A source whose batches depend on all that it served before, not on their numbers alone.
struct RememberingLoader : TinyLoader {
  int64_t sum = 0;
  int64_t fails_at = -1;
  Batch next() {
    if (at == fails_at) throw Error("the images are gone");
    sum += at + 1;
    ++at;
    return tiny_batch(sum % 29);
  }
  std::string state() const { return std::to_string(sum); }
  void restore(const std::string& state) { sum = std::stoll(state); }
};

TEST(Trainer, WhatASourceRemembersIsResumedAndASourceThatFailsLeavesACheckpoint) {
  const auto fit = [](RememberingLoader& loader, const std::filesystem::path& folder) {
    SwAV model(testing::tiny_trunk(), with_queue(), 3);
    Trainer trainer(model, optim::larc_sgd(), tiny_run());
    trainer.fit(loader, folder);
    return bytes_of(model);
  };
  RememberingLoader whole;
  const std::string unbroken = fit(whole, {});
  for (const int64_t stop : {0, 1, 8, 13}) {
    const TemporaryFolder folder;
    RememberingLoader failing;
    failing.fails_at = stop;
    EXPECT_EQ(test::complaint([&] { fit(failing, folder.path()); }), "the images are gone");
    const auto steps = io::checkpoint_steps(folder / "checkpoints");
    if (stop == 0)
      EXPECT_TRUE(steps.empty()) << "nothing was learned yet";
    else
      EXPECT_EQ(steps.back(), stop);
    RememberingLoader again;
    EXPECT_TRUE(fit(again, folder.path()) == unbroken) << stop;
    EXPECT_EQ(again.sum, whole.sum);
  }
}

TEST(Trainer, LearningRateWarmsUpAndFallsAlongACosine) {
  SwAV model(testing::tiny_trunk(), testing::tiny_options(), 3);
  const Trainer trainer(model, optim::larc_sgd(),
                        {.iterations = 110,
                         .lr = 4.8f,
                         .final_lr_ratio = 0.001f,
                         .warmup_start_ratio = 0.0625f,
                         .warmup_iterations = 10});
  EXPECT_FLOAT_EQ(trainer.learning_rate(0, 110), 0.3f);
  EXPECT_FLOAT_EQ(trainer.learning_rate(9, 110), 4.8f);
  EXPECT_FLOAT_EQ(trainer.learning_rate(10, 110), 4.8f);
  EXPECT_NEAR(trainer.learning_rate(60, 110), (4.8f + 0.0048f) / 2, 1e-4f);
  EXPECT_NEAR(trainer.learning_rate(109, 110), 0.0048f, 2e-3f);
}

TEST(Trainer, EvaluatesOnTheWayWithoutDisturbingTheRun) {
  Outcome undisturbed;
  train(undisturbed, {});
  SwAV model(testing::tiny_trunk(), with_queue(), 3);
  TrainerOptions options = tiny_run();
  options.evaluate_every = 7;
  options.evaluate = [&](int64_t) {
    const NoGradScope no_grad;
    model.train(false);
    model(tiny_batch(0).images);
    return std::vector<std::pair<std::string, double>>{{"answer", 42.0}};
  };
  Trainer trainer(model, optim::larc_sgd(), options);
  std::vector<int64_t> at;
  trainer.observe({.on_evaluation = [&](int64_t iteration, const auto& numbers) {
    at.push_back(iteration);
    EXPECT_EQ(numbers.front().second, 42.0);
  }});
  TinyLoader loader;
  trainer.fit(loader);
  EXPECT_EQ(at, (std::vector<int64_t>{7, 14, 20}));
  EXPECT_TRUE(bytes_of(model) == undisturbed.weights);
}

}  // namespace
}  // namespace saccade
