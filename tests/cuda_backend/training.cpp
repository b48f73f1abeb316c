// A whole training on the doubles and the emulator, against the CPU backend's.
#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/train/step.h>
#include <ssl/tiny.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <optional>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

constexpr int64_t kIterations = 20;

struct Course {
  std::vector<float> losses;
  std::vector<Tensor> parameters;  ///< on the CPU
};

/// A tiny RegNetY, crops of two resolutions, a queue, LARC.
Course train(Device device, DType precision, bool recompute = false) {
  Course run;
  std::shared_ptr<nn::RegNet> trunk;
  std::unique_ptr<ssl::SwAV> model;
  ssl::SwAVOptions options = tiny_options();
  options.queue_length = 32;
  options.queue_start_iteration = 3;
  options.freeze_prototypes_iterations = 4;
  {
    const DeviceScope scope(device);
    trunk = tiny_trunk();
    model = std::make_unique<ssl::SwAV>(trunk, options, 1);
  }
  if (recompute) {
    std::vector<plan::Step> steps;
    for (size_t unit = 0; unit < trunk->unit_count(); ++unit)
      steps.push_back({.is_run = true,
                       .layer = unit,
                       .last = unit + 1,
                       .inside = {{.layer = unit, .last = unit + 1, .mode = unit % 2}}});
    trunk->follow(steps);
  }
  const auto optimizer = optim::larc_sgd({.weight_decay = 1e-6f}).build(model->named_parameters());
  std::optional<optim::LossScale> scale;
  if (precision == DType::f16) scale.emplace(optim::LossScaleOptions{.first = 1024.f});
  BatchUpload upload(device);
  model->train();
  for (int64_t i = 0; i < kIterations; ++i) {
    const std::vector<Batch> batches{upload(tiny_batch(i))};
    const ssl::StepResult step = ssl::train_step(*model, *optimizer, batches, {.iteration = i}, 0.3f,
                                                 {.precision = precision}, scale ? &*scale : nullptr);
    EXPECT_FALSE(step.skipped) << i;
    run.losses.push_back(step.loss);
  }
  for (const NamedTensor& t : model->named_tensors()) run.parameters.push_back(t.tensor.to(Device::cpu));
  return run;
}

/// Roundings differ, and a training multiplies them: less is allowed to the first losses than to the rest.
struct Tolerance {
  double of_the_first_four, of_all, on_average;
};
void expect_losses(const Course& got, const Course& expected, const Tolerance& tolerance) {
  double sum = 0;
  for (size_t i = 0; i < expected.losses.size(); ++i) {
    EXPECT_NEAR(got.losses[i], expected.losses[i], i < 4 ? tolerance.of_the_first_four : tolerance.of_all) << i;
    sum += std::abs(got.losses[i] - expected.losses[i]);
  }
  EXPECT_LT(sum / static_cast<double>(expected.losses.size()), tolerance.on_average);
  EXPECT_LT(expected.losses.back(), expected.losses.front());
  EXPECT_EQ(complaint(), "");
}

TEST(CudaTraining, LossesAreTheCpusInF32) {
  expect_losses(train(Device::cuda, DType::f32), train(Device::cpu, DType::f32), {1e-5, 1e-3, 2e-4});
}

// In f16 the CPU's own losses are up to 0.045 from those in f32, and 0.02 on average.
TEST(CudaTraining, LossesAreTheCpusInF16WithLossScaling) {
  expect_losses(train(Device::cuda, DType::f16), train(Device::cpu, DType::f16), {5e-3, 0.1, 0.03});
}

TEST(CudaTraining, RecomputationChangesNoBit) {
  for (const DType precision : {DType::f32, DType::f16}) {
    const Course kept = train(Device::cuda, precision), again = train(Device::cuda, precision, true);
    EXPECT_EQ(kept.losses, again.losses);
    for (size_t i = 0; i < kept.parameters.size(); ++i)
      EXPECT_EQ(std::memcmp(kept.parameters[i].raw(), again.parameters[i].raw(), kept.parameters[i].bytes()), 0) << i;
  }
}

}  // namespace
}  // namespace saccade::testing
