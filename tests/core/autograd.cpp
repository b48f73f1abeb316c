#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>

#include <vector>

namespace saccade {
namespace {

using autograd::GradientReady;
using autograd::HookStage;

Tensor leaf(std::vector<float> values) {
  const Shape shape = {1, static_cast<int64_t>(values.size())};
  Tensor t = Tensor::from(values, shape);
  t.requires_grad_();
  return t;
}

std::vector<float> values(const Tensor& t) { return {t.data<float>().begin(), t.data<float>().end()}; }

TEST(Autograd, AddsTheGradientsOfEveryUse) {
  const Tensor x = leaf({1, -2, 3});
  sum(add(add(x, x), scale(relu(x), 3.f))).backward();
  EXPECT_EQ(values(x.grad()), (std::vector<float>{5, 2, 5}));
}

TEST(Autograd, AccumulatesOverBackwards) {
  const Tensor x = leaf({1, 2});
  sum(scale(x, 2.f)).backward();
  sum(scale(x, 5.f)).backward();
  EXPECT_EQ(values(x.grad()), (std::vector<float>{7, 7}));
}

TEST(Autograd, HookRunsOnceWhenTheGradientIsComplete) {
  const Tensor x = leaf({1, 2}), w = leaf({3, 4});
  int x_calls = 0, w_calls = 0;
  std::vector<float> seen;
  const auto of_x = x.on_gradient_ready(HookStage::update, [&](GradientReady& ready) {
    ++x_calls;
    seen = values(ready.leaf.grad());
  });
  const auto of_w = w.on_gradient_ready(HookStage::update, [&](GradientReady&) { ++w_calls; });
  sum(add(add(scale(x, 2.f), w), x)).backward();
  EXPECT_EQ(x_calls, 1);
  EXPECT_EQ(w_calls, 1);
  EXPECT_EQ(seen, (std::vector<float>{3, 3}));
}

TEST(Autograd, HookMayDropTheGradient) {
  const Tensor x = leaf({1, 2});
  const auto hook = x.on_gradient_ready(HookStage::update, [](GradientReady& ready) { ready.leaf.set_grad({}); });
  sum(scale(x, 2.f)).backward();
  EXPECT_FALSE(x.grad().defined());
}

TEST(Autograd, NothingIsRecordedWithoutGrad) {
  const Tensor x = leaf({1, 2});
  const NoGradScope scope;
  EXPECT_FALSE(scale(x, 2.f).requires_grad());
}

TEST(Autograd, RefusesASavedTensorThatWasModified) {
  const Tensor x = leaf({1, 2});
  Tensor y;
  {
    const LayerScope scope("trunk.block1");
    y = sigmoid(x);
  }
  const Tensor loss = sum(y);
  y.fill(0.f);
  try {
    loss.backward();
    FAIL() << "backward used a modified tensor";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("sigmoid"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("trunk.block1"), std::string::npos) << e.what();
  }
}

TEST(Autograd, RefusesASecondBackwardOverAFreedTape) {
  const Tensor x = leaf({1, 2});
  const Tensor loss = sum(scale(x, 2.f));
  loss.backward();
  EXPECT_THROW(loss.backward(), Error);
}

TEST(Autograd, FreesSavedTensorsOnTheWay) {
  const Tensor x = leaf(std::vector<float>(1 << 16, 1.f));
  const int64_t before = allocator(Device::cpu).stats().total.live;
  {
    Tensor y = x;
    for (int i = 0; i < 8; ++i) y = sigmoid(y);
    const Tensor loss = sum(y);
    y = Tensor();
    loss.backward();
  }
  // Only the gradient of x is left.
  EXPECT_EQ(allocator(Device::cpu).stats().total.live - before, int64_t{4} << 16);
}

TEST(Autograd, RefusesBackwardFromALeafOrAMatrix) {
  const Tensor x = leaf({1, 2});
  EXPECT_THROW(x.backward(), Error);
  EXPECT_THROW(scale(x, 2.f).backward(), Error);
}

TEST(Ops, ErrorsNameWhatWasExpectedWhatCameAndWhere) {
  const Tensor x = Tensor::images({{1, 8, 8}}, 64), w = Tensor::zeros({32, 3, 3, 32});
  const LayerScope scope("trunk.block3-1.f.b");
  try {
    conv2d(x, w, {.stride = 1, .padding = 1, .groups = 4});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(),
                 "conv2d: input has 64 channels, weight expects 32 x 4 groups = 128 (layer trunk.block3-1.f.b)");
  }
}

}  // namespace
}  // namespace saccade
