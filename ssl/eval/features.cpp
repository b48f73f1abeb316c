#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/ssl/eval/features.h>

#include <algorithm>

namespace saccade::ssl {

Tensor features(nn::Trunk& trunk, const ImageRange& images, int64_t count, int64_t batch) {
  if (count < 1 || batch < 1)
    fail(fmt::format("features: {} images in batches of {}; both must be positive", count, batch));
  const NoGradScope no_grad;
  const EvaluationScope evaluation(trunk);
  Tensor all;
  for (int64_t first = 0; first < count; first += batch) {
    const int64_t last = std::min(count, first + batch);
    const Tensor pooled = trunk.features(images(first, last));
    if (pooled.dim(0) != last - first)
      fail(fmt::format("features: images [{}, {}) were asked for, {} came", first, last, pooled.dim(0)));
    if (!all.defined()) all = Tensor::empty({count, pooled.dim(1)}, pooled.dtype());
    all.slice(first, last).copy_from(pooled);
  }
  return all;
}

Tensor gather_rows(const Tensor& matrix, const std::vector<int64_t>& rows) {
  const Tensor chosen = Tensor::empty({static_cast<int64_t>(rows.size()), matrix.dim(1)}, matrix.dtype());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto to = static_cast<int64_t>(i);
    chosen.slice(to, to + 1).copy_from(matrix.slice(rows[i], rows[i] + 1));
  }
  return chosen;
}

}  // namespace saccade::ssl
