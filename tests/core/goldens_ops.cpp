// Single operations against PyTorch's (tests/goldens/ops.py): forward and all gradients, whole.
#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <support/golden.h>

#include <string>
#include <utility>
#include <vector>

namespace saccade {
namespace {

constexpr double kTolerance = 2e-6;  // of the norm; the sums here are short

const golden::File& file() {
  static const golden::File ops(SACCADE_GOLDENS "/ops.safetensors");
  return ops;
}

/// One operation of the golden file: makes its leaves and compares what comes out.
class Case {
 public:
  explicit Case(std::string name) : name_(std::move(name)) {}

  int64_t operator[](std::string_view key) const { return static_cast<int64_t>(file().setting(name_, key)); }

  Tensor images(const std::string& leaf, Segment segment, int64_t channels, double scale = 1.0) {
    const auto values = golden::signed_values(name_ + "." + leaf, segment.rows() * channels, scale);
    return keep(leaf, golden::images(values, segment, channels));
  }
  Tensor values(const std::string& leaf, Shape shape, double scale = 1.0) {
    int64_t count = 1;
    for (const int64_t extent : shape) count *= extent;
    return keep(leaf, Tensor::from(golden::signed_values(name_ + "." + leaf, count, scale), std::move(shape)));
  }
  Tensor parameter(const std::string& leaf, const Shape& shape) {
    return keep(leaf, golden::parameter(name_ + "." + leaf, shape));
  }
  Tensor buffer(const std::string& what, const Shape& shape) { return golden::parameter(name_ + "." + what, shape); }

  void expect(const std::string& what, const Tensor& ours) const {
    EXPECT_LE(golden::relative_error(ours, file()[name_ + "." + what]), kTolerance) << name_ << " " << what;
  }

  /// Compares the output, goes backward from the upstream gradient, compares the leaves' gradients.
  void finish(const Tensor& y) {
    expect("output", y);
    if (y.numel() == 1) {
      y.backward();
    } else {
      const auto upstream = golden::signed_values(name_ + ".upstream", y.numel());
      const Tensor weights =
          y.is_images() ? golden::images(upstream, y.segments().front(), y.dim(1)) : Tensor::from(upstream, y.shape());
      inner_product(y, weights).backward();
    }
    for (const auto& [leaf, tensor] : leaves_) {
      ASSERT_TRUE(tensor.grad().defined()) << name_ << " " << leaf;
      expect(leaf + ".grad", tensor.grad());
    }
  }

 private:
  Tensor keep(const std::string& leaf, Tensor tensor) {
    tensor.requires_grad_();
    leaves_.emplace_back(leaf, tensor);
    return tensor;
  }

  std::string name_;
  std::vector<std::pair<std::string, Tensor>> leaves_;
};

class GoldenConvolution : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenConvolution, IsPyTorchs) {
  Case c(std::string("conv2d.") + GetParam());
  const int64_t k = c["kernel"], groups = c["groups"];
  const Tensor x = c.images("input", {c["n"], c["h"], c["w"]}, c["in"]);
  const Tensor weight = c.parameter("weight", {c["out"], k, k, c["in"] / groups});
  c.finish(conv2d(x, weight, {.stride = c["stride"], .padding = c["padding"], .groups = groups}));
}

INSTANTIATE_TEST_SUITE_P(Goldens, GoldenConvolution,
                         ::testing::Values("3x3", "3x3_stride2", "7x7_stride2", "1x1", "1x1_stride2", "group8",
                                           "group8_stride2", "group16", "group24"));

TEST(GoldenOps, Linear) {
  Case c("linear");
  const Tensor x = c.values("input", {c["n"], c["in"]});
  const Tensor weight = c.parameter("weight", {c["out"], c["in"]}), bias = c.parameter("bias", {c["out"]});
  c.finish(linear(x, weight, bias));
}

class GoldenBatchNorm : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenBatchNorm, IsPyTorchs) {
  const std::string variant = GetParam();
  Case c("batch_norm." + variant);
  const Segment segment{c["n"], c["h"], c["w"]};
  const int64_t channels = c["c"];
  const Tensor x = c.images("input", segment, channels, 3.0);
  const Tensor gamma = c.parameter("weight", {channels}), beta = c.values("bias", {channels}, 0.5);
  const Tensor mean = c.buffer("running_mean", {channels}), var = c.buffer("running_var", {channels});
  const Tensor residual = variant == "residual_relu" ? c.images("residual", segment, channels) : Tensor();
  c.finish(batch_norm(x, gamma, beta, mean, var, {.relu = variant != "plain"}, residual));
  c.expect("running_mean.after", mean);
  c.expect("running_var.after", var);
}

