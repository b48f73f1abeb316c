#pragma once

#include <saccade/core/batch.h>
#include <saccade/core/named_tensor.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/train/health.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace saccade::ssl {

/// Where a training stands.
struct Progress {
  int64_t iteration = 0;   ///< from 0
  int64_t iterations = 1;  ///< of the whole training
  int64_t per_epoch = 1;   ///< iterations
};

struct Weights;

/// A part of an objective that may start from weights of a file.
struct StartingPart {
  std::string name;                     ///< "head"
  std::vector<NamedTensor> given = {};  ///< of the file; empty: the part begins anew
  std::function<void()> take = {};      ///< copies them
  std::string line;                     ///< that it is taken, or why it is not: a sentence
};

/// What a training minimises: modules and a loss. A method of self-supervision is one of these, and all that step,
/// trainer and planner know of it. All that must be saved of it are its parameters and buffers (a teacher, a list of
/// embeddings): it has no other state from one iteration to the next. Parameters that must not be optimised, as a
/// teacher's, have requires_grad(false). As a module it maps images to embeddings.
///
/// An iteration is, in this order: begin(); for each batch loss(), whose gradients add up, each weighted by the share
/// its images have in all; the optimiser's update; updated(); and at the end of an epoch epoch_ended(). Each of them
/// runs on the meta device as well, with the same allocations: that is how a training is planned. What it reads of the
/// numbers themselves, to decide by them, it must decide for the dearest case there.
///
/// Several processes may compute an iteration together, each on its share of the batches. The gradients of all are then
/// added up. What compares images of a batch with each other must look at those of all: dist::current_ranks() says of
/// them, dist::gather_views() brings them together. Ops whose result hangs on all rows do so themselves.
class Objective : public nn::Module {
 public:
  /// The network that is learned: a chain of units, which a plan may recompute. A child of this module.
  virtual nn::Trunk& trunk() = 0;
  /// What is kept of a training and judged on the way: the network itself, or its average.
  virtual nn::Trunk& result() { return trunk(); }

  /// Before an iteration's losses: what must be known of all its batches together. Nothing is recorded.
  virtual void begin(std::span<const Batch> /*batches*/, const Progress& /*progress*/) {}
  /// The loss of batches[which], a differentiable scalar: the mean over the batch's images.
  virtual Tensor loss(std::span<const Batch> batches, size_t which, const Progress& progress) = 0;
  /// What the iteration made on its way, off the tape, f32: for the health monitor, and to be looked at where a run
  /// diverged. The monitor reads "embeddings": unit length, (views * images, D), the images those of the whole
  /// iteration, view after view (see view_after_view()), those first that HealthRules::views() counts; what is behind
  /// is not looked at. Of several processes each says what it computed of its own images.
  virtual std::vector<NamedTensor> seen() const { return {}; }
  /// The last loss is computed and was looked at: what is only kept for seen() and later losses goes, before backward.
  /// Called once more when an iteration ends in an error. Must not throw.
  virtual void release() {}
  /// After an update; not after an iteration whose gradients overflowed, which has none. Nothing is recorded.
  virtual void updated(const Progress& /*progress*/) {}
  /// After the last iteration of an epoch. Nothing is recorded.
  virtual void epoch_ended(const Progress& /*progress*/) {}

  /// What the health monitor knows of this objective. It may refer to the objective, and lives no longer.
  virtual std::unique_ptr<HealthRules> health() const { return std::make_unique<HealthRules>(); }

  /// What beside the trunk can start from weights; nothing is changed yet. By default each child and buffer of a
  /// checkpoint of the same objective, if all of it is there and fits.
  /// @param trunk_prefix  what stands before the names of the trunk in the file
  virtual std::vector<StartingPart> parts_from(const Weights& weights, const std::string& trunk_prefix);
  /// Points among the embeddings that have come to stand for something, (K, D): shown to people by the images nearest
  /// to them. Undefined: there are none.
  virtual Tensor landmarks() const { return {}; }

  /// Those that are optimised: parameters that want gradients.
  std::vector<NamedTensor> trained_parameters() const;
};

/// Rows of several batches as those of one: parts of (views * images of that batch, D) each, view after view ->
/// (views * all images, D), view after view. A single part is returned as it is.
Tensor view_after_view(std::span<const Tensor> parts, int64_t views);

/// Makes an objective on the current device, the same each time.
using MakeObjective = std::function<std::unique_ptr<Objective>()>;

}  // namespace saccade::ssl
