#pragma once

#include <saccade/nn/init.h>
#include <saccade/nn/stem.h>
#include <saccade/nn/trunk.h>

#include <string>

/// @file
/// ResNets: of bottleneck blocks and of basic ones (He et al., "Deep Residual Learning for Image Recognition", CVPR
/// 2016; those of bottlenecks in version 1.5, whose stride sits on the 3x3 convolution), and the small one that learns
/// CIFAR-10 in a minute (Page, "How to Train Your ResNet", 2018).

namespace saccade::nn {

class Conv2d;
class BatchNorm;

/// What stages are made of.
enum class ResidualBlock : uint8_t {
  bottleneck,  ///< 1x1, 3x3, 1x1 convolutions, the last four times as wide; ReLU behind the sum
  basic,       ///< two 3x3 convolutions; ReLU behind the sum
  pooled,      ///< a stage begins with a 3x3 convolution and 2x2 max pooling; further blocks are two 3x3 convolutions,
               ///< with ReLU before the sum
};

struct ResNetSpec {
  std::vector<int64_t> depths = {3, 4, 6, 3};  ///< blocks of each stage
  /// Of the stem and inside the first stage's blocks; doubles a stage. Pooled stages are twice as wide as what is
  /// before each.
  int64_t width = 64;
  int64_t in_channels = 3;
  ResidualBlock block = ResidualBlock::bottleneck;
  Stem stem = Stem::resnet;
};

/// The spec of a description: a name, then optionally ":" and overrides.
/// Names: resnet18, resnet34 (512 channels), resnet50, resnet101, resnet152 (2048 channels), torchvision's; resnet9
/// (6.6 million parameters, 512 channels), Page's, of pooled stages behind a CIFAR stem, with a mean over its last map
/// instead of a maximum; each also as resnet50w2, resnet50w4, ... for two, four, ... times the width. Overrides: stem
/// (simple, cifar, resnet), width, in. Examples: "resnet18:stem=cifar", "resnet9:width=32,in=1". Throws, with what
/// there is.
ResNetSpec resnet_spec(std::string_view description);

/// All names without suffix, smallest first.
std::vector<std::string> resnet_names();

/// The network without its classifier. Parameters are named as in torchvision ("layer1.0.conv1.weight"), resnet9's
/// likewise.
class ResNet : public Trunk {
 public:
  /// Throws where the width is none from 1 to 16384, or there are no channels to see.
  explicit ResNet(const ResNetSpec& spec, const Init& init = {});

  int64_t out_channels() const override { return out_channels_; }

 protected:
  Tensor stem(const Tensor& images) override;

 private:
  int64_t out_channels_ = 0;
  Stem stem_kind_;
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<BatchNorm> stem_norm_;
};

/// The ResNet of a description (see resnet_spec()), first values drawn from `seed`.
std::shared_ptr<ResNet> resnet(std::string_view description, uint64_t seed = 0);

}  // namespace saccade::nn
