#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/train_step.h>

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

StepResult train_step(SwAV& model, optim::Optimizer& optimizer, std::span<const Batch> batches, int64_t iteration,
                      float lr, const StepOptions& options, optim::LossScale* loss_scale, const StepWatch& watch) {
  if (static_cast<int64_t>(batches.size()) != options.accumulate)
    fail(fmt::format("a step of {} batches was given {}", options.accumulate, batches.size()));
  optimizer.zero_grad();
  const AutocastScope precision(options.precision);
  const bool whole = batches.size() == 1;
  StepTensors seen;
  if (!whole) seen = model.assign(batches, iteration);
  const auto images = static_cast<double>(whole ? batches[0].size() : seen.batch);
  const double scaled = loss_scale != nullptr ? double{loss_scale->value()} : 1.0;
  double mean = 0;
  int64_t first = 0;
  for (const Batch& batch : batches) {
    const int64_t last = first + batch.size();
    const double share = static_cast<double>(batch.size()) / images;
    Tensor loss =
        whole ? model.loss(batch, iteration, &seen) : model.loss(batch, seen.assignments_of(first, last), iteration);
    if (loss.device() != Device::meta) mean += share * double{loss.item()};
    const bool closing = &batch == &batches.back();
    if (watch && (closing || !std::isfinite(mean))) watch(static_cast<float>(mean), seen);
    if (closing) seen = {};
    const auto factor = static_cast<float>(share * scaled);
    if (factor != 1.f) loss = scale(loss, factor);
    if (options.fuse_optimizer)
      optimizer.backward_and_step(loss, lr);
    else
      loss.backward({.last = closing});
    first = last;
  }
  StepResult result{.loss = static_cast<float>(mean)};
  if (options.fuse_optimizer) return result;
  result.skipped = loss_scale != nullptr && !loss_scale->unscale(optimizer);
  if (!result.skipped) {
    if (options.clip_norm > 0.f) optimizer.clip_gradients(options.clip_norm);
    optimizer.step(lr);
  }
  optimizer.zero_grad();
  return result;
}

}  // namespace saccade::ssl
