#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/regnet.h>

#include <algorithm>
#include <cmath>

namespace saccade::nn {
namespace {

/// Halves to even, in the default rounding mode: std::round would make other networks.
int64_t round_even(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

/// The bottleneck width `v` as a multiple of the group width `g`.
int64_t divisible(int64_t v, int64_t g, Rounding rounding) {
  if (rounding == Rounding::pycls) return std::max(g, round_even(static_cast<double>(v) / static_cast<double>(g)) * g);
  const int64_t n = std::max(g, (v + g / 2) / g * g);
  return static_cast<double>(n) < 0.9 * static_cast<double>(v) ? n + g : n;
}

void check(const RegNetSpec& s) {
  if (s.depth < 1 || s.w0 <= 0 || std::fmod(s.w0, 8.0) != 0.0 || s.wa < 0 || !(s.wm > 1.0) || s.group_width < 1 ||
      !(s.bottleneck > 0) || s.se_ratio < 0 || s.stem_width < 1 || s.in_channels < 1)
    fail(
        fmt::format("regnet: expected d >= 1, w0 a positive multiple of 8, wa >= 0, wm > 1, g >= 1, b > 0, se >= 0, "
                    "stem_width >= 1, in >= 1; got d={} w0={} wa={} wm={} g={} b={} se={} stem_width={} in={}",
                    s.depth, s.w0, s.wa, s.wm, s.group_width, s.bottleneck, s.se_ratio, s.stem_width, s.in_channels));
}

}  // namespace

std::vector<RegNetStage> stages(const RegNetSpec& spec) {
  check(spec);
  std::vector<RegNetStage> result;
  for (int64_t block = 0; block < spec.depth; ++block) {
    const double u = spec.w0 + spec.wa * static_cast<double>(block);
    const double s = std::nearbyint(std::log(u / spec.w0) / std::log(spec.wm));
    const int64_t width = 8 * round_even(spec.w0 * std::pow(spec.wm, s) / 8.0);
    if (result.empty() || result.back().width != width) result.push_back({.width = width});
    ++result.back().depth;
  }
  for (RegNetStage& stage : result) {
    const auto inside = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(stage.width) * spec.bottleneck));
    stage.group_width = std::min(spec.group_width, inside);
    const int64_t rounded = divisible(inside, stage.group_width, spec.rounding);
    stage.width = static_cast<int64_t>(static_cast<double>(rounded) / spec.bottleneck);
    stage.bottleneck_width = round_even(static_cast<double>(stage.width) * spec.bottleneck);
    stage.groups = stage.bottleneck_width / stage.group_width;
  }
  return result;
}

RegNetBlock::RegNetBlock(int64_t in, const RegNetStage& stage, int64_t stride, double se_ratio, const Init& init) {
  const auto conv = [&](const char* name, int64_t from, int64_t to, Conv2d::Options options) {
    return add_child(name, std::make_shared<Conv2d>(from, to, options, init / name));
  };
  const auto norm = [&](const char* name, int64_t channels, bool relu) {
    return add_child(name, std::make_shared<BatchNorm>(channels, relu));
  };
  const int64_t inside = stage.bottleneck_width;
  if (in != stage.width || stride != 1) {
    project_ = conv("proj.0", in, stage.width, {.stride = stride});
    project_norm_ = norm("proj.1", stage.width, false);
  }
  a_ = conv("f.a.0", in, inside, {});
  a_norm_ = norm("f.a.1", inside, true);
  b_ = conv("f.b.0", inside, inside, {.kernel = 3, .stride = stride, .groups = stage.groups});
  b_norm_ = norm("f.b.1", inside, true);
  if (se_ratio > 0) {  // the hidden width follows the block's input, not its own width
    const int64_t reduced = std::max<int64_t>(1, round_even(se_ratio * static_cast<double>(in)));
    attention_ = add_child("f.se", std::make_shared<SqueezeExcite>(inside, reduced, init / "f.se"));
  }
  c_ = conv("f.c.0", inside, stage.width, {});
  c_norm_ = norm("f.c.1", stage.width, true);
}

Tensor RegNetBlock::forward(const Tensor& x) {
  Tensor y = (*a_norm_)((*a_)(x));
  y = (*b_norm_)((*b_)(y));
  if (attention_) y = (*attention_)(y);
  y = (*c_)(y);
  const Tensor shortcut = project_ ? (*project_norm_)((*project_)(x)) : x;
  return (*c_norm_)(y, shortcut);
}

RegNet::RegNet(const RegNetSpec& spec, const Init& init) : spec_(spec) {
  const std::vector<RegNetStage> shapes = nn::stages(spec);
  const Conv2d::Options stem{.kernel = spec.stem == Stem::resnet ? 7 : 3, .stride = spec.stem == Stem::cifar ? 1 : 2};
  stem_ = add_child("stem.0", std::make_shared<Conv2d>(spec.in_channels, spec.stem_width, stem, init / "stem.0"));
  stem_norm_ = add_child("stem.1", std::make_shared<BatchNorm>(spec.stem_width, true));
  out_channels_ = spec.stem_width;
  for (size_t s = 0; s < shapes.size(); ++s) {
    const std::string name = fmt::format("trunk_output.block{}", s + 1);
    add_stage(name);
    for (int64_t i = 0; i < shapes[s].depth; ++i) {
      const std::string block = fmt::format("block{}-{}", s + 1, i);
      add_unit(block, std::make_shared<RegNetBlock>(out_channels_, shapes[s], i == 0 ? 2 : 1, spec.se_ratio,
                                                    init / name / block));
      out_channels_ = shapes[s].width;
    }
  }
}

Tensor RegNet::stem(const Tensor& images) {
  const Tensor y = (*stem_norm_)((*stem_)(images));
  return spec_.stem == Stem::resnet ? max_pool2d(y, {}) : y;
}

std::shared_ptr<RegNet> regnet(std::string_view description, uint64_t seed) {
  return std::make_shared<RegNet>(regnet_spec(description), Init{seed});
}

}  // namespace saccade::nn
