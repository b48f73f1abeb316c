// Plans of a chain: against all plans there are, against a machine that does what a plan says, against known figures.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/plan/chain.h>
#include <saccade/kernels/error.h>

#include <chrono>
#include <cmath>
#include <map>
#include <random>
#include <tuple>

namespace saccade::plan {
namespace {

using Chain = std::vector<ChainLayer>;

/// Runs a plan on a table of what is live, by the meaning of the words alone.
class Machine {
 public:
  explicit Machine(const Chain& chain) : chain_(chain) {}

  void run(const Plan& plan) {
    hold(gradient(chain_.size()), gradient_bytes(chain_.size()));
    list(plan.steps);
  }
  int64_t peak = 0;
  double seconds = 0;
  std::vector<int> backwards = std::vector<int>(16);

 private:
  static std::string gradient(size_t i) { return fmt::format("gradient of a{}", i); }
  static std::string input(size_t i) { return fmt::format("a{}", i); }
  static std::string kept(size_t i) { return fmt::format("saved by {}", i); }
  int64_t gradient_bytes(size_t i) const { return i == 0 ? 0 : chain_[i - 1].output_gradient_bytes; }

  void hold(const std::string& name, int64_t bytes) {
    EXPECT_TRUE(live_.emplace(name, bytes).second) << name << " is live twice";
    during(0);
  }
  void drop(const std::string& name) { EXPECT_EQ(live_.erase(name), 1u) << name << " is not live"; }
  void during(int64_t more) {
    for (const auto& [name, bytes] : live_) more += bytes;
    peak = std::max(peak, more);
  }

  void list(const std::vector<Step>& steps) {
    for (const Step& step : steps) {
      if (step.is_run) {
        for (size_t i = step.layer; i < step.last; ++i) {
          during(chain_[i].forward_peak);
          seconds += chain_[i].forward_seconds;
          hold(input(i + 1), chain_[i].output_bytes);
          if (i > step.layer) drop(input(i));
        }
      } else {
        const SaveMode& mode = chain_[step.layer].modes[step.mode];
        during(mode.forward_peak);
        seconds += chain_[step.layer].forward_seconds;
        hold(kept(step.layer), mode.saved);
      }
    }
    for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
      if (step->is_run) {
        drop(input(step->last));
        list(step->inside);
        continue;
      }
      const ChainLayer& layer = chain_[step->layer];
      EXPECT_EQ(live_.count(kept(step->layer)), 1u);
      EXPECT_EQ(live_.count(gradient(step->layer + 1)), 1u);
      during(layer.modes[step->mode].backward_peak);
      seconds += layer.backward_seconds + layer.modes[step->mode].extra_seconds;
      drop(kept(step->layer));
      drop(gradient(step->layer + 1));
      hold(gradient(step->layer), gradient_bytes(step->layer));
      hold("parameters of " + layer.name, layer.gradient_bytes);
      ++backwards[step->layer];
    }
  }

