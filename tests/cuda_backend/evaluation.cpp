// What a network on the device has learned, by the evaluation's own means, within a scope of the device.
#include <gtest/gtest.h>
#include <saccade/nn/interop.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/eval/fine_tune.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/linear_probe.h>
#include <saccade/ssl/eval/prototype_gallery.h>
#include <ssl/tiny.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

constexpr int64_t kImages = 48;

Tensor images_between(int64_t first, int64_t last) {
  Tensor x = tiny_batch(3, kImages, 21).images.slice(0, kImages * 256).slice(first * 256, last * 256);
  return x.with_segments({{last - first, 16, 16}});
}

struct Findings {
  Tensor features, grid, weight;
  std::vector<int> by_neighbours, by_probe, by_fine_tuning;
  std::vector<int32_t> shown;
};

Findings evaluate(Device device) {
  const DeviceScope scope(device);
  const auto trunk = tiny_trunk();
  const std::vector<int> labels = [] {
    const DeviceScope here(Device::cpu);
    return tiny_batch(3, kImages, 21).labels;
  }();
  Findings f;
  f.features = ssl::features(*trunk, images_between, kImages, 20);
  f.grid = ssl::features(*trunk, images_between, kImages, 20, 2);
  f.by_neighbours = ssl::knn_classify(f.features, labels, f.features, {.neighbours = 5, .center = true});
  f.by_probe = ssl::fit_linear_probe(f.features, labels, {.l2 = {1e-2}}).classify(f.features);
  const Tensor prototypes = ssl::gather_rows(f.features, {1, 4, 7, 9}).to(device);
  for (const ssl::PrototypeImages& p : ssl::images_of_prototypes(prototypes, f.features, 2, 3))
    f.shown.insert(f.shown.end(), p.images.begin(), p.images.end());
  for (const NamedTensor& t : nn::state_dict(*trunk, nn::Names::timm))
    if (t.name == "stem.conv.weight") f.weight = t.tensor;
  const auto batches = [](int64_t i) { return tiny_batch(i % 8); };
  f.by_fine_tuning =
      ssl::fine_tune(trunk, batches, {.classes = 8, .iterations = 4}).classify(images_between, kImages, 20);
  return f;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  double most = 0;
  for (int64_t i = 0; i < a.numel(); ++i)
    most = std::max(most, std::abs(double{a.data<float>()[static_cast<size_t>(i)]} -
                                   double{b.data<float>()[static_cast<size_t>(i)]}));
  return most;
}

TEST(CudaEvaluation, FindsWhatItFindsOnTheCpu) {
  const Findings cpu = evaluate(Device::cpu), cuda = evaluate(Device::cuda);
  ASSERT_EQ(cuda.features.shape(), cpu.features.shape());
  EXPECT_EQ(cuda.features.device(), Device::cpu);
  EXPECT_LT(largest_difference(cuda.features, cpu.features), 1e-4);
  EXPECT_LT(largest_difference(cuda.grid, cpu.grid), 1e-4);
  EXPECT_EQ(largest_difference(cuda.weight, cpu.weight), 0);
  EXPECT_GT(ssl::accuracy(cuda.by_neighbours, cpu.by_neighbours), 0.95);
  EXPECT_GT(ssl::accuracy(cuda.by_probe, cpu.by_probe), 0.95);
  EXPECT_GT(ssl::accuracy(cuda.by_fine_tuning, cpu.by_fine_tuning), 0.9);
  EXPECT_EQ(cuda.shown, cpu.shown);
  EXPECT_EQ(complaint(), "");
}

}  // namespace
}  // namespace saccade::testing
