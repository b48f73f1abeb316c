#pragma once

#include <saccade/nn/init.h>
#include <saccade/nn/stem.h>
#include <saccade/nn/trunk.h>

#include <string>

/// @file
/// RegNetX and RegNetY (Radosavovic et al., "Designing Network Design Spaces", CVPR 2020).

namespace saccade::nn {

class Conv2d;
class BatchNorm;

/// How stage widths are made multiples of the group width. Five of the named models differ.
enum class Rounding : uint8_t {
  pycls,        ///< to the nearest, halves to even: pycls, ClassyVision, VISSL, timm
  torchvision,  ///< "make divisible": halves up, never below 90 %
};

/// The few numbers that make a RegNet.
struct RegNetSpec {
  int64_t depth = 0;        ///< number of blocks, d
  double w0 = 0.0;          ///< initial width, a positive multiple of 8
  double wa = 0.0;          ///< slope of the width over the blocks, >= 0
  double wm = 0.0;          ///< ratio of one stage's width to the one before, > 1
  int64_t group_width = 0;  ///< channels of a group of the 3x3 convolutions, g
  double se_ratio = 0.0;    ///< squeeze-excite: hidden width over the block's input width; 0: none (X)
  double bottleneck = 1.0;  ///< width inside a block over its output width, b
  Rounding rounding = Rounding::pycls;
  Stem stem = Stem::simple;
  int64_t stem_width = 32;
  int64_t in_channels = 3;
};

struct RegNetStage {
  int64_t width = 0, depth = 0;
  int64_t bottleneck_width = 0, group_width = 0, groups = 0;  ///< of the 3x3 convolutions
  friend bool operator==(const RegNetStage&, const RegNetStage&) = default;
};

/// The stages that the spec's rule yields (section 3.2-3.3 of the paper; all rounding is of halves to even, as in the
/// original programs). Throws on a spec out of range.
std::vector<RegNetStage> stages(const RegNetSpec& spec);

/// The spec of a description: a name, or "x" or "y" alone (se_ratio 0.25), then optionally ":" and overrides.
/// Names: x_200mf ... x_32gf, y_200mf ... y_128gf, y_256gf (SEER's), y_256gf_classy (ClassyVision's other one), y_10b;
/// "_tv" behind a name takes torchvision's rounding; "1.6gf" and "1_6gf", "8gf" and "8_0gf" are the same.
/// Overrides: d, w0, wa, wm, g, se, b, stem (simple, cifar, resnet), stem_width, in, rounding (pycls, tv).
/// Examples: "y_400mf", "y_400mf:stem=cifar,in=1", "y:d=6,w0=16,wa=8,wm=2,g=8". Throws, with the names nearest.
RegNetSpec regnet_spec(std::string_view description);

/// All names without suffix, smallest first.
std::vector<std::string> regnet_names();

/// One residual bottleneck block: 1x1, grouped 3x3 (with the stride), squeeze-excite, 1x1; each convolution with its
/// batch norm. Images of `in` channels -> images of the stage's width.
class RegNetBlock : public Module {
 public:
  RegNetBlock(int64_t in, const RegNetStage& stage, int64_t stride, double se_ratio, const Init& init);

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::shared_ptr<Conv2d> project_, a_, b_, c_;
  std::shared_ptr<BatchNorm> project_norm_, a_norm_, b_norm_, c_norm_;
  std::shared_ptr<Module> attention_;
};

/// The network without its classifier. Parameters are named as in torchvision
/// ("trunk_output.block1.block1-0.f.a.0.weight").
class RegNet : public Trunk {
 public:
  explicit RegNet(const RegNetSpec& spec, const Init& init = {});

  const RegNetSpec& spec() const { return spec_; }
  int64_t out_channels() const override { return out_channels_; }

 protected:
  Tensor stem(const Tensor& images) override;

 private:
  RegNetSpec spec_;
  int64_t out_channels_ = 0;
  std::shared_ptr<Conv2d> stem_;
  std::shared_ptr<BatchNorm> stem_norm_;
};

/// The RegNet of a description (see regnet_spec()), first values drawn from `seed`.
std::shared_ptr<RegNet> regnet(std::string_view description, uint64_t seed = 0);

}  // namespace saccade::nn
