#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

namespace {

kernels::Conv2d describe_conv(const Tensor& x, const Tensor& weight, const Conv2dOptions& o) {
  if (!x.is_images()) fail(fmt::format("conv2d: expected images, got a tensor of shape {}", to_string(x.shape())));
  if (weight.rank() != 4 || weight.dim(1) != weight.dim(2))
    fail(fmt::format("conv2d: expected a weight (out, k, k, in / groups), got {}", to_string(weight.shape())));
  if (x.dtype() != weight.dtype() && weight.dtype() != DType::f32)
    fail(fmt::format("conv2d: images are {}, the weight is {}", name_of(x.dtype()), name_of(weight.dtype())));
  const kernels::Conv2d conv{.in_channels = x.dim(1),
                             .out_channels = weight.dim(0),
                             .kernel = weight.dim(1),
                             .stride = o.stride,
                             .padding = o.padding,
                             .groups = o.groups,
                             .dtype = x.dtype()};
  if (weight.dim(3) * o.groups != conv.in_channels)
    fail(fmt::format("conv2d: input has {} channels, weight expects {} x {} groups = {}", conv.in_channels,
                     weight.dim(3), o.groups, weight.dim(3) * o.groups));
  if (o.groups < 1 || conv.out_channels % o.groups != 0)
    fail(fmt::format("conv2d: {} output channels do not divide into {} groups", conv.out_channels, o.groups));
  for (const Segment& s : x.segments())
    if (conv.output(s).h < 1 || conv.output(s).w < 1)
      fail(fmt::format("conv2d: images of {} x {} pixels are smaller than the {} x {} kernel", s.h, s.w, conv.kernel,
                       conv.kernel));
  return conv;
}

}  // namespace

Tensor conv2d(const Tensor& images, const Tensor& weight, Conv2dOptions options) {
  const DeviceScope device(images.device());
  const Tensor x = autocast(images);
  const kernels::Conv2d conv = describe_conv(x, weight, options);
  Segments out;
  for (const Segment& s : x.segments()) out.push_back(conv.output(s));
  Tensor y = Tensor::images(out, conv.out_channels, conv.dtype);
  {
    const Tensor w = parameter_as(conv.dtype, weight);
    compute(x.device(), kernels::Conv2dForward{conv, x.segments(), x.raw(), w.raw(), y.raw()});
  }
  if (autograd::recording({x, weight})) {
    const bool weight_wanted = weight.requires_grad(), x_wanted = x.requires_grad();
    autograd::record(
        y, "conv2d", {x, weight},
        [conv, segments = x.segments(), x = weight_wanted ? autograd::Saved(x) : autograd::Saved(),
         w = x_wanted ? autograd::Saved(weight) : autograd::Saved(), shape = weight.shape(),
         weight_type = weight.dtype()](Tensor dy, autograd::Gradients& to) {
          if (to.wanted(0)) {
            Tensor dx = Tensor::images(segments, conv.in_channels, conv.dtype);
            {
              const Tensor weight = parameter_as(conv.dtype, w.get());
              compute(dy.device(), kernels::Conv2dBackwardData{conv, segments, dy.raw(), weight.raw(), dx.raw()});
            }
            to.give(0, std::move(dx));
          }
          // Only now: who gets the weight's gradient may update the weight at once.
          if (to.wanted(1)) {
            const TagScope tag(Tag::gradients);
            Tensor dw = Tensor::empty(shape);
            {
              const Tensor input = x.get();
              compute(dy.device(), kernels::Conv2dBackwardWeight{conv, segments, input.raw(), dy.raw(), floats(dw)});
            }
            dy = Tensor();
            to.give(1, gradient_as(weight_type, std::move(dw)));
          }
        });
  }
  return y;
}

}  // namespace saccade
