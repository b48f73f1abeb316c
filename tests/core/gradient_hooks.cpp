// The hooks of leaves: who runs when, and what an exchange of gradients between processes can rely on.
#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>
#include <support/stand_in_exchange.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace saccade {
namespace {

using autograd::GradientReady;
using autograd::HookStage;
using testing::StandInExchange;

Tensor leaf(float value) {
  Tensor t = Tensor::full({1, 2}, value);
  return t.requires_grad_();
}

float first(const Tensor& t) { return t.data<float>()[0]; }

TEST(GradientHooks, RunByStageAndThenInTheOrderTheyCame) {
  const Tensor x = leaf(1);
  std::string order;
  const auto says = [&](char what) { return [&order, what](GradientReady&) { order += what; }; };
  const auto u1 = x.on_gradient_ready(HookStage::update, says('u'));
  const auto r1 = x.on_gradient_ready(HookStage::reduce, says('r'));
  const auto u2 = x.on_gradient_ready(HookStage::update, says('U'));
  const auto r2 = x.on_gradient_ready(HookStage::reduce, says('R'));
  sum(x).backward();
  EXPECT_EQ(order, "rRuU");
}

TEST(GradientHooks, OneIsRemovedAndTheOthersStay) {
  const Tensor x = leaf(1);
  int calls = 0;
  const auto counts = [&](GradientReady&) { ++calls; };
  auto one = x.on_gradient_ready(HookStage::update, counts);
  auto two = x.on_gradient_ready(HookStage::update, counts);
  const auto removes = x.on_gradient_ready(HookStage::reduce, [&](GradientReady&) { two = nullptr; });
  one = nullptr;
  const auto three = x.on_gradient_ready(HookStage::update, counts);
  sum(x).backward();
  EXPECT_EQ(calls, 1) << "the first was removed before, the second by another hook";
}

TEST(GradientHooks, KnowTheLastOfSeveralBackwards) {
  const Tensor x = leaf(1);
  std::vector<bool> last;
  const auto hook = x.on_gradient_ready(HookStage::reduce, [&](GradientReady& ready) { last.push_back(ready.last); });
  sum(x).backward({.last = false});
  sum(x).backward({.last = false});
  sum(checkpoint([&](const std::vector<Tensor>& in) { return scale(add(in[0], in[0]), 2.f); }, {x})).backward();
  EXPECT_EQ(last, (std::vector<bool>{false, false, true}));
  EXPECT_EQ(first(x.grad()), 6.f);
}

TEST(GradientHooks, LaterStagesWaitForThoseThatPostponeThem) {
  const Tensor x = leaf(1);
  std::string order;
  std::vector<std::function<void()>> resume;
  const auto update = x.on_gradient_ready(HookStage::update, [&](GradientReady&) { order += 'u'; });
  const auto one = x.on_gradient_ready(HookStage::reduce, [&](GradientReady& ready) {
    order += 'a';
    resume.push_back(ready.postpone());
    ready.at_end([&] {
      order += 'A';
      resume[0]();
    });
  });
  const auto at_once = x.on_gradient_ready(HookStage::reduce, [&](GradientReady& ready) {
    order += 'b';
    ready.postpone()();
  });
  const auto two = x.on_gradient_ready(HookStage::reduce, [&](GradientReady& ready) {
    order += 'c';
    ready.at_end([&, resume = ready.postpone()] {
      order += 'C';
      resume();
    });
  });
  sum(x).backward();
  EXPECT_EQ(order, "abcACu") << "the update waits for both";
}

TEST(GradientHooks, AnUpdateThatWaitsForEverIsAnError) {
  const Tensor x = leaf(1);
  const auto hook = x.on_gradient_ready(HookStage::reduce, [](GradientReady& ready) { (void)ready.postpone(); });
  EXPECT_THROW(sum(x).backward(), Error);
}

TEST(GradientHooks, WhatWasPutOffIsDroppedWhenBackwardThrows) {
  const Tensor x = leaf(1), y = leaf(1);
  const auto held = std::make_shared<int>(0);
  int updates = 0;
  std::function<void()> too_late;
  const auto update = x.on_gradient_ready(HookStage::update, [&](GradientReady&) { ++updates; });
  const auto puts_off = x.on_gradient_ready(HookStage::reduce, [&](GradientReady& ready) {
    too_late = ready.postpone();
    ready.at_end([held] { ++*held; });
  });
  const auto throws = y.on_gradient_ready(HookStage::update, [](GradientReady&) { throw Error("no"); });
  const Tensor of_y = scale(y, 2.f);  // computed first, so that backward comes to x before
  EXPECT_THROW(sum(add(of_y, scale(x, 2.f))).backward(), Error);
  EXPECT_EQ(*held, 0);
  EXPECT_EQ(held.use_count(), 1) << "the function is gone, and what it holds";
  too_late();
  EXPECT_EQ(updates, 0);
}

/// Two layers with a shared parameter, the first recomputed if asked; a third parameter that only some losses use.
struct Model {
  Tensor shared = leaf(2), own = leaf(3), sometimes = leaf(4);
  std::vector<Tensor> leaves() const { return {shared, own, sometimes}; }
  Tensor loss(bool recompute, bool all) const {
    const auto layer = [this](const std::vector<Tensor>& in) { return add(scale(in[0], 3.f), sigmoid(shared)); };
    const Tensor hidden = recompute ? checkpoint(layer, {own}) : layer({own});
    Tensor y = add(hidden, sigmoid(shared));
    if (all) y = add(y, sigmoid(sometimes));
    return sum(sigmoid(y));
  }
};

TEST(GradientHooks, AnExchangeGivesTheSumsHoweverItIsComputed) {
  for (const bool recompute : {false, true})
    for (const size_t under_way : {0u, 1u, 100u}) {
      const Model plain, exchanged;
      for (int batch = 0; batch < 3; ++batch) scale(plain.loss(false, batch == 0), 2.f).backward();
      StandInExchange exchange(exchanged.leaves(), under_way);
      std::vector<float> ready;  // what an update sees
      std::vector<std::shared_ptr<const autograd::Hook>> hooks;
      for (const Tensor& t : exchanged.leaves())
        hooks.push_back(t.on_gradient_ready(HookStage::update, [&ready](GradientReady& leaf) {
          if (leaf.last) ready.push_back(first(leaf.leaf.grad()));
        }));
      for (int batch = 0; batch < 3; ++batch) exchanged.loss(recompute, batch == 0).backward({.last = batch == 2});
      EXPECT_EQ(exchange.exchanged(), 3) << "each leaf once";
      for (size_t i = 0; i < 3; ++i)
        EXPECT_EQ(first(exchanged.leaves()[i].grad()), first(plain.leaves()[i].grad())) << i;
      std::ranges::sort(ready);
      std::vector<float> sums = {first(plain.shared.grad()), first(plain.own.grad())};
      std::ranges::sort(sums);
      EXPECT_EQ(ready, sums);
    }
}

}  // namespace
}  // namespace saccade
