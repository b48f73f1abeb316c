#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/layers.h>

#include <cmath>

namespace saccade::nn {

ProjectionHead::ProjectionHead(std::vector<int64_t> widths, bool batch_norm, const Init& init) {
  if (widths.size() < 2) fail(fmt::format("ProjectionHead: expected at least 2 widths, got {}", widths.size()));
  for (size_t i = 0, place = 0; i + 1 < widths.size(); ++i, place += batch_norm ? 3 : 2) {
    const std::string name = std::to_string(place);
    Layer layer{.linear = add_child(name, std::make_shared<Linear>(widths[i], widths[i + 1], init / name)), .norm = {}};
    if (batch_norm && i + 2 < widths.size())
      layer.norm = add_child(std::to_string(place + 1), std::make_shared<BatchNorm>(widths[i + 1], true));
    layers_.push_back(std::move(layer));
  }
  out_channels_ = widths.back();
}

Tensor ProjectionHead::forward(const Tensor& x) {
  Tensor y = x;
  for (size_t i = 0; i < layers_.size(); ++i) {
    y = (*layers_[i].linear)(y);
    if (layers_[i].norm)
      y = (*layers_[i].norm)(y);
    else if (i + 1 < layers_.size())
      y = relu(y);
  }
  return y.dtype() == DType::f32 ? y : cast(y, DType::f32);
}

Prototypes::Prototypes(int64_t count, int64_t dim, const Init& init) {
  if (count < 1 || dim < 1)
    fail(fmt::format("Prototypes: expected at least 1 of at least 1 dimension, got {} of {}", count, dim));
  weight = add_parameter("weight", init.uniform("weight", {count, dim}, 1.0 / std::sqrt(static_cast<double>(dim))));
}

void Prototypes::normalize() {
  const NoGradScope no_grad;
  weight.copy_from(l2_normalize(weight));
}

Tensor Prototypes::scores(const Tensor& x, bool fixed) {
  const LayerScope layer(name());
  const AutocastScope full(DType::f32);
  return linear(x, fixed ? weight.detach() : weight);
}

Tensor Prototypes::forward(const Tensor& x) {
  const AutocastScope full(DType::f32);
  return linear(x, weight);
}

}  // namespace saccade::nn
