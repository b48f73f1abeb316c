#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/description.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/resnet.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace saccade::nn {
namespace {

/// What blocks are made of: convolutions, each with its batch norm.
class Block : public Module {
 protected:
  struct Layer {
    std::shared_ptr<Conv2d> conv;
    std::shared_ptr<BatchNorm> norm;
    Tensor operator()(const Tensor& x) const { return (*norm)((*conv)(x)); }
  };
  Layer layer(const std::string& conv, const std::string& norm, int64_t in, int64_t out, Conv2d::Options options,
              bool relu, const Init& init) {
    return {add_child(conv, std::make_shared<Conv2d>(in, out, options, init / conv)),
            add_child(norm, std::make_shared<BatchNorm>(out, relu))};
  }
};

/// Convolutions and a shortcut around them, which is projected where the shape changes; ReLU behind the sum.
class Residual : public Block {
 public:
  Residual(int64_t in, const std::vector<int64_t>& widths, const std::vector<Conv2d::Options>& convolutions,
           const Init& init) {
    int64_t from = in, stride = 1;
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string number = std::to_string(i + 1);
      layers_.push_back(layer("conv" + number, "bn" + number, from, widths[i], convolutions[i], true, init));
      from = widths[i];
      stride *= convolutions[i].stride;
    }
    if (in != from || stride != 1)
      project_ = layer("downsample.0", "downsample.1", in, from, {.stride = stride}, false, init);
  }

 protected:
  Tensor forward(const Tensor& x) override {
    Tensor y = x;
    for (size_t i = 0; i + 1 < layers_.size(); ++i) y = layers_[i](y);
    const Layer& last = layers_.back();
    y = (*last.conv)(y);
    return (*last.norm)(y, project_.conv ? project_(x) : x);
  }

 private:
  std::vector<Layer> layers_;
  Layer project_;
};

/// The first of a pooled stage.
class ConvPool : public Block {
 public:
  ConvPool(int64_t in, int64_t out, const Init& init)
      : layer_(layer("conv1", "bn1", in, out, {.kernel = 3}, true, init)) {}

 protected:
  Tensor forward(const Tensor& x) override { return max_pool2d(layer_(x), {.kernel = 2, .stride = 2, .padding = 0}); }

 private:
  Layer layer_;
};

/// The further ones: ReLU before the sum.
class SumOfConvs : public Block {
 public:
  SumOfConvs(int64_t width, const Init& init)
      : first_(layer("conv1", "bn1", width, width, {.kernel = 3}, true, init)),
        second_(layer("conv2", "bn2", width, width, {.kernel = 3}, true, init)) {}

 protected:
  Tensor forward(const Tensor& x) override { return add(x, second_(first_(x))); }

 private:
  Layer first_, second_;
};

/// Channels behind a block that is `inside` wide.
int64_t width_behind(ResidualBlock kind, int64_t inside) {
  return kind == ResidualBlock::bottleneck ? 4 * inside : kind == ResidualBlock::pooled ? 2 * inside : inside;
}

std::shared_ptr<Module> make_block(ResidualBlock kind, int64_t in, int64_t inside, int64_t stride, bool begins_stage,
                                   const Init& init) {
  const Conv2d::Options one{}, three{.kernel = 3}, strided{.kernel = 3, .stride = stride};
  const int64_t out = width_behind(kind, inside);
  if (kind == ResidualBlock::basic)
    return std::make_shared<Residual>(in, std::vector{inside, out}, std::vector{strided, three}, init);
  if (kind == ResidualBlock::bottleneck)
    return std::make_shared<Residual>(in, std::vector{inside, inside, out}, std::vector{one, strided, one}, init);
  if (begins_stage) return std::make_shared<ConvPool>(in, out, init);
  return std::make_shared<SumOfConvs>(out, init);
}

struct Model {
  std::string_view name;
  std::vector<int64_t> depths;
  ResidualBlock block;
  Stem stem = Stem::resnet;
};

