#include <saccade/core/compute.h>
#include <saccade/core/ops/product.h>

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

}  // namespace saccade
