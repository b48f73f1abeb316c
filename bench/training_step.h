#pragma once

#include <saccade/core/random.h>
#include <saccade/data/multi_crop.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/planner.h>

#include <array>
#include <memory>
#include <string>

namespace saccade::bench {

/// The step that the benchmarks of steps are about: a small head, 300 prototypes.
inline ssl::StepSpec small_head_step(const std::string& trunk, const std::string& crops, int64_t batch) {
  ssl::StepSpec spec;
  spec.objective = ssl::dearest_swav(trunk, {.prototypes = 300, .hidden = 512, .dim = 128});
  spec.crops = data::multi_crop(data::parse_crops(crops)).segments(batch);
  spec.batch = batch;
  return spec;
}

/// A model that trains on one batch of random images, on the current device: what a trainer does, without loader and
/// reports.
class TrainingStep {
 public:
  explicit TrainingStep(const ssl::StepSpec& spec)
      : spec_(spec), objective_(spec.objective()), optimizer_(spec.recipe.build(objective_->trained_parameters())) {
    optimizer_->reserve();
    const TagScope tag(Tag::batch);
    Batch& batch = batch_[0];
    batch.images = Tensor::images(spec.crops, spec.channels);
    batch.indices.resize(static_cast<size_t>(spec.batch));
    if (DeviceScope::current() != Device::cpu) return;
    Philox random(1);
    for (float& x : batch.images.data<float>()) x = random.uniform(-1.7f, 1.7f);
  }
  void run() { train_step(*objective_, *optimizer_, batch_, {.iteration = iteration_++}, 0.1f, spec_.options); }
  nn::Trunk& trunk() { return objective_->trunk(); }

 private:
  ssl::StepSpec spec_;
  std::unique_ptr<ssl::Objective> objective_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  std::array<Batch, 1> batch_;
  int64_t iteration_ = 0;
};

}  // namespace saccade::bench
