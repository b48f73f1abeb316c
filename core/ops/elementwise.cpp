#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

namespace {

Tensor overwrite_or_new(Tensor& dy) { return dy.owns_memory_alone() ? dy : Tensor::empty_like(dy); }

/// y = f(x), with its gradient.
Tensor map(kernels::Unary function, const Tensor& x) {
  Tensor y = Tensor::empty_like(x);
  compute(x.device(), kernels::Map{function, x.dtype(), x.numel(), x.raw(), y.raw()});
  if (autograd::recording({x}))
    autograd::record(
        y, name_of(function).data(), {x},
        [function, kept = autograd::Saved(keeps_result(function) ? y : x)](Tensor dy, autograd::Gradients& to) {
          Tensor dx = overwrite_or_new(dy);
          compute(dy.device(),
                  kernels::MapGradient{function, dy.dtype(), dy.numel(), kept.get().raw(), dy.raw(), dx.raw()});
          dy = Tensor();
          to.give(0, std::move(dx));
        });
  return y;
}

}  // namespace

Tensor relu(const Tensor& x) { return map(kernels::Unary::relu, x); }
Tensor sigmoid(const Tensor& x) { return map(kernels::Unary::sigmoid, x); }
Tensor gelu(const Tensor& x) { return map(kernels::Unary::gelu, x); }

Tensor add(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype())
    fail(fmt::format("add: {} {} and {} {} do not match", name_of(a.dtype()), to_string(a.shape()), name_of(b.dtype()),
                     to_string(b.shape())));
  Tensor y = Tensor::empty_like(a);
  compute(a.device(), kernels::Combine{kernels::Binary::add, a.dtype(), a.numel(), a.raw(), b.raw(), y.raw()});
  if (autograd::recording({a, b}))
    autograd::record(y, "add", {a, b}, [](Tensor dy, autograd::Gradients& to) {
      to.give(0, dy);
      to.give(1, dy);
    });
  return y;
}

Tensor scale(const Tensor& x, float factor) {
  Tensor y = Tensor::empty_like(x);
  compute(x.device(), kernels::Scale{x.dtype(), x.numel(), x.raw(), factor, y.raw()});
  if (autograd::recording({x}))
    autograd::record(y, "scale", {x}, [factor](Tensor dy, autograd::Gradients& to) {
      Tensor dx = overwrite_or_new(dy);
      compute(dy.device(), kernels::Scale{dy.dtype(), dy.numel(), dy.raw(), factor, dx.raw()});
      dy = Tensor();
      to.give(0, std::move(dx));
    });
  return y;
}

Tensor cast(const Tensor& x, DType dtype) {
  if (!is_floating(x.dtype()) || !is_floating(dtype))
    fail(fmt::format("cast: from {} to {}; only floating-point types are differentiable", name_of(x.dtype()),
                     name_of(dtype)));
  Tensor y = x.to(dtype);
  if (autograd::recording({x}))
    autograd::record(y, "cast", {x},
                     [from = x.dtype()](Tensor dy, autograd::Gradients& to) { to.give(0, dy.to(from)); });
  return y;
}

Tensor l2_normalize(const Tensor& x, float eps) {
  const DeviceScope device(x.device());
  if (x.rank() != 2) fail(fmt::format("l2_normalize: expected (rows, C), got {}", to_string(x.shape())));
  const int64_t rows = x.dim(0), channels = x.dim(1);
  Tensor y = Tensor::empty_like(x), norm = Tensor::empty({rows});
  compute(x.device(), kernels::L2Normalize{x.dtype(), rows, channels, eps, x.raw(), y.raw(), floats(norm)});
  if (autograd::recording({x}))
    autograd::record(y, "l2_normalize", {x},
                     [rows, channels, eps, y = autograd::Saved(y), norm](Tensor dy, autograd::Gradients& to) {
                       Tensor dx = overwrite_or_new(dy);
                       compute(dy.device(), kernels::L2NormalizeGradient{dy.dtype(), rows, channels, eps, y.get().raw(),
                                                                         floats(norm), dy.raw(), dx.raw()});
                       dy = Tensor();
                       to.give(0, std::move(dx));
                     });
  return y;
}

Tensor logsumexp(const Tensor& x) {
  const DeviceScope device(x.device());
  if (x.rank() != 2 || x.dim(1) == 0) fail(fmt::format("logsumexp: expected (rows, C), got {}", to_string(x.shape())));
  const int64_t rows = x.dim(0), channels = x.dim(1);
  Tensor y = Tensor::empty({rows});
  compute(x.device(), kernels::LogSumExp{x.dtype(), rows, channels, x.raw(), floats(y)});
  if (autograd::recording({x}))
    autograd::record(
        y, "logsumexp", {x},
        [rows, channels, x = autograd::Saved(x), y = autograd::Saved(y)](const Tensor& dy, autograd::Gradients& to) {
          const Tensor input = x.get();
          Tensor dx = Tensor::empty_like(input);
          compute(dy.device(), kernels::LogSumExpGradient{input.dtype(), rows, channels, input.raw(), floats(y.get()),
                                                          floats(dy), dx.raw()});
          to.give(0, std::move(dx));
        });
  return y;
}

Tensor inner_product(const Tensor& a, const Tensor& b) {
  const DeviceScope device(a.device());
  if (a.numel() != b.numel() || a.dtype() != b.dtype())
    fail(fmt::format("inner_product: {} and {} do not match", to_string(a.shape()), to_string(b.shape())));
  Tensor product = Tensor::empty_like(a), y = Tensor::empty({1});
  compute(a.device(),
          kernels::Combine{kernels::Binary::multiply, a.dtype(), a.numel(), a.raw(), b.raw(), product.raw()});
  compute(a.device(), kernels::Sum{a.dtype(), a.numel(), product.raw(), floats(y)});
  if (autograd::recording({a}))
    autograd::record(
        y, "inner_product", {a},
        [b = autograd::Saved(b), like = a.shape(), segments = a.segments()](Tensor dy, autograd::Gradients& to) {
          const Tensor factor = b.get();
          Tensor dx = segments.empty() ? Tensor::empty(like, factor.dtype())
                                       : Tensor::images(segments, like[1], factor.dtype());
          compute(dy.device(), kernels::Scale{dx.dtype(), dx.numel(), factor.raw(), 1.f, dx.raw(), floats(dy)});
          to.give(0, std::move(dx));
        });
  return y;
}

Tensor sum(const Tensor& x) {
  Tensor ones = Tensor::empty_like(x);
  ones.fill(1.f);
  return inner_product(x, ones);
}

}  // namespace saccade
