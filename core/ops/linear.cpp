#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/backend.h>

namespace saccade {

using kernels::backend;

namespace {

void matmul(const kernels::MatMul& product, const Tensor& a, const Tensor& b, const Tensor& bias, const Tensor& c) {
  auto& device = backend(c.device());
  const Workspace workspace(c.device(), device.matmul_workspace(product));
  device.matmul(product, a.raw(), b.raw(), bias.defined() ? bias.raw() : nullptr, c.raw(), workspace.data());
}

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const DeviceScope device(x.device());
  if (x.rank() != 2 || weight.rank() != 2 || x.dim(1) != weight.dim(1))
    fail(fmt::format("linear: input {} does not fit weight (out, in) = {}", to_string(x.shape()),
                     to_string(weight.shape())));
  if (bias.defined() && bias.shape() != Shape{weight.dim(0)})
    fail(fmt::format("linear: bias {} for {} outputs", to_string(bias.shape()), weight.dim(0)));
  if (x.dtype() != weight.dtype())
    fail(fmt::format("linear: input is {}, the weight is {}", name_of(x.dtype()), name_of(weight.dtype())));
  const int64_t rows = x.dim(0), in = x.dim(1), out = weight.dim(0);
  Tensor y = Tensor::empty({rows, out}, x.dtype());
  matmul({.m = rows, .n = out, .k = in, .transpose_b = true, .dtype = x.dtype(), .out_dtype = y.dtype()}, x, weight,
         bias, y);
  if (autograd::recording({x, weight, bias}))
    autograd::record(
        y, "linear", {x, weight, bias},
        [rows, in, out, dtype = x.dtype(), x = weight.requires_grad() ? autograd::Saved(x) : autograd::Saved(),
         w = x.requires_grad() ? autograd::Saved(weight) : autograd::Saved()](Tensor dy, autograd::Gradients& to) {
          if (to.wanted(2)) {
            const TagScope tag(Tag::gradients);
            Tensor db = Tensor::empty({out}, dtype);
            backend(dy.device()).column_sum(dtype, rows, out, dy.raw(), db.raw());
            to.give(2, std::move(db));
          }
          if (to.wanted(1)) {
            const TagScope tag(Tag::gradients);
            Tensor dw = Tensor::empty({out, in}, dtype);
            matmul({.m = out, .n = in, .k = rows, .transpose_a = true, .dtype = dtype, .out_dtype = dtype}, dy, x.get(),
                   {}, dw);
            to.give(1, std::move(dw));
          }
          if (to.wanted(0)) {
            Tensor dx = Tensor::empty({rows, in}, dtype);
            matmul({.m = rows, .n = in, .k = out, .dtype = dtype, .out_dtype = dtype}, dy, w.get(), {}, dx);
            to.give(0, std::move(dx));
          }
        });
  return y;
}

}  // namespace saccade
