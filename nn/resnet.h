#pragma once

#include <saccade/nn/init.h>
#include <saccade/nn/trunk.h>

/// @file
/// ResNet with bottleneck blocks (He et al. 2016), version 1.5: the stride sits on the 3x3 convolution.

namespace saccade::nn {

class Conv2d;
class BatchNorm;

struct ResNetSpec {
  std::vector<int64_t> depths = {3, 4, 6, 3};  ///< blocks of each stage
  int64_t width = 64;                          ///< of the stem and inside the first stage's blocks; doubles a stage
  int64_t in_channels = 3;
};

/// The network without its classifier: 7x7 stem of stride 2, max pooling, four stages (ResNet-50: 2048 channels).
/// Parameters are named as in torchvision ("layer1.0.conv1.weight").
class ResNet : public Trunk {
 public:
  explicit ResNet(const ResNetSpec& spec, const Init& init = {});

  int64_t out_channels() const override { return out_channels_; }

 protected:
  Tensor stem(const Tensor& images) override;

 private:
  int64_t out_channels_ = 0;
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<BatchNorm> stem_norm_;
};

/// "resnet50", "resnet101", "resnet152", or "resnet50w2", "resnet50w4", ... for two, four, ... times the width.
std::shared_ptr<ResNet> resnet(std::string_view name, uint64_t seed = 0);

}  // namespace saccade::nn
