#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/kernels/backend.h>
#include <saccade/nn/optim/loss_scale.h>
#include <saccade/nn/optim/moving_average.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/schedule.h>

#include <cmath>
#include <limits>

namespace saccade::optim {
namespace {

Tensor values(std::initializer_list<float> list) {
  const std::vector<float> v(list);
  return Tensor::from(v, {static_cast<int64_t>(v.size())});
}

NamedTensor parameter(const std::string& name, std::initializer_list<float> value,
                      std::initializer_list<float> gradient) {
  Tensor p = values(value);
  p.requires_grad_();
  if (gradient.size() > 0) p.set_grad(values(gradient));
  return {name, p};
}

/// A small network with every kind of layer that has parameters, and a loss of some images.
struct Small {
  std::shared_ptr<nn::RegNet> network = nn::regnet("y:d=2,w0=8,wa=8,wm=2,g=8", 3);
  Tensor loss(uint64_t seed) const {
    Tensor images = Tensor::images({{4, 16, 16}}, 3);
    Philox random(seed);
    if (images.device() == Device::cpu)
      for (float& x : images.data<float>()) x = random.normal();
    const Tensor features = network->features(images);
    return inner_product(features, features);
  }
};

std::string bytes_of(const std::vector<NamedTensor>& tensors) {
  std::string bytes;
  for (const NamedTensor& t : tensors)
    bytes += t.name + std::string(static_cast<const char*>(t.tensor.raw()), t.tensor.bytes());
  return bytes;
}

TEST(Sgd, MomentumAndWeightDecay) {
  const NamedTensor p = parameter("p", {1.f, -2.f}, {0.5f, 0.25f});
  Sgd sgd({p}, {.momentum = 0.9f, .weight_decay = 0.1f});
  double x = 1, y = -2, mx = 0, my = 0;
  for (int step = 0; step < 3; ++step) {
    sgd.step(0.2f);
    mx = 0.9 * mx + 0.5 + 0.1 * x;
    my = 0.9 * my + 0.25 + 0.1 * y;
    x -= 0.2 * mx;
    y -= 0.2 * my;
    EXPECT_NEAR(p.tensor.data<float>()[0], x, 1e-6);
    EXPECT_NEAR(p.tensor.data<float>()[1], y, 1e-6);
  }
}

TEST(Sgd, Nesterov) {
  const NamedTensor p = parameter("p", {1.f}, {0.5f});
  Sgd sgd({p}, {.momentum = 0.9f, .nesterov = true});
  sgd.step(0.1f);  // m = 0.5; step by g + 0.9 m
  EXPECT_NEAR(p.tensor.item(), 1 - 0.1 * (0.5 + 0.9 * 0.5), 1e-6);
  sgd.step(0.1f);  // m = 0.95
  EXPECT_NEAR(p.tensor.item(), 1 - 0.1 * 0.95 - 0.1 * (0.5 + 0.9 * 0.95), 1e-6);
}

TEST(Sgd, LarcScalesEachTensorByItsNorms) {
  const NamedTensor p = parameter("p", {3.f, 4.f}, {0.6f, 0.8f}), q = parameter("q", {0.3f, 0.4f}, {0.f, 2.f});
  Sgd sgd({p, q}, {.weight_decay = 0.5f, .trust = 0.001f});
  sgd.step(10.f);
  const double rp = 0.001 * 5 / (1 + 0.5 * 5 + 1e-8), rq = 0.001 * 0.5 / (2 + 0.5 * 0.5 + 1e-8);
  EXPECT_NEAR(p.tensor.data<float>()[0], 3 - 10 * rp * (0.6 + 0.5 * 3), 1e-6);
  EXPECT_NEAR(p.tensor.data<float>()[1], 4 - 10 * rp * (0.8 + 0.5 * 4), 1e-6);
  EXPECT_NEAR(q.tensor.data<float>()[0], 0.3 - 10 * rq * (0.0 + 0.5 * 0.3), 1e-6);
  EXPECT_NEAR(q.tensor.data<float>()[1], 0.4 - 10 * rq * (2.0 + 0.5 * 0.4), 1e-6);
}

TEST(Sgd, LarcTakesTheRawGradientWhereANormIsZero) {
  const NamedTensor fresh = parameter("fresh", {0.f, 0.f}, {0.5f, -1.f}),
                    idle = parameter("idle", {1.f, 2.f}, {0.f, 0.f});
  Sgd sgd({fresh, idle}, {.weight_decay = 0.5f, .trust = 0.001f});
  sgd.step(4.8f);
  EXPECT_NEAR(fresh.tensor.data<float>()[0], -4.8 * 0.5, 1e-6);
  EXPECT_NEAR(fresh.tensor.data<float>()[1], 4.8, 1e-6);
  EXPECT_EQ(idle.tensor.data<float>()[0], 1.f);  // no gradient, hence no decay either
  EXPECT_EQ(idle.tensor.data<float>()[1], 2.f);
}

TEST(AdamW, OneAndTwoSteps) {
  const NamedTensor p = parameter("p", {1.f, -2.f}, {0.5f, -0.01f});
  AdamW adam({p}, {.weight_decay = 0.1f});
  const double lr = 0.01;
  double x[2] = {1, -2}, m[2] = {}, v[2] = {};
  const double g[2] = {0.5, -0.01};
  for (int step = 1; step <= 2; ++step) {
    adam.step(static_cast<float>(lr));
    for (size_t i = 0; i < 2; ++i) {
      m[i] = 0.9 * m[i] + 0.1 * g[i];
      v[i] = 0.999 * v[i] + 0.001 * g[i] * g[i];
      const double mh = m[i] / (1 - std::pow(0.9, step)), vh = v[i] / (1 - std::pow(0.999, step));
      x[i] = x[i] * (1 - lr * 0.1) - lr * mh / (std::sqrt(vh) + 1e-8);
      EXPECT_NEAR(p.tensor.data<float>()[i], x[i], 2e-6) << step;
    }
  }
}

TEST(Optimizer, AParameterWithoutGradientIsLeftWhollyAlone) {
  const NamedTensor used = parameter("used", {1.f}, {1.f}), frozen = parameter("frozen", {1.f}, {});
  AdamW adam({used, frozen}, {.weight_decay = 0.5f});
  adam.step(0.1f);
  EXPECT_EQ(frozen.tensor.item(), 1.f);
  EXPECT_EQ(adam.state().size(), 3U);  // of `used` only
  // Thawed later, its bias correction starts at its own first step: |update| is lr, as at any first step of Adam.
  frozen.tensor.set_grad(values({0.01f}));
  adam.step(0.1f);
  EXPECT_NEAR(frozen.tensor.item(), 1 * (1 - 0.1 * 0.5) - 0.1, 1e-5);
}

TEST(Optimizer, GroupsScaleTheRateAndSetTheDecay) {
  const NamedTensor a = parameter("a", {1.f}, {1.f}), b = parameter("b", {1.f}, {1.f});
  Sgd sgd(std::vector<ParameterGroup>{{.parameters = {a}}, {.parameters = {b}, .lr_scale = 10.f, .weight_decay = 0.f}},
          {.weight_decay = 1.f});
  sgd.step(0.01f);
  EXPECT_NEAR(a.tensor.item(), 1 - 0.01 * 2, 1e-6);
  EXPECT_NEAR(b.tensor.item(), 1 - 0.1 * 1, 1e-6);
}

TEST(Optimizer, VectorsCanBeSparedFromDecay) {
  const NamedTensor bias = parameter("bias", {1.f}, {1.f});
  NamedTensor weight{"weight", Tensor::full({1, 1}, 1.f)};
  weight.tensor.requires_grad_();
  weight.tensor.set_grad(Tensor::full({1, 1}, 1.f));
  Sgd sgd({bias, weight}, {.weight_decay = 1.f, .decay_vectors = false});
  sgd.step(0.1f);
  EXPECT_NEAR(bias.tensor.item(), 0.9, 1e-6);
  EXPECT_NEAR(weight.tensor.item(), 0.8, 1e-6);
}

TEST(Optimizer, UpdatesCountAsInPlaceWrites) {
  const NamedTensor p = parameter("p", {1.f}, {1.f});
  const uint64_t before = p.tensor.version();
  Sgd({p}, {}).step(0.1f);
  EXPECT_GT(p.tensor.version(), before);
}

TEST(Optimizer, ZeroGradDropsGradients) {
  const NamedTensor p = parameter("p", {1.f}, {1.f});
  Sgd sgd({p}, {});
  sgd.zero_grad();
  EXPECT_FALSE(p.tensor.grad().defined());
}

TEST(Sgd, MomentumInBf16IsHalfAsLargeAndFollowsTheOneInF32) {
  const Small exact, rounded;
  Sgd one(exact.network->named_parameters(), {}),
      two(rounded.network->named_parameters(), {.momentum_dtype = DType::bf16});
  const auto before = allocator(Device::cpu).stats()[Tag::optimizer].live;
  one.reserve();
  const auto f32 = allocator(Device::cpu).stats()[Tag::optimizer].live - before;
  two.reserve();
  const auto bf16 = allocator(Device::cpu).stats()[Tag::optimizer].live - before - f32;
  EXPECT_LT(static_cast<double>(bf16), 0.6 * static_cast<double>(f32));  // small tensors are rounded up to 64 bytes
  // The same gradients for both: the mean of the roundings is nothing.
  const auto a = exact.network->named_parameters(), b = rounded.network->named_parameters();
  for (uint64_t step = 0; step < 30; ++step) {
    exact.loss(step).backward();
    for (size_t i = 0; i < a.size(); ++i) b[i].tensor.set_grad(a[i].tensor.grad());
    one.step(1e-5f);
    two.step(1e-5f);
    one.zero_grad();
    two.zero_grad();
  }
  const auto states = two.state();
  EXPECT_EQ(states[0].tensor.dtype(), DType::bf16);
  EXPECT_EQ(states[1].name, "step." + b[0].name);
  double error = 0, size = 0, bias = 0, mass = 0;
  const auto begin = Small().network->named_parameters();
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t j = 0; j < a[i].tensor.data<float>().size(); ++j) {
      const double at = double{begin[i].tensor.data<float>()[j]}, x = double{a[i].tensor.data<float>()[j]} - at,
                   y = double{b[i].tensor.data<float>()[j]} - at;
      error += (x - y) * (x - y);
      size += x * x;
      bias += (y - x) * (x < 0 ? -1 : 1);
      mass += std::abs(x);
    }
  EXPECT_GT(error, 0);
  EXPECT_LT(std::sqrt(error / size), 2e-2);
  EXPECT_LT(std::abs(bias / mass), 1e-3);
}

TEST(Optimizer, StateGoesToAnotherOptimizerAndBothContinueAlike) {
  for (const Recipe& recipe : {larc_sgd(), adamw(), larc_sgd({.momentum_dtype = DType::bf16})}) {
    const NamedTensor p = parameter("p", {1.f, 2.f}, {0.5f, -0.5f}), never = parameter("never", {1.f}, {});
    const auto one = recipe.build(std::vector{p, never});
    for (int i = 0; i < 3; ++i) one->step(0.1f);
    NamedTensor q{"p", p.tensor.clone()};
    q.tensor.requires_grad_();
    q.tensor.set_grad(p.tensor.grad());
    const auto two = recipe.build(std::vector{q, never});
    two->load_state(one->state());
    one->step(0.1f);
    two->step(0.1f);
    EXPECT_EQ(p.tensor.data<float>()[0], q.tensor.data<float>()[0]);
    EXPECT_EQ(p.tensor.data<float>()[1], q.tensor.data<float>()[1]);
  }
}

TEST(Optimizer, StateThatDoesNotFitIsRefused) {
  const NamedTensor p = parameter("p", {1.f, 2.f}, {1.f, 1.f});
  Sgd sgd({p}, {});
  EXPECT_THROW(sgd.load_state({{"momentum.q", values({1.f, 1.f})}}), Error);
  EXPECT_THROW(sgd.load_state({{"momentum.p", values({1.f})}}), Error);
  AdamW adam({p}, {});
  EXPECT_THROW(adam.load_state({{"exp_avg.p", values({1.f, 1.f})}}), Error);
  EXPECT_THROW(Sgd({p, p}, {}), Error);
  EXPECT_THROW(Sgd({p}, {.momentum_dtype = DType::f16}), Error);
  Sgd half({p}, {.momentum_dtype = DType::bf16});
  EXPECT_THROW(half.load_state({{"momentum.p", values({1.f, 1.f})}}), Error);  // of a momentum in f32
}

TEST(Optimizer, LarcRecipeIsSwavs) {
  const Recipe recipe = larc_sgd();
  EXPECT_EQ(recipe.sgd.trust, 1e-3f);
  EXPECT_EQ(recipe.sgd.momentum, 0.9f);
  EXPECT_EQ(recipe.sgd.weight_decay, 1e-6f);
  EXPECT_EQ(larc_sgd({.weight_decay = 1e-5f}).sgd.trust, 1e-3f);
}

TEST(Optimizer, RehearsedOnMetaItTakesTheMemoryOfItsStates) {
  const DeviceScope meta(Device::meta);
  const auto network = nn::regnet("y_400mf");
  for (const auto& [make, tensors] : {std::pair{larc_sgd(), 1}, std::pair{adamw(), 2}}) {
    const auto before = allocator(Device::meta).stats()[Tag::optimizer].live;
    const auto optimizer = make.build(network->named_parameters());
    optimizer->step(0.1f);
    EXPECT_EQ(allocator(Device::meta).stats()[Tag::optimizer].live, before);  // nothing has a gradient yet
    for (const NamedTensor& p : network->named_parameters()) p.tensor.set_grad(Tensor::empty_like(p.tensor));
    optimizer->step(0.1f);
    optimizer->zero_grad();
    int64_t expected = 0;
    for (const NamedTensor& p : network->named_parameters())
      expected += (static_cast<int64_t>(p.tensor.bytes()) + 63) / 64 * 64 * tensors;
    EXPECT_EQ(allocator(Device::meta).stats()[Tag::optimizer].live - before, expected);
  }
}

TEST(FusedOptimizer, GivesTheBitsOfTheSeparateOneAndLeavesNoGradient) {
  for (const Recipe& recipe : {larc_sgd(), adamw(), larc_sgd({.momentum_dtype = DType::bf16})}) {
    const Small one, two;
    const auto separate = recipe.build(one.network->named_parameters()),
               fused = recipe.build(two.network->named_parameters());
    for (uint64_t i = 0; i < 5; ++i) {
      const float lr = 0.1f / static_cast<float>(i + 1);
      one.loss(i).backward();
      separate->step(lr);
      separate->zero_grad();
      fused->backward_and_step(two.loss(i), lr);
      for (const Tensor& p : two.network->parameters()) ASSERT_FALSE(p.grad().defined());
    }
    EXPECT_EQ(bytes_of(one.network->named_tensors()), bytes_of(two.network->named_tensors()));
    EXPECT_EQ(bytes_of(separate->state()), bytes_of(fused->state()));
  }
}

TEST(FusedOptimizer, NeedsTheMemoryOfFewGradients) {
  const DeviceScope meta(Device::meta);
  const auto peak = [](bool fused) {
    const Small small;
    const auto optimizer = larc_sgd().build(small.network->named_parameters());
    optimizer->reserve();
    allocator(Device::meta).reset_peaks();
    if (fused) {
      optimizer->backward_and_step(small.loss(0), 0.1f);
    } else {
      small.loss(0).backward();
      optimizer->step(0.1f);
      optimizer->zero_grad();
    }
    const auto gradients = allocator(Device::meta).stats()[Tag::gradients];
    EXPECT_EQ(gradients.live, 0);
    return gradients.peak;
  };
  EXPECT_LT(peak(true) * 3, peak(false));
}

TEST(LossScale, HalvesOnOverflowAndDoublesAfterGoodSteps) {
  const NamedTensor p = parameter("p", {1.f, 1.f}, {65536.f, -131072.f});
  Sgd sgd({p}, {});
  LossScale scale({.growth_interval = 3});
  EXPECT_EQ(scale.value(), 65536.f);
  EXPECT_TRUE(scale.unscale(sgd));
  EXPECT_EQ(p.tensor.grad().data<float>()[0], 1.f);
  EXPECT_EQ(p.tensor.grad().data<float>()[1], -2.f);
  p.tensor.set_grad(values({1.f, std::numeric_limits<float>::infinity()}));
  EXPECT_FALSE(scale.unscale(sgd));
  EXPECT_EQ(scale.value(), 32768.f);
  p.tensor.set_grad(values({std::numeric_limits<float>::quiet_NaN(), 1.f}));
  EXPECT_FALSE(scale.unscale(sgd));
  EXPECT_EQ(scale.value(), 16384.f);
  p.tensor.set_grad(values({1.f, 1.f}));
  EXPECT_TRUE(scale.unscale(sgd));
  EXPECT_TRUE(scale.unscale(sgd));
  LossScale resumed({.growth_interval = 3});
  resumed.restore(scale.value(), scale.good_steps());
  EXPECT_TRUE(resumed.unscale(sgd));  // the third in a row
  EXPECT_EQ(resumed.value(), 32768.f);
  EXPECT_EQ(scale.value(), 16384.f);
}

TEST(Optimizer, ClipsAllGradientsByTheirCommonNorm) {
  const NamedTensor p = parameter("p", {1.f}, {3.f}), q = parameter("q", {1.f, 1.f}, {0.f, -4.f});
  Sgd sgd({p, q}, {});
  EXPECT_FLOAT_EQ(sgd.clip_gradients(10.f), 5.f);
  EXPECT_EQ(p.tensor.grad().item(), 3.f);
  EXPECT_FLOAT_EQ(sgd.clip_gradients(0.5f), 5.f);
  EXPECT_FLOAT_EQ(p.tensor.grad().item(), 0.3f);
  EXPECT_FLOAT_EQ(q.tensor.grad().data<float>()[1], -0.4f);
}

TEST(FusedOptimizer, PassesOverFrozenParametersAndPlainBackwardsAccumulateAsEver) {
  const Small small;
  const auto parameters = small.network->named_parameters();
  Tensor frozen = parameters[0].tensor;
  frozen.requires_grad_(false);
  const Tensor before = frozen.clone();
  const auto optimizer = larc_sgd().build(parameters);
  optimizer->backward_and_step(small.loss(0), 0.1f);
  EXPECT_EQ(bytes_of({{"", before}}), bytes_of({{"", frozen}}));
  EXPECT_EQ(optimizer->state().size(), parameters.size() - 1);
  const std::string now = bytes_of(parameters);
  small.loss(1).backward();
  EXPECT_EQ(bytes_of(parameters), now);
  EXPECT_TRUE(parameters[1].tensor.grad().defined());
}

TEST(FusedOptimizer, RefusesGradientsThatAccumulate) {
  const Small small;
  const auto optimizer = adamw().build(small.network->named_parameters());
  small.loss(0).backward();
  const std::string before = bytes_of(small.network->named_parameters());
  try {
    optimizer->backward_and_step(small.loss(1), 0.1f);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("has a gradient already"), std::string::npos) << error.what();
  }
  EXPECT_EQ(bytes_of(small.network->named_parameters()), before);
}

