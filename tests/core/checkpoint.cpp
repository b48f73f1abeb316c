// Recomputation: lean saving and checkpoint() give the bits of the plain run, and keep less.
#include <gtest/gtest.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>

#include <cstring>
#include <functional>
#include <vector>

namespace saccade {
namespace {

/// A bottleneck: 1x1, batch norm, grouped 3x3, batch norm, squeeze-excite, 1x1, batch norm onto the input.
struct Block {
  explicit Block(uint64_t seed) : random(seed) {
    for (const int64_t k : {1, 3, 1}) {
      weights.push_back(parameter({16, k, k, k == 3 ? 8 : 16}));
      for (const float first : {1.f, 0.f}) weights.push_back(parameter({16}, first));
      running.push_back(Tensor::zeros({16}));
      running.push_back(Tensor::full({16}, 1.f));
    }
    for (const Shape& shape : {Shape{4, 16}, Shape{4}, Shape{16, 4}, Shape{16}}) weights.push_back(parameter(shape));
  }
  Tensor parameter(const Shape& shape, float around = 0.f) {
    Tensor t = Tensor::empty(shape);
    if (t.device() == Device::cpu)
      for (float& v : t.data<float>()) v = around + random.uniform(-0.4f, 0.4f);
    return t.requires_grad_();
  }
  Tensor norm(size_t i, const Tensor& x, const Tensor& residual = {}) const {
    return batch_norm(x, weights[3 * i + 1], weights[3 * i + 2], running[2 * i], running[2 * i + 1], {.relu = true},
                      residual);
  }
  Tensor operator()(const Tensor& images) const {
    const Tensor x = autocast(images);
    Tensor y = norm(0, conv2d(x, weights[0], {}));
    y = norm(1, conv2d(y, weights[3], {.padding = 1, .groups = 2}));
    y = squeeze_excite(y, weights[9], weights[10], weights[11], weights[12]);
    return norm(2, conv2d(y, weights[6], {}), x);
  }
  Philox random;
  std::vector<Tensor> weights, running;
};

/// All that a run of two blocks leaves: output, gradients of input and parameters, running statistics.
struct Result {
  std::vector<Tensor> tensors;
  int64_t kept = 0;  ///< bytes of activations that wait for backward
  int64_t peak = 0;  ///< over the whole run
};

Result run(const std::function<Tensor(const Block&, const Block&, const Tensor&)>& forward, DType precision) {
  const AutocastScope autocast(precision);
  const Block a(1), b(2);
  Tensor x = Tensor::images({{2, 9, 8}, {3, 5, 6}}, 16);
  Philox random(3);
  if (x.device() == Device::cpu)
    for (float& v : x.data<float>()) v = random.uniform(-1.f, 1.f);
  x.requires_grad_();
  Allocator& memory = allocator(x.device());
  memory.reset_peaks();
  const int64_t before = memory.stats()[Tag::activations].live, all_before = memory.stats().total.live;
  Tensor y = forward(a, b, x);
  Result result;
  result.kept = memory.stats()[Tag::activations].live - before;
  result.tensors = {y.detach()};
  const Tensor loss = sum(cast(y, DType::f32));
  y = Tensor();
  loss.backward();
  result.peak = memory.stats().total.peak - all_before;
  result.tensors.push_back(x.grad());
  for (const Block* block : {&a, &b}) {
    for (const Tensor& w : block->weights) result.tensors.push_back(w.grad());
    for (const Tensor& r : block->running) result.tensors.push_back(r);
  }
  return result;
}

void expect_same_bits(const Result& a, const Result& b) {
  ASSERT_EQ(a.tensors.size(), b.tensors.size());
  for (size_t i = 0; i < a.tensors.size(); ++i) {
    ASSERT_TRUE(a.tensors[i].defined() && b.tensors[i].defined()) << i;
    EXPECT_EQ(std::memcmp(a.tensors[i].raw(), b.tensors[i].raw(), a.tensors[i].bytes()), 0) << "tensor " << i;
  }
}

Tensor plain(const Block& a, const Block& b, const Tensor& x) { return b(a(x)); }
Tensor lean(const Block& a, const Block& b, const Tensor& x) {
  const KeepScope keep(Keep::lean);
  return plain(a, b, x);
}
Tensor checkpointed(const Block& a, const Block& b, const Tensor& x) {
  return checkpoint([&](const std::vector<Tensor>& in) { return plain(a, b, in[0]); }, {x});
}
Tensor nested(const Block& a, const Block& b, const Tensor& x) {
  return checkpoint(
      [&](const std::vector<Tensor>& in) {
        const KeepScope keep(Keep::lean);
        return b(checkpoint([&](const std::vector<Tensor>& inner) { return a(inner[0]); }, {in[0]}));
      },
      {x});
}

class Recomputation : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Precisions, Recomputation, ::testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(Recomputation, GivesTheBitsOfThePlainRun) {
  const Result expected = run(plain, GetParam());
  expect_same_bits(run(lean, GetParam()), expected);
  expect_same_bits(run(checkpointed, GetParam()), expected);
  expect_same_bits(run(nested, GetParam()), expected);
}

TEST_P(Recomputation, RealAndMetaUseTheSameBytes) {
  for (const auto& forward : {plain, lean, checkpointed, nested}) {
    run(forward, GetParam());  // fills the primitive cache
    const Result real = run(forward, GetParam());
    const DeviceScope scope(Device::meta);
    const Result meta = run(forward, GetParam());
    EXPECT_EQ(meta.kept, real.kept);
    EXPECT_EQ(meta.peak, real.peak);
  }
}

TEST(Lean, ABottleneckKeepsItsConvolutionOutputsAndItsOwnOutput) {
  const DeviceScope meta(Device::meta);
  const int64_t u = (2 * 9 * 8 + 3 * 5 * 6) * 16 * 4, vectors = 2 * (3 * 2 * 2 * 16 + 5 * (16 + 16 + 4)) * 4 + 64 * 64;
  const int64_t eager_bytes = run(plain, DType::f32).kept, lean_bytes = run(lean, DType::f32).kept;
  EXPECT_GE(eager_bytes, 2 * 7 * u);
  EXPECT_LE(eager_bytes, 2 * 7 * u + vectors);
  EXPECT_GE(lean_bytes, 2 * 4 * u);
  EXPECT_LE(lean_bytes, 2 * 4 * u + vectors);
}

TEST(Checkpoint, KeepsNothingButItsInput) {
  const DeviceScope meta(Device::meta);
  EXPECT_EQ(run(checkpointed, DType::f32).kept, (2 * 9 * 8 + 3 * 5 * 6) * 16 * 4);  // its output; x was there
}

TEST(Checkpoint, RestoresTheGenerator) {
  Philox random(7);
  Tensor w = Tensor::full({4, 4}, 1.f);
  w.requires_grad_();
  const auto noisy = [&](const std::vector<Tensor>& in) {
    Tensor noise = Tensor::empty({4, 4});
    for (float& v : noise.data<float>()) v = random.uniform();
    return linear(add(in[0], noise), w);
  };
  const Tensor x = Tensor::full({4, 4}, 1.f);
  sum(noisy({x})).backward();
  const Tensor expected = w.grad();
  const uint32_t next = Philox(random).next_u32();
  random = Philox(7);
  w.set_grad({});
  const Tensor y = checkpoint(noisy, {x}, {&random});
  sum(y).backward();
  EXPECT_EQ(std::memcmp(w.grad().raw(), expected.raw(), expected.bytes()), 0);
  EXPECT_EQ(Philox(random).next_u32(), next) << "the second run must not advance the generator";
}

TEST(Checkpoint, HookOfASharedParameterRunsOnceWhenAllUsesHaveContributed) {
  const Tensor x = Tensor::full({2, 3}, 2.f);
  Tensor w = Tensor::full({3, 3}, 1.f);
  w.requires_grad_();
  int calls = 0;
  float seen = 0;
  const auto hook = w.on_gradient_ready(autograd::HookStage::update, [&](autograd::GradientReady& ready) {
    ++calls;
    seen = ready.leaf.grad().data<float>()[0];
  });
  const Tensor inside = checkpoint([&](const std::vector<Tensor>& in) { return linear(in[0], w); }, {x});
  sum(add(inside, linear(x, w))).backward();
  EXPECT_EQ(calls, 1);
  EXPECT_FLOAT_EQ(seen, 8.f);
}

TEST(Checkpoint, HooksRunAsTheSecondRunCompletesEachLayer) {
  // Both gradients are never there at the same time when each is dropped in its hook.
  Tensor x = Tensor::full({2, 64}, 1.f);
  std::vector<Tensor> w;
  std::vector<std::shared_ptr<const autograd::Hook>> hooks;
  int64_t most = 0, live = 0;
  for (int i = 0; i < 2; ++i) {
    w.push_back(Tensor::full({64, 64}, 0.1f));
    w.back().requires_grad_();
    hooks.push_back(w.back().on_gradient_ready(autograd::HookStage::update, [&](autograd::GradientReady& ready) {
      ++live;
      most = std::max(most, live);
      EXPECT_EQ(allocator(Device::cpu).stats()[Tag::gradients].live, 64 * 64 * 4);
      ready.leaf.set_grad({});
      --live;
    }));
  }
  sum(checkpoint([&](const std::vector<Tensor>& in) { return linear(linear(in[0], w[0]), w[1]); }, {x})).backward();
  EXPECT_EQ(most, 1);
}

TEST(Checkpoint, RefusesAChangedParameterAndAnotherComputation) {
  Tensor x = Tensor::full({2, 3}, 2.f), w = Tensor::full({3, 3}, 1.f), other = Tensor::full({3, 3}, 1.f);
  w.requires_grad_();
  other.requires_grad_();
  const Tensor y = sum(checkpoint([&](const std::vector<Tensor>& in) { return linear(in[0], w); }, {x}));
  w.fill(2.f);
  EXPECT_THROW(y.backward(), Error);
  int runs = 0;
  const Tensor z =
      sum(checkpoint([&](const std::vector<Tensor>& in) { return linear(in[0], ++runs == 1 ? w : other); }, {x}));
  EXPECT_THROW(z.backward(), Error);
}

TEST(Checkpoint, WithoutGradientsIsAPlainCall) {
  const Tensor x = Tensor::full({2, 3}, 2.f), w = Tensor::full({3, 3}, 1.f);
  int runs = 0;
  const auto fn = [&](const std::vector<Tensor>& in) {
    ++runs;
    return linear(in[0], w);
  };
  EXPECT_FALSE(checkpoint(fn, {x}).requires_grad());
  const NoGradScope off;
  EXPECT_FALSE(checkpoint(fn, {x}).requires_grad());
  EXPECT_EQ(runs, 2);
}

}  // namespace
}  // namespace saccade
