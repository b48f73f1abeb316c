// Every allocation of a training step is made to fail in turn: each time the error is clean, nothing leaks, and the
// same objects go on.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/methods/swav.h>

#include <cmath>
#include <memory>

#include "ssl/tiny.h"

namespace saccade::ssl {
namespace {

struct Training {
  Device device;
  SwAV model;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::vector<Batch> batches;

  Training(Device device, int64_t queue_length, const optim::Recipe& recipe)
      : device(device),
        model(testing::tiny_trunk(), {.prototypes = 12, .hidden = 32, .dim = 16, .queue_length = queue_length}),
        optimizer(recipe.build(model.named_parameters())) {
    for (int64_t i = 0; i < 2; ++i) {
      const DeviceScope cpu(Device::cpu);
      batches.push_back(testing::tiny_batch(i, 4));
      batches.back().images = batches.back().images.to(device);
    }
  }

  Tensor loss(int64_t iteration) { return model.loss(batches[static_cast<size_t>(iteration % 2)], iteration); }
  /// The loss of one whole step; 0 on the meta device.
  float step(int64_t iteration) {
    const Tensor loss = this->loss(iteration);
    loss.backward();
    optimizer->step(0.1f);
    optimizer->zero_grad();
    return device == Device::meta ? 0.f : loss.item();
  }
  /// What a step that fails at allocation n leaves changed: it began by normalising the prototypes, with two
  /// allocations, and what is normalised twice is rounded twice.
  void begin(int64_t n) {
    const NoGradScope no_grad;
    if (n > 2) model.prototypes().copy_from(l2_normalize(model.prototypes()));
  }
  /// A step with allocation n failing; false: there are fewer.
  bool step_fails(int64_t iteration, int64_t n) {
    allocator(device).fail_at(n);
    try {
      step(iteration);
    } catch (const OutOfMemory&) {
      optimizer->zero_grad();
      return true;
    }
    allocator(device).fail_at(0);
    return false;
  }
};

int64_t live(Device device) { return allocator(device).stats().total.live; }

class AllocationFaults : public ::testing::TestWithParam<Device> {};
TEST_P(AllocationFaults, SoItIsWithAPlanReducedPrecisionAndAFusedOptimizer) {
  const DeviceScope device(GetParam());
  const AutocastScope precision(DType::bf16);
  const KeepScope keep(Keep::lean);
  Training training(GetParam(), 8, optim::adamw());
  training.optimizer->reserve();
  const size_t units = training.model.trunk().unit_count();
  ASSERT_EQ(units, 3u);
  training.model.trunk().follow(
      {{.is_run = true, .layer = 0, .last = 2, .inside = {{.layer = 0, .mode = 1}, {.layer = 1}}},
       {.layer = 2, .mode = 1}});
  const auto step = [&](int64_t iteration, int64_t failure) {
    allocator(GetParam()).fail_at(failure);
    training.optimizer->backward_and_step(training.loss(iteration), 1e-3f);
    allocator(GetParam()).fail_at(0);
  };
  for (int64_t i = 0; i < 3; ++i) step(i, 0);
  const int64_t before = live(GetParam());
  int64_t n = 1;
  for (bool failed = true; failed; ++n) {
    failed = false;
    try {
      step(n, n);
    } catch (const OutOfMemory&) {
      failed = true;
      training.optimizer->zero_grad();
    }
    ASSERT_EQ(live(GetParam()), before) << "after a failure of allocation " << n;
    step(n, 0);
    ASSERT_EQ(live(GetParam()), before) << "after a failure of allocation " << n;
    if (GetParam() == Device::cpu) {
      ASSERT_TRUE(std::isfinite(training.loss(n).item())) << "after a failure of allocation " << n;
    }
  }
  EXPECT_GT(n, 150);
}

INSTANTIATE_TEST_SUITE_P(Devices, AllocationFaults, ::testing::Values(Device::cpu, Device::meta),
                         [](const auto& device) { return std::string(name_of(device.param)); });

TEST_P(AllocationFaults, LeakNothingAndTheSameStepThenGivesTheBitsOfOneThatNeverFailed) {
  const DeviceScope device(GetParam());
  Training training(GetParam(), 0, optim::larc_sgd()), untroubled(GetParam(), 0, optim::larc_sgd());
  ASSERT_EQ(training.step(0), untroubled.step(0));  // the optimizer's states are made
  int64_t i = 1;
  for (int64_t before = live(GetParam()); training.step_fails(i, i); ++i) {
    ASSERT_EQ(live(GetParam()), before) << "after a failure of allocation " << i;
    untroubled.begin(i);
    ASSERT_EQ(training.step(i), untroubled.step(i)) << "after a failure of allocation " << i;
  }
  EXPECT_GT(i, 100);
}

TEST_P(AllocationFaults, WithAQueueTheNextStepWorks) {
  const DeviceScope device(GetParam());
  Training training(GetParam(), 8, optim::larc_sgd());
  for (int64_t i = 0; i < 3; ++i) training.step(i);
  ASSERT_TRUE(training.model.queue_in_use(3));
  const int64_t before = live(GetParam());
  int64_t n = 1;
  for (; training.step_fails(n, n); ++n) {
    ASSERT_EQ(live(GetParam()), before) << "after a failure of allocation " << n;
    ASSERT_TRUE(std::isfinite(training.step(n))) << "after a failure of allocation " << n;
  }
  EXPECT_GT(n, 100);
}

TEST_P(AllocationFaults, InTheFirstStepTheOptimizerKeepsWhatItHasAndGoesOn) {
  const DeviceScope device(GetParam());
  const int64_t empty = live(GetParam());
  bool failed = true;
  // Most allocations are those of the other tests; what is new are the states, made at the step's end.
  for (int64_t n = 1; failed; n += 7) {
    {
      Training training(GetParam(), 0, optim::adamw()), untroubled(GetParam(), 0, optim::adamw());
      failed = training.step_fails(0, n);
      if (failed) {
        untroubled.begin(n);
        ASSERT_EQ(training.step(0), untroubled.step(0)) << "after a failure of allocation " << n;
        ASSERT_EQ(training.step(1), untroubled.step(1)) << "after a failure of allocation " << n;
      }
    }
    ASSERT_EQ(live(GetParam()), empty) << "after a failure of allocation " << n;
  }
}

}  // namespace
}  // namespace saccade::ssl
