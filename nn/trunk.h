#pragma once

#include <saccade/core/plan/chain.h>
#include <saccade/nn/layers.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::nn {

/// What turns images into features: a stem, then stages, each at a lower resolution.
/// Called, it gives the last stage's map as images of out_channels().
///
/// A trunk is a chain of units, the stem and the blocks, each a function of the one before alone. A recomputation plan
/// says what of each unit is kept for backward; results and gradients do not depend on it.
class Trunk : public Module {
 public:
  virtual int64_t out_channels() const = 0;

  /// The pooled features: images of all segments, in order -> (N, out_channels()).
  Tensor features(const Tensor& images);
  /// The maps behind the stem and behind each stage, in order (VISSL's conv1, res2, res3, ...).
  std::vector<Tensor> forward_stages(const Tensor& images);

  size_t stage_count() const { return stages_.size() + 1; }  ///< with the stem

  /// @name The chain
  /// @{
  size_t unit_count() const { return units_.size() + 1; }
  /// "stem", or the block's name, e.g. "block3-1".
  std::string unit_name(size_t unit) const { return unit == 0 ? "stem" : units_.at(unit - 1).name; }
  /// The stage (0: the stem) that a unit belongs to.
  size_t stage_of(size_t unit) const { return unit == 0 ? 0 : units_.at(unit - 1).stage; }
  /// One unit: images (unit 0), or the map of the unit before it -> its map.
  Tensor forward_unit(size_t unit, const Tensor& x);
  /// How the forward of a training step runs from now on: modes are those of Keep (0 eager, 1 lean). Empty: all units
  /// under the current KeepScope. Throws if the steps are not all units in order.
  void follow(std::vector<plan::Step> steps);
  const std::vector<plan::Step>& steps() const { return steps_; }
  /// @}

 protected:
  Tensor forward(const Tensor& images) override;
  /// Unit 0.
  virtual Tensor stem(const Tensor& images) = 0;
  /// @name Registration, in order, for constructors: a stage, then its blocks.
  /// @{
  void add_stage(const std::string& name);
  void add_unit(const std::string& name, std::shared_ptr<Module> block);
  /// @}

 private:
  struct Unit {
    std::string name;
    size_t stage;
    std::shared_ptr<Module> block;
  };
  struct Stage {
    std::string name;
    std::shared_ptr<Sequential> blocks;
  };
  Tensor run(std::span<const plan::Step> steps, Tensor x);

  std::vector<Stage> stages_;
  std::vector<Unit> units_;  ///< without the stem
  std::vector<plan::Step> steps_;
};

/// The trunk of that description, first values drawn from `seed`: a ResNet ("resnet18", "resnet18:stem=cifar"; see
/// resnet.h), or a RegNet ("y_400mf", "y_400mf:stem=cifar", "y:d=6,w0=16,wa=8,wm=2,g=8"; see regnet.h). Throws, with
/// the names nearest, where there is none.
std::shared_ptr<Trunk> trunk(std::string_view description, uint64_t seed = 0);

/// Of the images that the trunk of a description sees.
int64_t input_channels(std::string_view description);
/// The description, which says nothing of channels, of the same trunk for gray images.
std::string for_gray(const std::string& description);

}  // namespace saccade::nn
