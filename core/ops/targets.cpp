#include <fmt/format.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/core/targets.h>

namespace saccade {

Tensor softmax(const Tensor& scores, float temperature, const Tensor& offset) {
  const DeviceScope device(scores.device());
  if (scores.rank() != 2 || scores.dtype() != DType::f32 || offset.dtype() != DType::f32 ||
      offset.shape() != Shape{scores.dim(1)} || !(temperature > 0.f))
    fail(
        fmt::format("softmax: scores {} {} with an offset {} {} and temperature {}; expected f32 (rows, K), (K) and "
                    "above 0",
                    name_of(scores.dtype()), to_string(scores.shape()), name_of(offset.dtype()),
                    to_string(offset.shape()), temperature));
  // The last step of an assignment, with potentials that are given.
  const kernels::Sinkhorn problem{.rows = scores.dim(0), .prototypes = scores.dim(1), .eps = temperature};
  Tensor q = Tensor::empty_like(scores);
  compute(scores.device(),
          kernels::SinkhornAssign{problem, static_cast<const float*>(scores.raw()),
                                  static_cast<const float*>(offset.raw()), static_cast<float*>(q.raw())});
  return q;
}

Tensor mean_rows(const Tensor& x) {
  const DeviceScope device(x.device());
  if (x.rank() != 2 || x.dim(0) < 1)
    fail(fmt::format("mean_rows: expected (rows, C) of a row at least, got {}", to_string(x.shape())));
  const Tensor total = Tensor::empty({x.dim(1)});
  compute(x.device(), kernels::ColumnSum{x.dtype(), x.dim(0), x.dim(1), x.raw(), static_cast<float*>(total.raw())});
  return scale(total, 1.f / static_cast<float>(x.dim(0)));
}

}  // namespace saccade
