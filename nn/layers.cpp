#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/nn/layers.h>

#include <cmath>

namespace saccade::nn {
namespace {

double inverse_root(int64_t fan) { return 1.0 / std::sqrt(static_cast<double>(fan)); }
double fan_out_std(int64_t fan_out) { return std::sqrt(2.0 / static_cast<double>(fan_out)); }

}  // namespace

Conv2d::Conv2d(int64_t in, int64_t out, Options o, const Init& init)
    : options_{.stride = o.stride, .padding = o.padding < 0 ? (o.kernel - 1) / 2 : o.padding, .groups = o.groups} {
  if (in < 1 || out < 1 || o.groups < 1 || in % o.groups != 0 || out % o.groups != 0)
    fail(fmt::format("Conv2d: {} input and {} output channels do not divide into {} groups", in, out, o.groups));
  weight = add_parameter("weight", init.normal("weight", {out, o.kernel, o.kernel, in / o.groups},
                                               fan_out_std(o.kernel * o.kernel * out)));
}

Tensor Conv2d::forward(const Tensor& x) { return conv2d(x, weight, options_); }

BatchNorm::BatchNorm(int64_t channels, bool relu) : relu_(relu) {
  weight = add_parameter("weight", Init::constant({channels}, 1.f));
  bias = add_parameter("bias", Init::constant({channels}, 0.f));
  running_mean = add_buffer("running_mean", Init::constant({channels}, 0.f));
  running_var = add_buffer("running_var", Init::constant({channels}, 1.f));
}

Tensor BatchNorm::normalize(const Tensor& x, const Tensor& residual) {
  return batch_norm(x, weight, bias, running_mean, running_var, {.training = is_training(), .relu = relu_}, residual);
}

Tensor BatchNorm::forward(const Tensor& x) { return normalize(x, {}); }

Tensor BatchNorm::operator()(const Tensor& x, const Tensor& residual) {
  const LayerScope layer(name());
  return shown(normalize(x, residual));
}

Linear::Linear(int64_t in, int64_t out, Options options, const Init& init) {
  const bool normal = options.weight_std > 0.0;
  const double bound = inverse_root(in);
  weight = add_parameter("weight", normal ? init.normal("weight", {out, in}, options.weight_std)
                                          : init.uniform("weight", {out, in}, bound));
  if (options.bias)
    bias = add_parameter("bias", normal ? Init::constant({out}, 0.f) : init.uniform("bias", {out}, bound));
}

Tensor Linear::forward(const Tensor& x) { return linear(x, weight, bias); }

SqueezeExcite::SqueezeExcite(int64_t channels, int64_t reduced, const Init& init) {
  w1_ = add_parameter("fc1.weight", init.normal("fc1.weight", {reduced, channels}, fan_out_std(reduced)));
  b1_ = add_parameter("fc1.bias", init.uniform("fc1.bias", {reduced}, inverse_root(channels)));
  w2_ = add_parameter("fc2.weight", init.normal("fc2.weight", {channels, reduced}, fan_out_std(channels)));
  b2_ = add_parameter("fc2.bias", init.uniform("fc2.bias", {channels}, inverse_root(reduced)));
}

Tensor SqueezeExcite::forward(const Tensor& x) { return squeeze_excite(x, w1_, b1_, w2_, b2_); }

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& [name, child] : children()) y = (*child)(y);
  return y;
}

}  // namespace saccade::nn
