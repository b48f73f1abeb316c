#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>
#include <saccade/nn/trunk.h>

namespace saccade::nn {
namespace {

/// Throws unless the steps, those inside of runs too, are units [first, last) in order.
void check_steps(std::span<const plan::Step> steps, size_t first, size_t last) {
  size_t next = first;
  for (const plan::Step& s : steps) {
    if (s.layer != next || (s.is_run && s.last <= s.layer) || (!s.is_run && s.mode > 1))
      fail(fmt::format("trunk: the plan has unit {} where unit {} is next", s.layer, next));
    if (s.is_run) check_steps(s.inside, s.layer, s.last);
    next = s.is_run ? s.last : s.layer + 1;
  }
  if (next != last) fail(fmt::format("trunk: the plan ends before unit {}, expected {}", next, last));
}

bool is_resnet(std::string_view description) { return description.starts_with("resnet"); }

}  // namespace

void Trunk::add_stage(const std::string& name) {
  stages_.push_back({name, add_child(name, std::make_shared<Sequential>())});
}

void Trunk::add_unit(const std::string& name, std::shared_ptr<Module> block) {
  stages_.back().blocks->add_child(name, block);
  units_.push_back({name, stages_.size(), std::move(block)});
}

Tensor Trunk::forward_unit(size_t unit, const Tensor& x) {
  if (unit == 0) return stem(x);
  const Unit& u = units_.at(unit - 1);
  const LayerScope layer(stages_[u.stage - 1].name);
  return (*u.block)(x);
}

void Trunk::follow(std::vector<plan::Step> steps) {
  if (!steps.empty()) check_steps(steps, 0, unit_count());
  steps_ = std::move(steps);
}

Tensor Trunk::run(std::span<const plan::Step> steps, Tensor x) {
  for (const plan::Step& s : steps) {
    if (s.is_run) {
      x = checkpoint([this, inside = s.inside](const std::vector<Tensor>& in) { return run(inside, in[0]); }, {x});
    } else {
      const KeepScope keep(s.mode == 0 ? Keep::eager : Keep::lean);
      x = forward_unit(s.layer, x);
    }
  }
  return x;
}

Tensor Trunk::forward(const Tensor& images) {
  if (!steps_.empty() && is_training()) return run(steps_, images);
  Tensor x = stem(images);
  for (size_t unit = 1; unit < unit_count(); ++unit) x = forward_unit(unit, x);
  return x;
}

Tensor Trunk::features(const Tensor& images) {
  const Tensor map = (*this)(images);
  const LayerScope layer(name());
  return global_avg_pool(map);
}

std::vector<Tensor> Trunk::forward_stages(const Tensor& images) {
  const LayerScope layer(name());
  std::vector<Tensor> maps{stem(images)};
  for (const Stage& stage : stages_) maps.push_back((*stage.blocks)(maps.back()));
  return maps;
}

std::shared_ptr<Trunk> trunk(std::string_view description, uint64_t seed) {
  if (is_resnet(description)) return resnet(description, seed);
  return regnet(description, seed);
}

int64_t input_channels(std::string_view description) {
  return is_resnet(description) ? resnet_spec(description).in_channels : regnet_spec(description).in_channels;
}

std::string for_gray(const std::string& description) {
  return description + (description.find(':') == std::string::npos ? ":in=1" : ",in=1");
}

}  // namespace saccade::nn
