// SimCLR and DINO on the doubles and the emulator, against the CPU backend's: losses, the teacher and its centre.
#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/methods/dino.h>
#include <saccade/ssl/methods/simclr.h>
#include <saccade/ssl/train/step.h>
#include <ssl/tiny.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

struct Course {
  std::vector<float> losses;
  std::vector<NamedTensor> tensors;  ///< on the CPU
};

std::unique_ptr<ssl::Objective> make(const std::string& method) {
  if (method == "simclr")
    return std::make_unique<ssl::Simclr>(tiny_trunk(), ssl::SimclrOptions{.hidden = 32, .dim = 16}, 1);
  return std::make_unique<ssl::Dino>(tiny_trunk(), tiny_trunk(),
                                     ssl::DinoOptions{.outputs = 24, .hidden = 32, .dim = 16, .momentum = 0.9f}, 1);
}

Course train(const std::string& method, Device device, DType precision, int64_t accumulate) {
  Course course;
  std::unique_ptr<ssl::Objective> objective;
  {
    const DeviceScope scope(device);
    objective = make(method);
  }
  const auto optimizer = optim::larc_sgd().build(objective->trained_parameters());
  optim::LossScale scale({.first = 1024.f});
  BatchUpload upload(device);
  for (int64_t i = 0; i < 8; ++i) {
    std::vector<Batch> batches;
    for (int64_t part = 0; part < accumulate; ++part) {
      Batch batch = tiny_batch(accumulate * i + part);
      if (method == "simclr") {
        const Segment large = batch.images.segments().front();
        const Tensor all = batch.images;
        batch.images = Tensor::images({large}, 1);
        batch.images.copy_from(all.slice(0, large.rows()));
      }
      batches.push_back(upload(std::move(batch)));
    }
    const ssl::StepResult step =
        ssl::train_step(*objective, *optimizer, batches, {.iteration = i, .iterations = 8}, 0.1f,
                        {.precision = precision, .accumulate = accumulate}, precision == DType::f16 ? &scale : nullptr);
    EXPECT_FALSE(step.skipped) << i;
    course.losses.push_back(step.loss);
  }
  for (const NamedTensor& t : objective->named_tensors()) course.tensors.push_back({t.name, t.tensor.to(Device::cpu)});
  return course;
}

class CudaMethod : public ::testing::TestWithParam<const char*> {};

TEST_P(CudaMethod, TrainsAsOnTheCpu) {
  for (const int64_t accumulate : {1, 2}) {
    const Course cuda = train(GetParam(), Device::cuda, DType::f32, accumulate),
                 cpu = train(GetParam(), Device::cpu, DType::f32, accumulate);
    for (size_t i = 0; i < cpu.losses.size(); ++i)
      EXPECT_NEAR(cuda.losses[i], cpu.losses[i], i < 4 ? 2e-4 : 2e-3) << i << " " << accumulate;
    for (size_t t = 0; t < cpu.tensors.size(); ++t) {
      if (!cpu.tensors[t].name.starts_with("teacher.head") && cpu.tensors[t].name != "center") continue;
      double error = 0, size = 1e-3;
      const auto ours = cuda.tensors[t].tensor.data<float>(), theirs = cpu.tensors[t].tensor.data<float>();
      for (size_t k = 0; k < theirs.size(); ++k) {
        error = std::max(error, std::abs(double{ours[k]} - double{theirs[k]}));
        size = std::max(size, std::abs(double{theirs[k]}));
      }
      EXPECT_LT(error, 0.02 * size) << cpu.tensors[t].name << " " << accumulate;
    }
    EXPECT_EQ(complaint(), "");
  }
}

TEST_P(CudaMethod, TrainsInF16WithLossScalingAsOnTheCpu) {
  const Course cuda = train(GetParam(), Device::cuda, DType::f16, 1),
               cpu = train(GetParam(), Device::cpu, DType::f16, 1);
  for (size_t i = 0; i < cpu.losses.size(); ++i) EXPECT_NEAR(cuda.losses[i], cpu.losses[i], i < 4 ? 0.02 : 0.15) << i;
  EXPECT_EQ(complaint(), "");
}

INSTANTIATE_TEST_SUITE_P(Methods, CudaMethod, ::testing::Values("simclr", "dino"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace saccade::testing
