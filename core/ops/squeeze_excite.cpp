#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

Tensor squeeze_excite(const Tensor& images_in, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2) {
  const DeviceScope scope(images_in.device());
  const Tensor x = autocast(images_in);
  if (!x.is_images()) fail(fmt::format("squeeze_excite: expected images, got {}", to_string(x.shape())));
  const int64_t channels = x.dim(1), reduced = w1.dim(0), images = total_images(x.segments());
  if (w1.shape() != Shape{reduced, channels} || w2.shape() != Shape{channels, reduced} ||
      b1.shape() != Shape{reduced} || b2.shape() != Shape{channels})
    fail(fmt::format("squeeze_excite: {} channels, but w1 is {}, w2 is {}", channels, to_string(w1.shape()),
                     to_string(w2.shape())));
  const DType dtype = x.dtype();
  Tensor pooled = Tensor::empty({images, channels}, dtype), hidden = Tensor::empty({images, reduced}, dtype),
         gate = Tensor::empty({images, channels}, dtype), y = Tensor::empty_like(x);
  compute(x.device(), kernels::GlobalAvgPool{x.segments(), channels, dtype, x.raw(), pooled.raw()});
  product(pooled, false, parameter_as(dtype, w1), true, parameter_as(dtype, b1), hidden);
  compute(x.device(), kernels::Map{kernels::Unary::relu, dtype, hidden.numel(), hidden.raw(), hidden.raw()});
  product(hidden, false, parameter_as(dtype, w2), true, parameter_as(dtype, b2), gate);
  compute(x.device(), kernels::Map{kernels::Unary::sigmoid, dtype, gate.numel(), gate.raw(), gate.raw()});
  compute(x.device(), kernels::ChannelScale{x.segments(), channels, dtype, x.raw(), gate.raw(), y.raw()});
  if (autograd::recording({x, w1, b1, w2, b2})) {
    const autograd::Saved kept(x);
    if (KeepScope::current() == Keep::lean)
      autograd::remakeable(y, [kept, gate, channels, dtype] {
        const Tensor x = kept.get();
        Tensor y = Tensor::empty_like(x);
        compute(x.device(), kernels::ChannelScale{x.segments(), channels, dtype, x.raw(), gate.raw(), y.raw()});
        return y;
      });
    autograd::record(
        y, "squeeze_excite", {x, w1, b1, w2, b2},
        [segments = x.segments(), channels, reduced, images, dtype, weight_type = w1.dtype(), x = kept,
         w1 = autograd::Saved(w1), w2 = autograd::Saved(w2), pooled, hidden, gate](Tensor dy, autograd::Gradients& to) {
          auto give_weight = [&](size_t weight, size_t bias, const Tensor& gradient, const Tensor& input) {
            const TagScope tag(Tag::gradients);
            if (to.wanted(weight)) {
              Tensor dw = Tensor::empty({gradient.dim(1), input.dim(1)});
              product(gradient, true, input, false, {}, dw);
              to.give(weight, gradient_as(weight_type, std::move(dw)));
            }
            if (to.wanted(bias)) {
              Tensor db = Tensor::empty({gradient.dim(1)}, DType::f32);
              compute(dy.device(), kernels::ColumnSum{dtype, images, gradient.dim(1), gradient.raw(), floats(db)});
              to.give(bias, std::move(db));
            }
          };
          Tensor dgate = Tensor::empty({images, channels}, dtype);
          compute(dy.device(),
                  kernels::ChannelScaleFactorGradient{segments, channels, dtype, x.get().raw(), dy.raw(), dgate.raw()});
          compute(dy.device(), kernels::MapGradient{kernels::Unary::sigmoid, dtype, gate.numel(), gate.raw(),
                                                    dgate.raw(), dgate.raw()});
          // A weight's gradient is given when the weight was read for the last time: it may be updated at once.
          Tensor dhidden = Tensor::empty({images, reduced}, dtype);
          product(dgate, false, parameter_as(dtype, w2.get()), false, {}, dhidden);
          give_weight(3, 4, dgate, hidden);
          compute(dy.device(), kernels::MapGradient{kernels::Unary::relu, dtype, hidden.numel(), hidden.raw(),
                                                    dhidden.raw(), dhidden.raw()});
          Tensor dpooled;
          if (to.wanted(0)) {
            dpooled = std::move(dgate);
            product(dhidden, false, parameter_as(dtype, w1.get()), false, {}, dpooled);
          }
          give_weight(1, 2, dhidden, pooled);
          if (!to.wanted(0)) return;
          Tensor dx = dy.owns_memory_alone() ? dy : Tensor::empty_like(dy);
          compute(dy.device(), kernels::ChannelScaleInputGradient{segments, channels, dtype, dy.raw(), gate.raw(),
                                                                  dpooled.raw(), dx.raw()});
          dy = Tensor();
          to.give(0, std::move(dx));
        });
  }
  return y;
}

}  // namespace saccade
