// An op of your own with its gradient, in a program of your own: softplus(x) = log(1 + e^x).
//
//   own_op
//
// It prints the op's value and slope at some points, the slope once by backward and once by differences:
//   x  -2.000   softplus   0.127   slope   0.119   by differences   0.119
// docs/adding-an-op.md tells how an op joins the library, with kernels for every device.
#include <saccade/saccade.h>

#include <cmath>
#include <cstdio>
#include <vector>

using namespace saccade;

// The kernels: plain pointers in, plain pointers out.
void softplus_forward(int64_t n, const float* x, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = std::fmax(x[i], 0.f) + std::log1p(std::exp(-std::fabs(x[i])));
}
void softplus_backward(int64_t n, const float* x, const float* dy, float* dx) {
  for (int64_t i = 0; i < n; ++i) dx[i] = dy[i] / (1.f + std::exp(-x[i]));
}

/// Forward, then its backward, which saves what it needs. On the meta device nothing is computed, but all is allocated.
Tensor softplus(const Tensor& x) {
  if (x.dtype() != DType::f32 || x.device() == Device::cuda) fail("softplus: computes in f32 on the CPU alone");
  Tensor y = Tensor::empty_like(x);
  if (x.device() == Device::cpu) softplus_forward(x.numel(), x.data<float>().data(), y.data<float>().data());
  if (autograd::recording({x}))
    autograd::record(y, "softplus", {x}, [saved = autograd::Saved(x)](Tensor dy, autograd::Gradients& to) {
      const Tensor x = saved.get();
      const Tensor dx = Tensor::empty_like(dy);
      if (dy.device() == Device::cpu)
        softplus_backward(dy.numel(), x.data<float>().data(), dy.data<float>().data(), dx.data<float>().data());
      to.give(0, dx);
    });
  return y;
}

int main() try {
  const std::vector<float> points{-2, -0.5f, 0, 1, 3};
  Tensor x = Tensor::from(points, {5});
  x.requires_grad_();
  const Tensor y = softplus(x);
  sum(y).backward();
  const auto value_at = [](float point) {
    const NoGradScope no_grad;
    return double{softplus(Tensor::from(std::vector<float>{point}, {1})).data<float>()[0]};
  };
  for (size_t i = 0; i < points.size(); ++i)
    std::printf("x %7.3f   softplus %7.3f   slope %7.3f   by differences %7.3f\n", double{points[i]},
                double{y.data<float>()[i]}, double{x.grad().data<float>()[i]},
                (value_at(points[i] + .01f) - value_at(points[i] - .01f)) / .02);
} catch (const std::exception& error) {
  std::fprintf(stderr, "own_op: %s\n", error.what());
  return 1;
}