TEST(FusedOptimizer, ThatIsGoneNoLongerUpdates) {
  const Small small;
  adamw().build(small.network->named_parameters())->backward_and_step(small.loss(0), 0.1f);
  const std::string before = bytes_of(small.network->named_parameters());
  small.loss(1).backward();
  EXPECT_EQ(bytes_of(small.network->named_parameters()), before);
}

TEST(Optimizer, ReservedStatesAreNoUpdates) {
  for (const Recipe& recipe : {larc_sgd(), adamw()}) {
    const NamedTensor p = parameter("p", {1.f, 2.f}, {0.5f, -0.5f}), q = parameter("p", {1.f, 2.f}, {0.5f, -0.5f}),
                      never = parameter("never", {1.f}, {});
    const auto plain = recipe.build(std::vector{p, never}), reserved = recipe.build(std::vector{q, never});
    const auto before = allocator(Device::cpu).stats()[Tag::optimizer].live;
    reserved->reserve();
    const auto after = allocator(Device::cpu).stats()[Tag::optimizer].live;
    EXPECT_EQ(after - before, (recipe.kind == Recipe::Kind::adamw ? 4 : 2) * 64);
    EXPECT_TRUE(reserved->state().empty());
    for (int i = 0; i < 2; ++i) {
      plain->step(0.1f);
      reserved->step(0.1f);
    }
    EXPECT_EQ(bytes_of({{"", p.tensor}}), bytes_of({{"", q.tensor}}));
    EXPECT_EQ(plain->state().size(), reserved->state().size());
    const void* place = reserved->state()[0].tensor.raw();
    reserved->load_state(plain->state());
    EXPECT_EQ(reserved->state()[0].tensor.raw(), place);
    reserved->load_state({});
    EXPECT_TRUE(reserved->state().empty());
    const auto first = recipe.build(std::vector{q, never});
    reserved->step(0.f);  // as if it were the first, and the parameter stays
    first->step(0.f);
    EXPECT_EQ(bytes_of(reserved->state()), bytes_of(first->state()));
  }
}

