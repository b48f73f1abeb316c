#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/backend.h>

namespace saccade {

using kernels::backend;

Tensor global_avg_pool(const Tensor& x) {
  const DeviceScope device(x.device());
  if (!x.is_images()) fail(fmt::format("global_avg_pool: expected images, got {}", to_string(x.shape())));
  const int64_t channels = x.dim(1);
  Tensor y = Tensor::empty({total_images(x.segments()), channels}, x.dtype());
  backend(x.device()).global_avg_pool_forward(x.segments(), channels, x.dtype(), x.raw(), y.raw());
  if (autograd::recording({x}))
    autograd::record(
        y, "global_avg_pool", {x}, [segments = x.segments(), channels](Tensor dy, autograd::Gradients& to) {
          Tensor dx = Tensor::images(segments, channels, dy.dtype());
          backend(dy.device()).global_avg_pool_backward(segments, channels, dy.dtype(), dy.raw(), dx.raw());
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
  if (options.kernel < 1 || options.kernel > 15 || options.padding >= options.kernel)
    fail(fmt::format("max_pool2d: kernel {} with padding {} is not supported", options.kernel, options.padding));
  Segments out;
  for (const Segment& s : x.segments()) out.push_back(window.output(s));
  Tensor y = Tensor::images(out, x.dim(1), x.dtype());
  Tensor argmax = Tensor::empty(y.shape(), DType::u8);
  backend(x.device()).max_pool_forward(window, x.segments(), x.raw(), y.raw(), static_cast<uint8_t*>(argmax.raw()));
  if (autograd::recording({x}))
    autograd::record(
        y, "max_pool2d", {x}, [segments = x.segments(), window, argmax](Tensor dy, autograd::Gradients& to) {
          Tensor dx = Tensor::images(segments, window.in_channels, dy.dtype());
          backend(dy.device())
              .max_pool_backward(window, segments, dy.raw(), static_cast<const uint8_t*>(argmax.raw()), dx.raw());
          to.give(0, std::move(dx));
        });
  return y;
}

}  // namespace saccade
