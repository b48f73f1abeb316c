#pragma once

#include <saccade/core/batch.h>
#include <saccade/core/dist/communicator.h>
#include <saccade/nn/optim/loss_scale.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/train/objective.h>

#include <cstdint>
#include <functional>
#include <span>

namespace saccade::ssl {

/// How a training step is computed.
struct StepOptions {
  DType precision = DType::f32;  ///< f32, bf16 or f16 (see AutocastScope); f16 needs a loss scale
  bool fuse_optimizer = false;   ///< updates within backward (see Optimizer::backward_and_step)
  int64_t accumulate = 1;        ///< batches a step, taken together (see Objective::begin)
  float clip_norm = 0.f;         ///< gradients are scaled down to that norm of all together; 0: not

  /// @name Processes that compute the step together. Each is given its share (dist::share_of) of each batch, and all
  /// end it with the same parameters: to rounding those of one process that was given the whole batches.
  /// @{
  dist::Communicator* ranks = nullptr;  ///< all of them; null: this one alone
  dist::Communicator* statistics =
      nullptr;  ///< successive ones whose batch norms see their images together; null: none
  /// @}
};

/// Throws Error with a sentence when options exclude each other: an update within backward cannot know the sum, the
/// common norm or the overflow of gradients that do not exist yet.
void check(const StepOptions& options);

/// The result of a step.
struct StepResult {
  float loss = 0;        ///< mean over all images, of all processes; 0 on the meta device
  int64_t images = 0;    ///< of all batches and processes
  bool skipped = false;  ///< a gradient overflowed (f16): nothing was updated
};

/// Called with the loss once a step, before its last backward, while Objective::seen() holds what was computed on the
/// way; of a process alone at once when the loss of a batch is not finite. It may throw: what was not updated by then
/// is not.
using StepWatch = std::function<void(float loss)>;

/// Objective::seen() while a step's watch is called; of several processes together, of all their images.
std::vector<NamedTensor> seen_by_all(const Objective& objective);

/// One training step on `options.accumulate` batches: loss, backward and update, as Objective tells. Gradients are
/// undefined before and after it. Runs on the meta device as well, with the same allocations.
/// @param optimizer   of Objective::trained_parameters()
/// @param loss_scale  needed for f16, else null
StepResult train_step(Objective& objective, optim::Optimizer& optimizer, std::span<const Batch> batches,
                      const Progress& progress, float lr, const StepOptions& options,
                      optim::LossScale* loss_scale = nullptr, const StepWatch& watch = {});

}  // namespace saccade::ssl
