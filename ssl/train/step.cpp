#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/train/step.h>

#include <cmath>

namespace saccade::ssl {

void check(const StepOptions& options) {
  if (options.precision != DType::f32 && options.precision != DType::bf16 && options.precision != DType::f16)
    fail(fmt::format("precision {}: expected f32, bf16 or f16", name_of(options.precision)));
  if (options.accumulate < 1) fail(fmt::format("accumulate {}: a step takes at least one batch", options.accumulate));
  if (!options.fuse_optimizer) return;
  const char* reason =
      options.accumulate > 1    ? "gradients that accumulate over several batches are whole only after the last of them"
      : options.clip_norm > 0.f ? "clipping needs the norm of all gradients before the first update"
      : options.precision == DType::f16 ? "an overflow in f16 must leave the whole step out, and shows only at its end"
                                        : nullptr;
  if (reason != nullptr)
    fail(fmt::format("the optimizer cannot be fused into backward here: {}. Leave one of the two.", reason));
}

namespace {

/// What is done for a step off the tape, where its tensors lie.
struct Beside {
  explicit Beside(std::span<const Batch> batches) : device_(batches.front().images.device()) {}

 private:
  DeviceScope device_;
  NoGradScope no_grad_;
};

struct ReleaseAtTheEnd {
  Objective& objective;
  ~ReleaseAtTheEnd() { objective.release(); }
};

}  // namespace

StepResult train_step(Objective& objective, optim::Optimizer& optimizer, std::span<const Batch> batches,
                      const Progress& progress, float lr, const StepOptions& options, optim::LossScale* loss_scale,
                      const StepWatch& watch) {
  if (static_cast<int64_t>(batches.size()) != options.accumulate)
    fail(fmt::format("a step of {} batches was given {}", options.accumulate, batches.size()));
  optimizer.zero_grad();
  const AutocastScope precision(options.precision);
  const ReleaseAtTheEnd releasing{objective};
  double images = 0;
  for (const Batch& batch : batches) images += static_cast<double>(batch.size());
  const double scaled = loss_scale != nullptr ? double{loss_scale->value()} : 1.0;
  double mean = 0;
  {
    const Beside beside(batches);
    objective.begin(batches, progress);
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    const double share = static_cast<double>(batches[i].size()) / images;
    Tensor loss = objective.loss(batches, i, progress);
    if (loss.device() != Device::meta) mean += share * double{loss.item()};
    const bool closing = i + 1 == batches.size();
    if (watch && (closing || !std::isfinite(mean))) watch(static_cast<float>(mean));
    if (closing) objective.release();
    const auto factor = static_cast<float>(share * scaled);
    if (factor != 1.f) loss = scale(loss, factor);
    if (options.fuse_optimizer)
      optimizer.backward_and_step(loss, lr);
    else
      loss.backward({.last = closing});
  }
  StepResult result{.loss = static_cast<float>(mean)};
  if (!options.fuse_optimizer) {
    result.skipped = loss_scale != nullptr && !loss_scale->unscale(optimizer);
    if (!result.skipped) {
      if (options.clip_norm > 0.f) optimizer.clip_gradients(options.clip_norm);
      optimizer.step(lr);
    }
    optimizer.zero_grad();
  }
  const Beside beside(batches);
  if (!result.skipped) objective.updated(progress);
  if ((progress.iteration + 1) % progress.per_epoch == 0) objective.epoch_ended(progress);
  return result;
}

}  // namespace saccade::ssl