  const Chain& chain_;
  std::map<std::string, int64_t> live_;
};

Chain random_chain(std::mt19937& random, size_t layers, size_t modes) {
  const auto draw = [&random](int from, int to) { return std::uniform_int_distribution(from, to)(random); };
  Chain chain;
  for (size_t i = 0; i < layers; ++i) {
    ChainLayer layer{.name = fmt::format("l{}", i), .forward_seconds = 1. * draw(1, 9)};
    layer.backward_seconds = 2 * layer.forward_seconds;
    layer.output_bytes = draw(1, 16);
    layer.output_gradient_bytes = draw(1, 6);
    layer.gradient_bytes = draw(0, 3);
    layer.forward_peak = layer.output_bytes + draw(0, 12);
    const int64_t arrives = layer.gradient_bytes + (i == 0 ? 0 : chain[i - 1].output_gradient_bytes);
    for (size_t k = 0; k < modes; ++k) {
      const int64_t saved = layer.output_bytes + draw(0, 12);
      layer.modes.push_back(
          {fmt::format("m{}", k), saved, saved + draw(0, 5), arrives + draw(0, 6), k == 0 ? 0. : .25 * draw(0, 4)});
    }
    chain.push_back(layer);
  }
  return chain;
}

/// All ways to do layers first .. last - 1, runs within runs included.
std::vector<std::vector<Step>> all_plans(const Chain& chain, size_t first, size_t last) {
  if (first == last) return {{}};
  std::vector<std::vector<Step>> plans;
  const auto begin_with = [&](const Step& step) {
    for (std::vector<Step>& rest : all_plans(chain, step.last, last)) {
      rest.insert(rest.begin(), step);
      plans.push_back(std::move(rest));
    }
  };
  for (size_t k = 0; k < chain[first].modes.size(); ++k) begin_with({false, first, first + 1, k});
  for (size_t end = first + 1; end < last; ++end)
    for (const std::vector<Step>& inside : all_plans(chain, first, end)) begin_with({true, first, end, 0, inside});
  return plans;
}

TEST(PlanChain, IsTheBestOfAllPlansAtEveryMemory) {
  std::mt19937 random(7);
  for (int trial = 0; trial < 6; ++trial) {
    const Chain chain = random_chain(random, 4 + trial % 2, trial % 2 == 0 ? 2 : 1);
    std::vector<std::pair<int64_t, double>> all;  // peak and seconds of every plan, by the machine
    for (const std::vector<Step>& steps : all_plans(chain, 0, chain.size())) {
      Machine machine(chain);
      const Plan plan{steps};
      machine.run(plan);
      EXPECT_EQ(simulated_peak(chain, plan), machine.peak);
      all.emplace_back(machine.peak, machine.seconds);
    }
    ASSERT_GT(all.size(), 50u);
    int64_t least = all[0].first;
    for (const auto& [peak, seconds] : all) least = std::min(least, peak);
    EXPECT_EQ(smallest_memory(chain), least);
    for (int64_t memory = least - 3; memory < 120; ++memory) {
      double best = INFINITY;
      for (const auto& [peak, seconds] : all)
        if (peak <= memory) best = std::min(best, seconds);
      const Plan plan = plan_chain(chain, memory, static_cast<int>(memory));  // a slot a byte: nothing is rounded
      ASSERT_EQ(plan.feasible, std::isfinite(best)) << memory;
      if (!plan.feasible) continue;
      EXPECT_NEAR(plan.seconds, best, 1e-9) << memory;
      Machine machine(chain);
      machine.run(plan);
      EXPECT_LE(machine.peak, memory);
      EXPECT_NEAR(machine.seconds, plan.seconds, 1e-9);
      for (size_t i = 0; i < chain.size(); ++i) EXPECT_EQ(machine.backwards[i], 1);
    }
  }
}

TEST(PlanChain, CoarseSlotsNeverBreakTheMemoryAndLoseLittle) {
  std::mt19937 random(11);
  for (int trial = 0; trial < 20; ++trial) {
    const Chain chain = random_chain(random, 12, 2);
    for (const int64_t memory : {60, 80, 110, 150}) {
      const Plan fine = plan_chain(chain, memory, static_cast<int>(memory)), coarse = plan_chain(chain, memory, 37);
      if (!coarse.feasible) continue;
      EXPECT_LE(simulated_peak(chain, coarse), memory);
      EXPECT_LE(fine.seconds, coarse.seconds + 1e-9);
    }
  }
}

TEST(PlanChain, WithMemoryEnoughNothingIsRecomputed) {
  std::mt19937 random(3);
  const Chain chain = random_chain(random, 8, 2);
  const Plan plan = plan_chain(chain, 10000);
  EXPECT_NEAR(plan.extra_seconds, 0, 1e-9);
  EXPECT_EQ(plan_chain(chain, smallest_memory(chain) - 1, 1000).feasible, false);
  EXPECT_EQ(describe(chain, plan_chain(chain, 1)), "no plan");
  EXPECT_THROW(plan_chain({}, 1), Error);
  Chain unsavable = chain;
  unsavable[2].modes.clear();
  EXPECT_THROW(plan_chain(unsavable, 1), Error);
}

TEST(PlanChain, FixedPoliciesCostWhatTheySay) {
  std::mt19937 random(5);
  const Chain chain = random_chain(random, 6, 2);
  double forward = 0, total = 0;
  for (const ChainLayer& layer : chain) forward += layer.forward_seconds, total += 3 * layer.forward_seconds;
  EXPECT_NEAR(save_all(chain, 0).seconds, total, 1e-9);
  EXPECT_NEAR(recompute_each(chain, 0).seconds, total + forward, 1e-9);
  const std::vector<size_t> starts = {0, 2, 5}, wrong = {0, 4, 4};
  const Plan runs = recompute_runs(chain, starts, 1);
  for (const Plan& plan : {save_all(chain, 1), recompute_each(chain, 0), runs}) {
    Machine machine(chain);
    machine.run(plan);
    EXPECT_EQ(machine.peak, simulated_peak(chain, plan));
    EXPECT_NEAR(machine.seconds, plan.seconds, 1e-9);
  }
  EXPECT_THROW(recompute_runs(chain, wrong, 0), Error);
  EXPECT_EQ(describe(chain, runs), "0-1 recomputed [0-1 m1], 2-4 recomputed [2-4 m1], 5 recomputed [m1]");
  EXPECT_EQ(describe(chain, save_all(chain, 0)), "0-5 m0");
  EXPECT_EQ(describe(chain, recompute_each(chain, 0)), "0-5 each recomputed [m0]");
  const std::vector<LayerUse> uses = by_layer(chain, runs);
  EXPECT_EQ(uses[3].forwards, 2);
  EXPECT_EQ(uses[3].mode, 1u);
}

/// RegNetY-256GF as a chain of its stem and 27 blocks, 2x224 + 4x96 crops in f16, from the structure of its blocks:
/// time in multiply-accumulates, a backward twice its forward; bytes in U, the output of a block. Eager saves 7 U (14
/// where a block halves the resolution), lean 4 (8) and pays 6 (12) U of traffic more, which is 0.7 % of the whole
/// step.
Chain regnet_256gf(int64_t batch) {
  struct Stage {
    int64_t width, depth;
  };
  std::vector<std::pair<int64_t, int64_t>> crops = {{2 * batch, 112}, {4 * batch, 48}};  // behind the stem
  const auto pixels = [&crops] {
    int64_t sum = 0;
    for (const auto& [n, side] : crops) sum += n * side * side;
    return sum;
  };
  Chain chain;
  const auto add = [&chain](int64_t u, double macs, int64_t maps) {
    ChainLayer layer{.name = "block", .forward_seconds = macs, .backward_seconds = 2 * macs};
    layer.output_bytes = layer.output_gradient_bytes = layer.forward_peak = u;
    const int64_t dx = chain.empty() ? 0 : chain.back().output_gradient_bytes;
    layer.modes.push_back({"eager", 7 * maps * u, 7 * maps * u, dx, 0});
    layer.modes.push_back({"lean", 4 * maps * u, 4 * maps * u, dx, static_cast<double>(6 * maps * u)});
    chain.push_back(layer);
  };
  add(2 * pixels() * 32, 27. * 32 * static_cast<double>(pixels()), 1);
  int64_t in = 32;
  for (const Stage& stage : {Stage{746, 2}, {1492, 7}, {4103, 17}, {10444, 1}})
    for (int64_t i = 0; i < stage.depth; ++i) {
      const int64_t before = pixels();
      if (i == 0)
        for (auto& [n, side] : crops) side = (side + 1) / 2;
      const auto w = static_cast<double>(stage.width), x = static_cast<double>(in);
      const double projection = i == 0 ? x : 0;
      add(2 * pixels() * stage.width,
          static_cast<double>(before) * x * w + static_cast<double>(pixels()) * w * (9 * 373 + w + projection),
          i == 0 ? 2 : 1);
      in = stage.width;
    }
  double total = 0, traffic = 0;
  for (const ChainLayer& layer : chain) {
    total += layer.forward_seconds + layer.backward_seconds;
    traffic += layer.modes[1].extra_seconds;
  }
  for (ChainLayer& layer : chain) layer.modes[1].extra_seconds *= 0.007 * total / traffic;
  return chain;
}

// The known figures are of a search that rounds every size up to a 400th and counts some working memory: ours may cost
// a few per cent less, not more.
TEST(PlanChain, OfSeersNetworkCostsWhatIsKnown) {
  constexpr double kGib = 1 << 30;
  const Chain chain = regnet_256gf(16);
  const double once = save_all(chain, 0).seconds;
  double eager_bytes = 0, lean_bytes = 0, outputs = 0;
  for (const ChainLayer& layer : chain) {
    eager_bytes += static_cast<double>(layer.modes[0].saved);
    lean_bytes += static_cast<double>(layer.modes[1].saved);
    outputs += static_cast<double>(layer.output_bytes);
  }
  EXPECT_NEAR(eager_bytes / 16 / kGib, 1.142, 0.01);
  EXPECT_NEAR(lean_bytes / 16 / kGib, 0.655, 0.01);
  EXPECT_NEAR(outputs / 16 / kGib, 0.140, 0.002);
  EXPECT_NEAR(save_all(chain, 1).seconds / once, 1.007, 1e-6);
  EXPECT_NEAR(recompute_each(chain, 0).seconds / once, 1.333, 1e-3);
  const std::vector<size_t> stages = {0, 1, 3, 10, 27};
  EXPECT_NEAR(static_cast<double>(simulated_peak(chain, recompute_runs(chain, stages, 0))) / kGib, 8.6, 0.2);

  Chain eager = chain;
  for (ChainLayer& layer : eager) layer.modes.resize(1);
  for (const auto& [gib, eager_ratio, both_ratio] : std::vector<std::tuple<double, double, double>>{
           {3, 1.31, 1.26}, {4, 1.26, 1.21}, {6, 1.21, 1.13}, {8, 1.17, 1.08}, {10, 1.13, 1.04}, {12, 1.09, 1.007}}) {
    const auto memory = static_cast<int64_t>(gib * kGib);
    const Plan one = plan_chain(eager, memory), both = plan_chain(chain, memory);
    ASSERT_TRUE(one.feasible && both.feasible) << gib;
    EXPECT_LE(simulated_peak(chain, both), memory);
    EXPECT_LE(one.seconds / once, eager_ratio + 0.001) << gib;
    EXPECT_GE(one.seconds / once, eager_ratio - 0.05) << gib;
    EXPECT_LE(both.seconds / once, both_ratio + 0.001) << gib;
    EXPECT_GE(both.seconds / once, both_ratio - 0.05) << gib << ": " << describe(chain, both);
  }
}

TEST(PlanChain, ThirtyLayersArePlannedAtOnce) {
  std::mt19937 random(1);
  const Chain chain = random_chain(random, 30, 2);
  double best = INFINITY;  // 0.02 s on a quiet machine
  for (int trial = 0; trial < 3; ++trial) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_TRUE(plan_chain(chain, 300).feasible);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  EXPECT_LT(best, 0.5);
}

}  // namespace
}  // namespace saccade::plan
