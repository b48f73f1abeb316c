#pragma once

#include <saccade/nn/heads.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/methods/method.h>
#include <saccade/ssl/train/objective.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace saccade::ssl {

/// Knobs of SimCLR (Chen et al., "A simple framework for contrastive learning of visual representations", 2020).
struct SimclrOptions {
  int64_t hidden = 2048;      ///< width of the projection head's hidden layers
  int64_t hidden_layers = 1;  ///< SimCLR: 1; its second version: 2
  int64_t dim = 128;          ///< of the embeddings
  bool head_bn = true;        ///< batch norm in the head
  float temperature = 0.1f;   ///< of similarities: 0.1 on ImageNet, 0.5 on CIFAR-10
};

/// SimCLR around a trunk: the trunk's pooled features and a projection head give each crop an embedding z of length 1,
/// f32 whatever the precision of the network. Of N images in two crops each, every embedding must find its image's
/// other one among all the rest (NT-Xent, eq. 1):
///
///     L = mean over the 2N rows i of  -ln( exp(z_i . z_p(i) / tau) / sum over k != i of exp(z_i . z_k / tau) )
///
/// An iteration of several batches compares all their images: begin() embeds them without recording; loss() takes the
/// gradient of the loss of all by embedding, has the value of that loss, and passes the batch's part of this gradient
/// on to the network (Gao et al., "Scaling deep contrastive learning batch size under memory limited setup", 2021).
/// Gradients then add up to those of one batch of all these images, but for batch norm, whose statistics are those of
/// each batch.
class Simclr final : public Objective {
 public:
  /// @param trunk  images -> pooled features; kept as child "trunk"
  Simclr(std::shared_ptr<nn::Trunk> trunk, SimclrOptions options, uint64_t seed = 0);

  nn::Trunk& trunk() override { return *trunk_; }
  void begin(std::span<const Batch> batches, const Progress& progress) override;
  Tensor loss(std::span<const Batch> batches, size_t which, const Progress& progress) override;
  /// "embeddings": (2 images, dim), crop-major.
  std::vector<NamedTensor> seen() const override;
  void release() override { embeddings_ = whole_ = gradient_ = {}; }
  std::unique_ptr<HealthRules> health() const override;

  const SimclrOptions& options() const { return options_; }

 protected:
  /// images -> (N, dim)
  Tensor forward(const Tensor& images) override;

 private:
  Tensor contrast(const Tensor& embeddings) const;

  SimclrOptions options_;
  std::shared_ptr<nn::Trunk> trunk_;
  std::shared_ptr<nn::ProjectionHead> head_;
  Tensor embeddings_;        ///< of all processes' images
  Tensor whole_, gradient_;  ///< of several batches: their loss, and its gradient by embedding (2 images, dim)
};

/// The row of the table of methods.
Method simclr_method();

}  // namespace saccade::ssl
