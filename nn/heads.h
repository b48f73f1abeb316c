#pragma once

#include <saccade/nn/init.h>
#include <saccade/nn/module.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace saccade::nn {

/// SwAV's projection head (Caron et al. 2020): linear layers with ReLU (behind batch norm, if asked) between them; the
/// last is plain. Rows (N, widths.front()) -> (N, widths.back()), f32 under autocast too.
/// Children are named as in VISSL, by their place in the sequence in which ReLU counts too: 0, 1, 3 with batch norm,
/// 0, 2, 4 without.
class ProjectionHead : public Module {
 public:
  /// @param widths      at least an input and an output, e.g. {2048, 2048, 128}
  /// @param batch_norm  SwAV on ResNets and small RegNets: true; SEER: false
  ProjectionHead(std::vector<int64_t> widths, bool batch_norm = true, const Init& init = {});

  int64_t out_channels() const { return out_channels_; }

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  struct Layer {
    std::shared_ptr<Module> linear, norm;  ///< norm is null without batch norm, and for the last layer
  };
  std::vector<Layer> layers_;
  int64_t out_channels_;
};

/// The K prototypes that embeddings are compared with. Rows (N, D) -> scores (N, K) = x weight^T, in f32 under autocast
/// too: at temperature 0.05 half-precision rounding of a score is an error of percents.
/// weight: (K, D), first drawn from U(-1/sqrt(D), 1/sqrt(D)).
class Prototypes : public Module {
 public:
  Prototypes(int64_t count, int64_t dim, const Init& init = {});

  /// Brings every prototype to length 1, in place and off the tape; SwAV does so before each iteration.
  void normalize();

  /// The scores of rows x; with `fixed` prototypes only x gets a gradient.
  Tensor scores(const Tensor& x, bool fixed);

  Tensor weight;

 protected:
  Tensor forward(const Tensor& x) override;
};

}  // namespace saccade::nn