INSTANTIATE_TEST_SUITE_P(Goldens, GoldenBatchNorm, ::testing::Values("plain", "relu", "residual_relu"));

TEST(GoldenOps, MaxPool) {
  Case c("max_pool.3x3_stride2");
  const Tensor x = c.images("input", {c["n"], c["h"], c["w"]}, c["c"]);
  c.finish(max_pool2d(x, {.kernel = 3, .stride = 2, .padding = 1}));
}

TEST(GoldenOps, GlobalAveragePool) {
  Case c("global_average_pool");
  c.finish(global_avg_pool(c.images("input", {c["n"], c["h"], c["w"]}, c["c"])));
}

TEST(GoldenOps, SqueezeExcite) {
  Case c("squeeze_excite");
  const int64_t channels = c["c"], reduced = c["reduced"];
  const Tensor x = c.images("input", {c["n"], c["h"], c["w"]}, channels);
  const Tensor w1 = c.parameter("fc1.weight", {reduced, channels}), b1 = c.parameter("fc1.bias", {reduced});
  const Tensor w2 = c.parameter("fc2.weight", {channels, reduced}), b2 = c.parameter("fc2.bias", {channels});
  c.finish(squeeze_excite(x, w1, b1, w2, b2));
}

TEST(GoldenOps, SwappedPredictionOfOneCropIsCrossEntropyWithSoftTargets) {
  const std::string name = "cross_entropy.soft";
  const auto n = static_cast<int64_t>(file().setting(name, "n")), k = static_cast<int64_t>(file().setting(name, "k"));
  // Crop 0 assigns and crop 1 is predicted, so crop 0's scores do not matter.
  golden::Values scores(static_cast<size_t>(n * k), 0.25f);
  const auto predicted = golden::signed_values(name + ".input", n * k);
  scores.insert(scores.end(), predicted.begin(), predicted.end());
  Tensor leaf = Tensor::from(scores, {2 * n, k});
  leaf.requires_grad_();
  const auto temperature = static_cast<float>(file().setting(name, "temperature"));
  const Tensor loss = swapped_prediction(leaf, file()[name + ".target"].reshape({n, k}), n, temperature);
  EXPECT_LE(golden::relative_error(loss, file()[name + ".output"]), kTolerance);
  loss.backward();
  EXPECT_LE(golden::relative_error(leaf.grad().slice(n, 2 * n), file()[name + ".input.grad"]), kTolerance);
  const Tensor assigning = leaf.grad().slice(0, n);
  for (const float g : assigning.data<float>()) EXPECT_EQ(g, 0.f);
}

TEST(GoldenOps, CrossEntropyOfLabels) {
  Case c("cross_entropy.labels");
  const int64_t n = c["n"], k = c["k"];
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>(i * 3 % k));
  c.finish(cross_entropy(c.values("input", {n, k}, 3.0), Tensor::from(std::span<const int32_t>(labels), {n})));
}

TEST(GoldenOps, L2Normalize) {
  Case c("l2_normalize");
  c.finish(l2_normalize(c.values("input", {c["n"], c["c"]})));
}

}  // namespace
}  // namespace saccade
