// An exchange of gradients between processes, stood in for, in every way that a training step is computed.
#include <gtest/gtest.h>
#include <saccade/ssl/train/step.h>
#include <support/stand_in_exchange.h>

#include <optional>
#include <string>
#include <vector>

#include "tiny.h"

namespace saccade {
namespace {

using ssl::StepOptions;
using testing::StandInExchange;
using testing::tiny_batch;

/// Three steps of SwAV; what they leave.
struct Trained {
  std::string bytes = {};
  int exchanged = 0;
  int64_t parameters = 0;
};
Trained train(const StepOptions& options, bool exchange, float lr) {
  ssl::SwAVOptions settings = testing::tiny_options();
  settings.freeze_prototypes_iterations = 0;
  ssl::SwAV model(testing::tiny_trunk(), settings, 3);
  const auto optimizer = optim::sgd().build(model.named_parameters());
  std::optional<optim::LossScale> loss_scale;
  if (options.precision == DType::f16) loss_scale.emplace(optim::LossScaleOptions{.first = 16.f});
  std::optional<StandInExchange> exchanging;
  if (exchange) exchanging.emplace(model.parameters(), 3);
  for (int64_t i = 0; i < 3; ++i) {
    std::vector<Batch> batches;
    for (int64_t b = 0; b < options.accumulate; ++b) batches.push_back(tiny_batch(i * options.accumulate + b));
    const ssl::StepResult result =
        train_step(model, *optimizer, batches, {.iteration = i}, lr, options, loss_scale ? &*loss_scale : nullptr);
    EXPECT_FALSE(result.skipped);
  }
  Trained trained{.exchanged = exchange ? exchanging->exchanged() : 0, .parameters = std::ssize(model.parameters())};
  for (const auto& tensors : {model.named_parameters(), model.named_buffers()})
    for (const NamedTensor& t : tensors)
      trained.bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return trained;
}

TEST(TrainStep, UpdatesOnceWithTheSumsOverProcesses) {
  // Without decay, twice the gradient is twice the learning rate, to the bit.
  for (const StepOptions& options :
       {StepOptions{}, StepOptions{.fuse_optimizer = true}, StepOptions{.accumulate = 3},
        StepOptions{.precision = DType::bf16, .fuse_optimizer = true}, StepOptions{.precision = DType::f16}}) {
    const Trained one = train(options, false, 0.02f), two = train(options, true, 0.01f);
    EXPECT_EQ(two.bytes, one.bytes);
    EXPECT_EQ(two.exchanged, 3 * two.parameters);
  }
}

}  // namespace
}  // namespace saccade
