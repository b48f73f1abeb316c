#pragma once

#include <saccade/core/batch.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/trunk.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace saccade::ssl {

/// Knobs of SwAV (Caron et al., "Unsupervised learning of visual features by contrasting cluster assignments", 2020).
struct SwAVOptions {
  int64_t prototypes = 3000;  ///< K; about ten times the classes one expects, at most batch + queue
  int64_t hidden = 2048;      ///< width of the projection head's hidden layer
  int64_t dim = 128;          ///< of the embeddings and prototypes
  bool head_bn = true;        ///< batch norm in the head
  float temperature = 0.1f;   ///< of predictions
  float eps = 0.05f;          ///< of assignments: entropy regularisation of Sinkhorn
  int sinkhorn_iterations = 3;
  int64_t assigning = 2;  ///< the first crops, whose assignments the others predict

  /// Embeddings of earlier batches that take part in the assignments, for each assigning crop; 0: none. They wait until
  /// the queue is full.
  int64_t queue_length = 0;
  int64_t queue_start_iteration = 0;

  int64_t freeze_prototypes_iterations = 0;  ///< prototypes get no gradient before this iteration
  int64_t hard_assignment_iterations = 0;    ///< assignments are one-hot before this iteration
  bool unit_embeddings = true;               ///< L2-normalise embeddings; without, SwAV collapses: for experiments
};

/// What one loss computed on its way, for the health monitor: no copies, off the tape.
struct StepTensors {
  int64_t batch = 0, crops = 0, assigning = 0;
  Tensor embeddings;   ///< (crops * batch, dim), crop-major
  Tensor scores;       ///< (crops * batch, K), f32
  Tensor assignments;  ///< (assigning * batch, K)
};

/// SwAV around a trunk: the trunk's pooled features, a projection head, prototypes, and queues (buffers "queue0",
/// "queue1"). As a module it maps images to unit-length embeddings.
class SwAV : public nn::Module {
 public:
  /// @param trunk  images -> pooled features; kept as child "trunk"
  SwAV(std::shared_ptr<nn::Trunk> trunk, SwAVOptions options, uint64_t seed = 0);

  /// One iteration's loss, a differentiable scalar, in the order of the authors' code: prototypes are normalised in
  /// place; all crops go through trunk and head; the assigning crops' scores, behind those of the queue if it is full,
  /// are assigned by Sinkhorn, and their embeddings enter the queue; the loss swaps predictions.
  /// @param iteration  from 0; decides about queue and hard assignments
  /// @param keep  if given, gets what was computed
  Tensor loss(const Batch& batch, int64_t iteration, StepTensors* keep = nullptr);

  /// To be called between backward and the optimiser: takes the prototypes' gradient away while they are frozen, so
  /// that the optimiser passes over them (no momentum, no decay).
  void freeze_prototypes(int64_t iteration);

  /// True from the iteration on at which prototypes learn.
  bool prototypes_released(int64_t iteration) const { return iteration >= options_.freeze_prototypes_iterations; }
  bool queue_in_use(int64_t iteration) const;

  const SwAVOptions& options() const { return options_; }
  const std::shared_ptr<nn::Trunk>& trunk() const { return trunk_; }
  const Tensor& prototypes() const { return prototypes_->weight; }  ///< (K, dim)

 protected:
  /// images -> (N, dim)
  Tensor forward(const Tensor& images) override;

 private:
  Tensor assign(const Tensor& embeddings, const Tensor& scores, int64_t batch, int64_t iteration);
  void push(size_t queue, const Tensor& embeddings);

  SwAVOptions options_;
  std::shared_ptr<nn::Trunk> trunk_;
  std::shared_ptr<nn::ProjectionHead> head_;
  std::shared_ptr<nn::Prototypes> prototypes_;
  std::vector<Tensor> queues_;  ///< (queue_length, dim) each, newest rows first
};

}  // namespace saccade::ssl
