#include <saccade/core/autograd.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/vision/baselines.h>
#include <saccade/vision/features.h>

#include <algorithm>
#include <cmath>

namespace saccade::vision {
namespace {

/// Columns [first, first + width) of a matrix, as one.
Tensor columns(const Tensor& matrix, int64_t first, int64_t width) {
  const DeviceScope here(Device::cpu);
  Tensor part = Tensor::empty({matrix.dim(0), width});
  const float* from = matrix.data<float>().data() + first;
  float* to = part.data<float>().data();
  for (int64_t row = 0; row < matrix.dim(0); ++row) std::copy_n(from + row * matrix.dim(1), width, to + row * width);
  return part;
}

/// Matrices of as many rows, side by side.
Tensor side_by_side(const std::vector<Tensor>& parts) {
  const DeviceScope here(Device::cpu);
  const int64_t rows = parts.front().dim(0);
  int64_t width = 0;
  for (const Tensor& part : parts) width += part.dim(1);
  Tensor all = Tensor::empty({rows, width});
  float* to = all.data<float>().data();
  for (int64_t row = 0; row < rows; ++row)
    for (const Tensor& part : parts) to = std::copy_n(part.data<float>().data() + row * part.dim(1), part.dim(1), to);
  return all;
}

}  // namespace

int pixel_side(int size, int64_t channels) {
  const auto most = static_cast<int>(std::sqrt(1024. / static_cast<double>(channels)));
  return std::max(1, std::min({size, 32, most}));
}

std::vector<data::Rows> features_and_pixels(const std::vector<nn::Trunk*>& trunks, const ssl::TrunkInfo& info,
                                            const data::Source& source, int workers) {
  const NoGradScope no_grad;
  std::vector<int64_t> widths;
  const auto compute = [&](const Tensor& images) {
    std::vector<Tensor> parts;
    for (nn::Trunk* trunk : trunks) {
      const ssl::EvaluationScope evaluation(*trunk);
      const DeviceScope there(trunk->device());
      parts.push_back(trunk->features(images.to(trunk->device())).to(Device::cpu));
    }
    parts.push_back(ssl::pool_to_grid(images, pixel_side(info.size, images.dim(1))));
    widths.clear();
    for (const Tensor& part : parts) widths.push_back(part.dim(1));
    return side_by_side(parts);
  };
  const auto explain = [&](const Tensor& image) {
    std::string why;
    for (size_t i = 0; i < trunks.size() && why.empty(); ++i) why = ssl::where_not_finite(*trunks[i], image);
    return why;
  };
  data::Rows all = data::compute_rows(source, view_of(info), compute, {.batch = 32, .workers = workers}, explain);
  std::vector<data::Rows> result;
  int64_t first = 0;
  for (const int64_t width : widths) {
    result.push_back({columns(all.rows, first, width), all.indices, all.labels, all.failures});
    first += width;
  }
  return result;
}

ssl::Baselines knn_baselines(nn::Trunk& untrained, const ssl::TrunkInfo& info, const data::LabelledPair& images,
                             const ssl::KnnOptions& options, int workers) {
  const std::vector<data::Rows> bank = features_and_pixels({&untrained}, info, images.train, workers),
                                queries = features_and_pixels({&untrained}, info, images.test, workers);
  const auto right = [&](size_t of) {
    return ssl::accuracy(ssl::knn_classify(bank[of].rows, bank[of].labels, queries[of].rows, options),
                         queries[of].labels);
  };
  return {{"raw pixels", right(1)}, {"untrained network", right(0)}};
}

}  // namespace saccade::vision
