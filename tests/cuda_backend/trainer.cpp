// The trainer on the device: monitor, checkpoints, a run that goes on on the other device.
#include <gtest/gtest.h>
#include <saccade/ssl/train/trainer.h>
#include <ssl/tiny.h>
#include <support/temporary_folder.h>

#include <cmath>
#include <string>
#include <vector>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

struct TinySource {
  int64_t at = 0;
  Batch next() {
    const DeviceScope scope(Device::cpu);
    return tiny_batch(at++);
  }
  void seek(int64_t iteration) { at = iteration; }
  int64_t batches_per_epoch() const { return 8; }
};

struct Outcome {
  std::vector<float> losses;
  std::vector<double> health;
  std::string weights;
};

/// Iterations of a run of 12 in this folder, up to `until`, on this device.
Outcome train(Device device, const std::filesystem::path& folder, int64_t until, DType precision = DType::f32) {
  Outcome outcome;
  ssl::SwAVOptions swav = tiny_options();
  swav.queue_length = 48;
  swav.queue_start_iteration = 4;
  ssl::TrainerOptions run{.iterations = 12, .lr = 0.3f, .warmup_iterations = 3};
  run.precision = precision;
  run.checkpoint_every = 1;
  run.health.every = 3;
  run.health.settle_iterations = 4;
  run.health.spectrum_embeddings = 64;
  const DeviceScope scope(device);
  ssl::SwAV model(tiny_trunk(), swav, 3);
  ssl::Trainer trainer(model, optim::larc_sgd(), run);
  struct Enough {};
  trainer.observe({.on_step =
                       [&](const ssl::StepReport& r) {
                         outcome.losses.push_back(r.loss);
                         if (r.iteration == until) throw Enough{};  // as if the process had died
                       },
                   .on_health =
                       [&](const ssl::HealthReading& h) {
                         for (const auto& m : h.metrics) outcome.health.push_back(m.value);
                       }});
  TinySource source;
  try {
    trainer.fit(source, folder);
  } catch (const Enough&) {
  }
  for (const NamedTensor& t : model.named_tensors()) {
    const Tensor here = t.tensor.to(Device::cpu);
    outcome.weights.append(static_cast<const char*>(here.raw()), here.bytes());
  }
  return outcome;
}

TEST(CudaTrainingRuns, AKilledRunGoesOnToTheSameBits) {
  for (const DType precision : {DType::f32, DType::f16}) {
    const test::TemporaryFolder whole, broken;
    const Outcome expected = train(Device::cuda, whole / "run", 100, precision);
    EXPECT_EQ(expected.losses.size(), 12u);
    EXPECT_FALSE(expected.health.empty());
    for (const double value : expected.health) EXPECT_TRUE(std::isfinite(value));
    train(Device::cuda, broken / "run", 7, precision);
    const Outcome rest = train(Device::cuda, broken / "run", 100, precision);
    EXPECT_LT(rest.losses.size(), expected.losses.size());
    EXPECT_EQ(rest.weights, expected.weights);
  }
  EXPECT_EQ(complaint(), "");
}

TEST(CudaTrainingRuns, ARunGoesOnOnTheOtherDevice) {
  const test::TemporaryFolder folder;
  const Outcome cpu = train(Device::cpu, folder / "cpu", 100);
  for (const Device first : {Device::cpu, Device::cuda}) {
    const std::filesystem::path run = folder / (first == Device::cpu ? "up" : "down");
    train(first, run, 7);
    const Outcome rest = train(first == Device::cpu ? Device::cuda : Device::cpu, run, 100);
    for (size_t i = 1; i <= rest.losses.size(); ++i)
      EXPECT_NEAR(rest.losses[rest.losses.size() - i], cpu.losses[cpu.losses.size() - i], 1e-3);
  }
  EXPECT_EQ(complaint(), "");
}

}  // namespace
}  // namespace saccade::testing