TEST(Schedule, WarmsUpToBothEndsAndFallsByHalfACosine) {
  const WarmupCosine lr{.base = 4.8, .start = 0.3, .final = 0.0048, .warmup = 10, .total = 110};
  EXPECT_FLOAT_EQ(lr(0), 0.3f);
  EXPECT_FLOAT_EQ(lr(3), 0.3f + 4.5f * 3 / 9);
  EXPECT_FLOAT_EQ(lr(9), 4.8f);
  EXPECT_FLOAT_EQ(lr(10), 4.8f);
  EXPECT_FLOAT_EQ(lr(60), 0.0048f + 4.7952f / 2);
  EXPECT_NEAR(lr(109), 0.0048 + 4.7952 / 2 * (1 + std::cos(M_PI * 0.99)), 1e-6);
  EXPECT_FLOAT_EQ(lr(110), 0.0048f);
  EXPECT_FLOAT_EQ(lr(100000), 0.0048f);
}

TEST(Schedule, WithoutWarmUpStartsAtTheTop) {
  const WarmupCosine lr{.base = 0.6, .final = 0.0006, .total = 100};
  EXPECT_FLOAT_EQ(lr(0), 0.6f);
  EXPECT_FLOAT_EQ(lr(50), 0.0006f + 0.5994f / 2);
  EXPECT_FLOAT_EQ(Constant{0.25}(7), 0.25f);
}

TEST(MovingAverage, TensorsFollowOthersInPlaceAndWhatDoesNotMatchIsNamed) {
  const Tensor a = Tensor::full({3, 5}, 1.f), b = Tensor::full({7}, -2.f);
  const std::vector<Tensor> average = {a, b}, from = {Tensor::full({3, 5}, 3.f), Tensor::full({7}, 2.f)};
  const uint64_t before = a.version();
  optim::moving_average(average, from, 0.75f);
  EXPECT_EQ(a.data<float>()[14], 1.5f);
  EXPECT_EQ(b.data<float>()[6], -1.f);
  EXPECT_GT(a.version(), before);
  const DeviceScope meta(Device::meta);
  const std::vector<Tensor> planned = {Tensor::zeros({3, 5}), Tensor::zeros({7})};
  EXPECT_NO_THROW(optim::moving_average(planned, planned, 0.75f));
  EXPECT_THROW(optim::moving_average(average, planned, 0.75f), Error);
  EXPECT_THROW(optim::moving_average(std::vector{a}, from, 0.75f), Error);
  EXPECT_THROW(optim::moving_average(std::vector{a, a}, from, 0.75f), Error);
}

}  // namespace
}  // namespace saccade::optim
