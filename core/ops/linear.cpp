#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias,
             const Tensor& y) {
  const kernels::MatMul problem{.m = y.dim(0),
                                .n = y.dim(1),
                                .k = transpose_a ? a.dim(0) : a.dim(1),
                                .transpose_a = transpose_a,
                                .transpose_b = transpose_b,
                                .dtype = a.dtype(),
                                .out_dtype = y.dtype()};
  compute(y.device(),
          kernels::MatrixProduct{problem, a.raw(), b.raw(), bias.defined() ? bias.raw() : nullptr, y.raw()});
}

Tensor linear(const Tensor& input, const Tensor& weight, const Tensor& bias) {
  const DeviceScope device(input.device());
  const Tensor x = autocast(input);
  if (x.rank() != 2 || weight.rank() != 2 || x.dim(1) != weight.dim(1))
    fail(fmt::format("linear: input {} does not fit weight (out, in) = {}", to_string(x.shape()),
                     to_string(weight.shape())));
  if (bias.defined() && bias.shape() != Shape{weight.dim(0)})
    fail(fmt::format("linear: bias {} for {} outputs", to_string(bias.shape()), weight.dim(0)));
  if (x.dtype() != weight.dtype() && weight.dtype() != DType::f32)
    fail(fmt::format("linear: input is {}, the weight is {}", name_of(x.dtype()), name_of(weight.dtype())));
  const int64_t rows = x.dim(0), in = x.dim(1), out = weight.dim(0);
  Tensor y = Tensor::empty({rows, out}, x.dtype());
  product(x, false, parameter_as(x.dtype(), weight), true, parameter_as(x.dtype(), bias), y);
  if (autograd::recording({x, weight, bias}))
    autograd::record(
        y, "linear", {x, weight, bias},
        [rows, in, out, dtype = x.dtype(), weight_type = weight.dtype(),
         x = weight.requires_grad() ? autograd::Saved(x) : autograd::Saved(),
         w = x.requires_grad() ? autograd::Saved(weight) : autograd::Saved()](Tensor dy, autograd::Gradients& to) {
          if (to.wanted(2)) {
            const TagScope tag(Tag::gradients);
            Tensor db = Tensor::empty({out}, DType::f32);
            compute(dy.device(), kernels::ColumnSum{dtype, rows, out, dy.raw(), floats(db)});
            to.give(2, std::move(db));
          }
          if (to.wanted(0)) {
            Tensor dx = Tensor::empty({rows, in}, dtype);
            product(dy, false, parameter_as(dtype, w.get()), false, {}, dx);
            to.give(0, std::move(dx));
          }
          // Only now: who gets the weight's gradient may update the weight at once.
          if (to.wanted(1)) {
            const TagScope tag(Tag::gradients);
            Tensor dw = Tensor::empty({out, in});
            product(dy, true, x.get(), false, {}, dw);
            dy = Tensor();
            to.give(1, gradient_as(weight_type, std::move(dw)));
          }
        });
  return y;
}

}  // namespace saccade
