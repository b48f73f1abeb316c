#pragma once

#include <saccade/core/batch.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/methods/method.h>
#include <saccade/ssl/train/objective.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace saccade::ssl {

/// Knobs of SwAV (Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", 2020).
struct SwAVOptions {
  int64_t prototypes = 3000;  ///< K; about ten times the classes one expects, at most batch + queue
  int64_t hidden = 2048;      ///< width of the projection head's hidden layers
  int64_t hidden_layers = 1;  ///< SwAV: 1; SEER: 2, without batch norm
  int64_t dim = 128;          ///< of the embeddings and prototypes
  bool head_bn = true;        ///< batch norm in the head
  float temperature = 0.1f;   ///< of predictions
  float eps = 0.05f;          ///< of assignments: entropy regularisation of Sinkhorn
  int sinkhorn_iterations = 3;
  int64_t assigning = 2;  ///< the first crops, whose assignments the others predict

  /// Embeddings of earlier batches, of all processes, that take part in the assignments, for each assigning crop; 0:
  /// none. They wait until the queue is full.
  int64_t queue_length = 0;
  int64_t queue_start_iteration = 0;

  int64_t freeze_prototypes_iterations = 0;  ///< prototypes get no gradient before this iteration
  int64_t hard_assignment_iterations = 0;    ///< assignments are one-hot before this iteration
  bool unit_embeddings = true;               ///< L2-normalise embeddings; without, SwAV collapses: for experiments
};

/// What an iteration computed on its way, off the tape: assignments to go on with, and all that the health monitor
/// looks at. Rows are crop-major: image b of crop c is row c * batch + b. All f32.
struct StepTensors {
  int64_t batch = 0;      ///< images
  int64_t crops = 0;      ///< of each image in embeddings and scores, the assigning ones first
  int64_t assigning = 0;  ///< crops of each image in assignments
  Tensor embeddings;      ///< (crops * batch, dim)
  Tensor scores;          ///< (crops * batch, K)
  Tensor assignments;     ///< (assigning * batch, K)

  /// The assignments of images [first, last) alone: (assigning * (last - first), K), crop-major, copied.
  Tensor assignments_of(int64_t first, int64_t last) const;
};

/// SwAV around a trunk: the trunk's pooled features, a projection head, prototypes, and queues (buffers "queue0",
/// "queue1"). As a module it maps images to unit-length embeddings, f32 whatever the precision of the network.
///
/// A training takes it as an Objective. By hand an iteration is loss(batch, iteration). One whose batch is too large
/// for the memory's activations is made of several batches:
///
///     const StepTensors whole = model.assign(batches, iteration);
///     for each batch, its images being [first, last) of all:
///       scale(model.loss(batch, whole.assignments_of(first, last), iteration), 1.f / batches).backward();
///
/// Gradients then add up to those of one batch of all these images: assignments are of all of them together, and the
/// loss is a mean over images. Where batch norm is in the way they do not: its statistics are those of each batch.
class SwAV : public Objective {
 public:
  /// @param trunk  images -> pooled features; kept as child "trunk"
  SwAV(std::shared_ptr<nn::Trunk> trunk, SwAVOptions options, uint64_t seed = 0);

  /// One iteration's loss, a differentiable scalar, in the order of the authors' code: prototypes are normalised in
  /// place; all crops go through trunk and head; the assigning crops' scores, behind those of the queue if it is full,
  /// are assigned by Sinkhorn, and their embeddings enter the queue; the loss swaps predictions.
  /// @param iteration  from 0; decides about queue and hard assignments
  /// @param keep  if given, gets what was computed
  Tensor loss(const Batch& batch, int64_t iteration, StepTensors* keep = nullptr);

  /// The assignments of an iteration that is made of several batches, as those of one batch of all their images in
  /// order: each batch is embedded without recording and without counting for the running statistics, the scores of all
  /// are assigned together, with the queue, and all embeddings enter the queue. Prototypes are normalised first.
  /// Only what is assigned is embedded, unless the head's batch norm must see all crops.
  StepTensors assign(std::span<const Batch> batches, int64_t iteration);
  /// The loss of one of these batches, given the assignments of its images (assigning * batch, K), crop-major.
  Tensor loss(const Batch& batch, const Tensor& assignments, int64_t iteration);

  /// True from the iteration on at which prototypes learn. Before it loss() gives them no gradient, so that an
  /// optimiser passes over them (no momentum, no decay).
  bool prototypes_released(int64_t iteration) const { return iteration >= options_.freeze_prototypes_iterations; }
  bool queue_in_use(int64_t iteration) const;

  const SwAVOptions& options() const { return options_; }
  const Tensor& prototypes() const { return prototypes_->weight; }  ///< (K, dim)

  /// @name As an objective
  /// @{
  nn::Trunk& trunk() override { return *trunk_; }
  /// assign(), where there are several batches.
  void begin(std::span<const Batch> batches, const Progress& progress) override;
  Tensor loss(std::span<const Batch> batches, size_t which, const Progress& progress) override;
  /// StepTensors: embeddings, scores, assignments.
  std::vector<NamedTensor> seen() const override;
  void release() override { seen_ = {}; }
  std::unique_ptr<HealthRules> health() const override;
  /// The projection head if all of it is there and fits, with the head the prototypes, which are points of its space,
  /// and with them a checkpoint's queues.
  std::vector<StartingPart> parts_from(const Weights& weights, const std::string& trunk_prefix) override;
  Tensor landmarks() const override { return prototypes(); }
  /// @}

 protected:
  /// images -> (N, dim)
  Tensor forward(const Tensor& images) override;

 private:
  /// Throws unless every image has the same number of crops, and enough of them.
  void check(const Batch& batch) const;
  void check_queue(int64_t batch) const;
  Tensor scores(const Tensor& embeddings, int64_t iteration) const;
  Tensor assign_scores(const Tensor& embeddings, const Tensor& scores, int64_t batch, int64_t iteration);
  void push(size_t queue, const Tensor& embeddings);

  SwAVOptions options_;
  std::shared_ptr<nn::Trunk> trunk_;
  std::shared_ptr<nn::ProjectionHead> head_;
  std::shared_ptr<nn::Prototypes> prototypes_;
  std::vector<Tensor> queues_;  ///< (queue_length, dim) each, newest rows first
  StepTensors seen_;            ///< of this iteration
};

/// Makes a SwAV as a planner wants it: with the dearest step there is, in which prototypes learn and the queue is full.
/// @param trunk  as nn::trunk() takes it
MakeObjective dearest_swav(std::string trunk, SwAVOptions options);

/// The row of the table of methods.
Method swav_method();

/// What the health monitor knows of SwAV: assignments, prototypes, queue.
/// @param queue_in_use  as SwAV::queue_in_use(iteration)
std::unique_ptr<HealthRules> swav_health(const SwAVOptions& options,
                                         std::function<bool(int64_t iteration)> queue_in_use = {});

}  // namespace saccade::ssl
