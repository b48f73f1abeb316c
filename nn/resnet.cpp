#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/resnet.h>

#include <charconv>

namespace saccade::nn {
namespace {

constexpr int64_t expansion = 4;  // output width of a block over the width inside

class Bottleneck : public Module {
 public:
  Bottleneck(int64_t in, int64_t inside, int64_t stride, const Init& init) {
    const auto conv = [&](const char* name, int64_t from, int64_t to, Conv2d::Options options) {
      return add_child(name, std::make_shared<Conv2d>(from, to, options, init / name));
    };
    const auto norm = [&](const char* name, int64_t channels, bool relu) {
      return add_child(name, std::make_shared<BatchNorm>(channels, relu));
    };
    const int64_t out = inside * expansion;
    conv1_ = conv("conv1", in, inside, {});
    norm1_ = norm("bn1", inside, true);
    conv2_ = conv("conv2", inside, inside, {.kernel = 3, .stride = stride});
    norm2_ = norm("bn2", inside, true);
    conv3_ = conv("conv3", inside, out, {});
    norm3_ = norm("bn3", out, true);
    if (in == out && stride == 1) return;
    project_ = conv("downsample.0", in, out, {.stride = stride});
    project_norm_ = norm("downsample.1", out, false);
  }

 protected:
  Tensor forward(const Tensor& x) override {
    Tensor y = (*norm1_)((*conv1_)(x));
    y = (*norm2_)((*conv2_)(y));
    y = (*conv3_)(y);
    const Tensor shortcut = project_ ? (*project_norm_)((*project_)(x)) : x;
    return (*norm3_)(y, shortcut);
  }

 private:
  std::shared_ptr<Conv2d> conv1_, conv2_, conv3_, project_;
  std::shared_ptr<BatchNorm> norm1_, norm2_, norm3_, project_norm_;
};

}  // namespace

ResNet::ResNet(const ResNetSpec& spec, const Init& init) : out_channels_(spec.width) {
  stem_ = add_child("conv1", std::make_shared<Conv2d>(spec.in_channels, spec.width,
                                                      Conv2d::Options{.kernel = 7, .stride = 2}, init / "conv1"));
  stem_norm_ = add_child("bn1", std::make_shared<BatchNorm>(spec.width, true));
  for (size_t s = 0; s < spec.depths.size(); ++s) {
    const std::string name = fmt::format("layer{}", s + 1);
    add_stage(name);
    const int64_t inside = spec.width << s;
    for (int64_t i = 0; i < spec.depths[s]; ++i) {
      const std::string block = std::to_string(i);
      add_unit(block,
               std::make_shared<Bottleneck>(out_channels_, inside, i == 0 && s > 0 ? 2 : 1, init / name / block));
      out_channels_ = inside * expansion;
    }
  }
}

Tensor ResNet::stem(const Tensor& images) { return max_pool2d((*stem_norm_)((*stem_)(images)), {}); }

std::shared_ptr<ResNet> resnet(std::string_view name, uint64_t seed) {
  std::string_view rest = name;
  ResNetSpec spec;
  const auto take = [&](std::string_view prefix) {
    const bool taken = rest.starts_with(prefix);
    if (taken) rest.remove_prefix(prefix.size());
    return taken;
  };
  bool known = true;
  if (take("resnet101"))
    spec.depths = {3, 4, 23, 3};
  else if (take("resnet152"))
    spec.depths = {3, 8, 36, 3};
  else
    known = take("resnet50");
  if (known && take("w")) {
    int64_t factor = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), factor);
    known = error == std::errc() && factor >= 1 && factor <= 64;
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    spec.width *= factor;
  }
  if (!known || !rest.empty())
    fail(
        fmt::format("resnet: there is no model \"{}\"; there are resnet50, resnet101, resnet152, each also as "
                    "resnet50w2, resnet50w4, ... (times the width)",
                    name));
  return std::make_shared<ResNet>(spec, Init{seed});
}

}  // namespace saccade::nn
