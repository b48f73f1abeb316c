#pragma once

#include <saccade/core/batch.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/linear_probe.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace saccade::ssl {

struct FineTuneOptions {
  int64_t classes = 10;
  int64_t iterations = 500;
  float trunk_lr = 1e-3f;  ///< AdamW's, at the top of its schedule
  float head_lr = 1e-2f;   ///< of the new linear classifier
  float weight_decay = 0.05f;
  int64_t warmup_iterations = 20;
  uint64_t seed = 0;  ///< of the classifier's first weights
};

/// A trunk and the linear classifier trained on top of it.
struct Classifier {
  std::shared_ptr<nn::Trunk> trunk;
  Tensor weight;  ///< (classes, features)
  Tensor bias;    ///< (classes)

  /// What it makes of the trunk's features, on the CPU.
  LinearProbe linear() const;
  /// Classes of images [0, count), in evaluation mode.
  std::vector<int> classify(const ImageRange& images, int64_t count, int64_t batch = 512) const;
};

/// Trains the whole network on labelled, augmented batches with softmax cross-entropy: AdamW, warm-up and cosine to
/// zero. Every crop of an image counts as an example. The trunk is changed: copy_weights() into another one first where
/// the old is still wanted. From scratch and from pre-trained weights alike: only the trunk given differs.
/// @param batches  gives batch number i, its labels filled in
Classifier fine_tune(std::shared_ptr<nn::Trunk> trunk, const std::function<Batch(int64_t iteration)>& batches,
                     const FineTuneOptions& options = {});

/// Which samples have labels in a low-shot test: `count` in all, as many of each class (rounded down), drawn by the
/// seed. Samples of a negative label are passed over.
std::vector<int64_t> choose_per_class(std::span<const int> labels, int64_t count, uint64_t seed = 0);

/// The same with as many of each class as it has among all samples, but two at least: `share` of those that have a
/// label, or, from 1 on, so many in all. In an order drawn by the seed.
/// Throws Error when that is less than two of each class, more than there are, or no whole number; and when a class has
/// but one sample.
std::vector<int64_t> choose_share(std::span<const int> labels, double share, uint64_t seed = 0);

/// Copies all parameters and buffers of `from` into `to`, which has the same architecture.
void copy_weights(const nn::Module& from, const nn::Module& to);

}  // namespace saccade::ssl
