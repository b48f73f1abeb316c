#pragma once

#include <saccade/nn/heads.h>
#include <saccade/ssl/methods/method.h>
#include <saccade/ssl/train/objective.h>

#include <memory>
#include <span>
#include <vector>

namespace saccade::ssl {

struct ByolOptions {
  int64_t hidden = 512, dim = 128;  ///< of both heads and the predictor
  float momentum = 0.99f;           ///< of the teacher
};

/// BYOL (Grill et al., "Bootstrap your own latent", 2020): from each view of an image a network predicts what its
/// teacher, whose weights are a moving average of its own, makes of the other of the two large views.
class Byol final : public Objective {
 public:
  /// @param teacher  like `trunk`
  Byol(std::shared_ptr<nn::Trunk> trunk, std::shared_ptr<nn::Trunk> teacher, ByolOptions options, uint64_t seed = 0);

  nn::Trunk& trunk() override { return *trunk_; }
  Tensor loss(std::span<const Batch> batches, size_t which, const Progress& progress) override;
  std::vector<NamedTensor> seen() const override;
  void release() override { embeddings_.clear(); }
  void updated(const Progress& progress) override;
  std::unique_ptr<HealthRules> health() const override;

 protected:
  /// images -> (N, dim), of unit length
  Tensor forward(const Tensor& images) override;

 private:
  /// What each view is to predict: (views * batch, dim), the first resolution's two views being the teacher's.
  Tensor targets(const Batch& batch, int64_t views) const;

  ByolOptions options_;
  std::shared_ptr<nn::Trunk> trunk_, teacher_;
  std::shared_ptr<nn::ProjectionHead> head_, predictor_, teacher_head_;
  std::vector<Tensor> embeddings_;  ///< of the two large views of each batch of this iteration
};

/// The row of the table of methods.
Method byol_method();

}  // namespace saccade::ssl
