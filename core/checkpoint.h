#pragma once

#include <saccade/core/random.h>
#include <saccade/core/tensor.h>

#include <functional>
#include <vector>

namespace saccade {

/// Activation checkpointing (Chen et al., "Training deep nets with sublinear memory cost", 2016): fn(inputs), of which
/// only the inputs are kept; the backward pass computes fn a second time. Values and gradients have the bits of a plain
/// call. fn may call checkpoint() itself.
///
/// The second run sees what the first saw: the inputs (one modified in place since is an error, and so is a parameter),
/// the Context (what scopes have set: see Context::again), and the states of `generators`. Running statistics of batch
/// norm are updated by the first run only. Parameters that fn uses get their gradients, and run their hooks, as they
/// are completed during the second run; they may be used elsewhere too.
Tensor checkpoint(std::function<Tensor(const std::vector<Tensor>&)> fn, const std::vector<Tensor>& inputs,
                  std::vector<Philox*> generators = {});

}  // namespace saccade
