// An op of one's own, outside the library: docs/adding-an-op.md walks through this file.
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <support/own_op.h>

#include <cmath>
#include <string>

namespace saccade::testing {
namespace {

// The kernels: plain pointers in, plain pointers out, of the CPU's memory. data() refuses any other.
void silu_forward(int64_t n, const float* x, float* y) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] / (1.f + std::exp(-x[i]));
}

void silu_backward(int64_t n, const float* x, const float* dy, float* dx) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < n; ++i) {
    const float s = 1.f / (1.f + std::exp(-x[i]));
    dx[i] = dy[i] * s * (1.f + x[i] * (1.f - s));
  }
}

}  // namespace

Tensor silu(const Tensor& x) {
  if (x.dtype() != DType::f32) fail("silu: expected an f32 tensor, got " + std::string(name_of(x.dtype())));
  Tensor y = Tensor::empty_like(x);
  if (x.device() != Device::meta) silu_forward(x.numel(), x.data<float>().data(), y.data<float>().data());
  if (autograd::recording({x}))
    autograd::record(y, "silu", {x}, [x = autograd::Saved(x)](Tensor dy, autograd::Gradients& to) {
      const Tensor input = x.get();
      Tensor dx = dy.owns_memory_alone() ? dy : Tensor::empty_like(dy);
      if (dy.device() != Device::meta)
        silu_backward(dy.numel(), input.data<float>().data(), dy.data<float>().data(), dx.data<float>().data());
      dy = Tensor();
      to.give(0, dx);
    });
  return y;
}

OpCase silu_case() {
  const Segments ragged = {{2, 7, 6}, {3, 4, 5}};
  return {"own_silu",
          {{{total_rows(ragged), 11}, ragged}},
          [](const std::vector<Tensor>& t) { return silu(t[0]); },
          [](const std::vector<reference::Values>& v) {
            reference::Values y = v[0];
            for (double& x : y) x = x / (1 + std::exp(-x));
            return y;
          }};
}

}  // namespace saccade::testing