const std::vector<Model>& models() {
  static const std::vector<Model> all = {
      {"resnet9", {2, 1, 2}, ResidualBlock::pooled, Stem::cifar},
      {"resnet18", {2, 2, 2, 2}, ResidualBlock::basic},
      {"resnet34", {3, 4, 6, 3}, ResidualBlock::basic},
      {"resnet50", {3, 4, 6, 3}, ResidualBlock::bottleneck},
      {"resnet101", {3, 4, 23, 3}, ResidualBlock::bottleneck},
      {"resnet152", {3, 8, 36, 3}, ResidualBlock::bottleneck},
  };
  return all;
}

/// What stands behind "w" in a name: how many times the width; 1 where nothing does, 0 where it is no such number.
int64_t width_factor(std::string_view suffix) {
  if (suffix.empty()) return 1;
  int64_t factor = 0;
  const auto [end, error] = std::from_chars(suffix.data() + 1, suffix.data() + suffix.size(), factor);
  const bool right = suffix[0] == 'w' && error == std::errc() && end == suffix.data() + suffix.size();
  return right && factor >= 1 && factor <= 64 ? factor : 0;
}

ResNetSpec base(std::string_view name) {
  for (const Model& model : models()) {
    if (!name.starts_with(model.name)) continue;
    const int64_t factor = width_factor(name.substr(model.name.size()));
    if (factor > 0) return {.depths = model.depths, .width = 64 * factor, .block = model.block, .stem = model.stem};
  }
  fail(
      fmt::format("resnet: there is no model \"{}\"; there are {}, each also as resnet50w2, resnet50w4, ... (times "
                  "the width)",
                  name, fmt::join(resnet_names(), ", ")));
}

}  // namespace

ResNet::ResNet(const ResNetSpec& spec, const Init& init) : out_channels_(spec.width), stem_kind_(spec.stem) {
  if (spec.width < 1 || spec.width > 16384 || spec.in_channels < 1)
    fail(fmt::format("resnet: expected width from 1 to 16384, in >= 1; got width={} in={}", spec.width,
                     spec.in_channels));
  const Conv2d::Options stem{.kernel = spec.stem == Stem::resnet ? 7 : 3, .stride = spec.stem == Stem::cifar ? 1 : 2};
  stem_ = add_child("conv1", std::make_shared<Conv2d>(spec.in_channels, spec.width, stem, init / "conv1"));
  stem_norm_ = add_child("bn1", std::make_shared<BatchNorm>(spec.width, true));
  for (size_t s = 0; s < spec.depths.size(); ++s) {
    const std::string name = fmt::format("layer{}", s + 1);
    add_stage(name);
    const int64_t inside = spec.width << s;
    for (int64_t i = 0; i < spec.depths[s]; ++i) {
      const std::string block = std::to_string(i);
      add_unit(block,
               make_block(spec.block, out_channels_, inside, i == 0 && s > 0 ? 2 : 1, i == 0, init / name / block));
      out_channels_ = width_behind(spec.block, inside);
    }
  }
}

Tensor ResNet::stem(const Tensor& images) {
  const Tensor y = (*stem_norm_)((*stem_)(images));
  return stem_kind_ == Stem::resnet ? max_pool2d(y, {}) : y;
}

std::vector<std::string> resnet_names() {
  std::vector<std::string> names;
  for (const Model& model : models()) names.emplace_back(model.name);
  return names;
}

ResNetSpec resnet_spec(std::string_view description) {
  const Description parts = parse_description("resnet", description);
  ResNetSpec spec = base(parts.name);
  for (const DescribedSetting& setting : parts.settings)
    if (setting.key == "width")
      spec.width = setting.whole_number();
    else if (setting.key == "in")
      spec.in_channels = setting.whole_number();
    else if (setting.key == "stem")
      spec.stem = setting.stem();
    else
      setting.refuse("stem, width, in");
  return spec;
}

std::shared_ptr<ResNet> resnet(std::string_view description, uint64_t seed) {
  return std::make_shared<ResNet>(resnet_spec(description), Init{seed});
}

}  // namespace saccade::nn
