#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

Tensor global_avg_pool(const Tensor& x) {
  const DeviceScope device(x.device());
  if (!x.is_images()) fail(fmt::format("global_avg_pool: expected images, got {}", to_string(x.shape())));
  const int64_t channels = x.dim(1);
  Tensor y = Tensor::empty({total_images(x.segments()), channels}, x.dtype());
  compute(x.device(), kernels::GlobalAvgPool{x.segments(), channels, x.dtype(), x.raw(), y.raw()});
  if (autograd::recording({x}))
    autograd::record(
        y, "global_avg_pool", {x}, [segments = x.segments(), channels](Tensor dy, autograd::Gradients& to) {
          Tensor dx = Tensor::images(segments, channels, dy.dtype());
          compute(dy.device(), kernels::GlobalAvgPoolGradient{segments, channels, dy.dtype(), dy.raw(), dx.raw()});
          to.give(0, std::move(dx));
        });
  return y;
}

Tensor max_pool2d(const Tensor& x, Pool2dOptions options) {
  const DeviceScope device(x.device());
  if (!x.is_images()) fail(fmt::format("max_pool2d: expected images, got {}", to_string(x.shape())));
  const kernels::Conv2d window{.in_channels = x.dim(1),
                               .out_channels = x.dim(1),
                               .kernel = options.kernel,
                               .stride = options.stride,
                               .padding = options.padding,
                               .groups = x.dim(1),
                               .dtype = x.dtype()};
  if (const std::string refusal = kernels::MaxPool{window}.refusal(); !refusal.empty()) fail(refusal);
  Segments out;
  for (const Segment& s : x.segments()) out.push_back(window.output(s));
  Tensor y = Tensor::images(out, x.dim(1), x.dtype());
  Tensor argmax = Tensor::empty(y.shape(), DType::u8);
  compute(x.device(), kernels::MaxPool{window, x.segments(), x.raw(), y.raw(), static_cast<uint8_t*>(argmax.raw())});
  if (autograd::recording({x}))
    autograd::record(
        y, "max_pool2d", {x}, [segments = x.segments(), window, argmax](Tensor dy, autograd::Gradients& to) {
          Tensor dx = Tensor::images(segments, window.in_channels, dy.dtype());
          compute(dy.device(), kernels::MaxPoolGradient{window, segments, dy.raw(),
                                                        static_cast<const uint8_t*>(argmax.raw()), dx.raw()});
          to.give(0, std::move(dx));
        });
  return y;
}

}  // namespace saccade
