#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/ssl/eval/features.h>

#include <algorithm>
#include <cmath>
#include <span>

namespace saccade::ssl {
Tensor pool_to_grid(const Tensor& map, int64_t grid) {
  const Segment s = map.segments().front();
  const int64_t channels = map.dim(1);
  Tensor pooled = Tensor::zeros({s.n, grid * grid * channels});
  const float* in = map.data<float>().data();
  float* out = pooled.data<float>().data();
#pragma omp parallel for schedule(static)
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t cell = 0; cell < grid * grid; ++cell) {
      const int64_t i = cell / grid, j = cell % grid;
      const int64_t top = i * s.h / grid, bottom = ((i + 1) * s.h + grid - 1) / grid;
      const int64_t left = j * s.w / grid, right = ((j + 1) * s.w + grid - 1) / grid;
      float* sum = out + (n * grid * grid + cell) * channels;
      for (int64_t y = top; y < bottom; ++y)
        for (int64_t x = left; x < right; ++x) {
          const float* pixel = in + ((n * s.h + y) * s.w + x) * channels;
          for (int64_t c = 0; c < channels; ++c) sum[c] += pixel[c];
        }
      const float share = 1.f / static_cast<float>((bottom - top) * (right - left));
      for (int64_t c = 0; c < channels; ++c) sum[c] *= share;
    }
  return pooled;
}

Tensor features(nn::Trunk& trunk, const ImageRange& images, int64_t count, int64_t batch, int64_t grid) {
  if (count < 1 || batch < 1 || grid < 1)
    fail(fmt::format("features: {} images in batches of {}, grid {}; all must be positive", count, batch, grid));
  const NoGradScope no_grad;
  const EvaluationScope evaluation(trunk);
  const Device device = trunk.device();
  const DeviceScope here(Device::cpu);  // where images come from and features go
  Tensor all;
  for (int64_t first = 0; first < count; first += batch) {
    const int64_t last = std::min(count, first + batch);
    const Tensor given = images(first, last).to(device);
    Tensor pooled;
    {
      const DeviceScope there(device);
      pooled = grid == 1 ? trunk.features(given) : trunk(given);
    }
    pooled = pooled.to(Device::cpu);
    if (grid > 1) pooled = pool_to_grid(pooled, grid);
    if (pooled.dim(0) != last - first)
      fail(fmt::format("features: images [{}, {}) were asked for, {} came", first, last, pooled.dim(0)));
    if (!all.defined()) all = Tensor::empty({count, pooled.dim(1)}, pooled.dtype());
    all.slice(first, last).copy_from(pooled);
  }
  return all;
}

std::string where_not_finite(nn::Trunk& trunk, const Tensor& images) {
  const NoGradScope no_grad;
  const EvaluationScope evaluation(trunk);
  const DeviceScope there(trunk.device());
  const auto is_finite = [](const Tensor& t) {
    const Tensor here = t.to(Device::cpu).to(DType::f32);
    return std::ranges::all_of(here.data<float>(), [](float v) { return std::isfinite(v); });
  };
  if (!is_finite(images)) return "the image as it is shown to the network is not";
  std::string where;
  const nn::OutputHook hook([&](const std::string& layer, const Tensor& output) {
    if (where.empty() && !is_finite(output)) where = layer;
  });
  const bool finite = is_finite(trunk.features(images.to(trunk.device())));
  if (finite) return "";
  return where.empty() ? "its mean over the map is not"
                       : fmt::format("the layer {} is the first whose result is not", where);
}

Tensor gather_rows(const Tensor& matrix, const std::vector<int64_t>& rows) {
  const DeviceScope there(matrix.device());
  Tensor chosen = Tensor::empty({static_cast<int64_t>(rows.size()), matrix.dim(1)}, matrix.dtype());
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto to = static_cast<int64_t>(i);
    chosen.slice(to, to + 1).copy_from(matrix.slice(rows[i], rows[i] + 1));
  }
  return chosen;
}

void scale_to_unit_length(const Tensor& rows) {
  const std::span<float> all = rows.data<float>();
  const auto width = static_cast<size_t>(rows.dim(1));
  for (size_t first = 0; first < all.size(); first += width) {
    const auto row = all.subspan(first, width);
    double squares = 0;
    for (const float v : row) squares += double{v} * double{v};
    const auto scale = static_cast<float>(1 / std::max(std::sqrt(squares), 1e-12));
    for (float& v : row) v *= scale;
  }
}

}  // namespace saccade::ssl
