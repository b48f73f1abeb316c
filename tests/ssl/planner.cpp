// Plans are promises: a rehearsed step and the real one use the same bytes, a plan changes no bit of any gradient, and
// what is planned for a budget stays within it.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/autocast.h>
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/planner.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

namespace saccade::ssl {
namespace {

constexpr const char* kTrunk = "y:d=5,w0=16,wa=10,wm=1.7,g=8";

StepSpec small_step(DType precision = DType::f32, bool fused = false) {
  StepSpec spec;
  spec.objective = dearest_swav(kTrunk, {.prototypes = 20, .hidden = 24, .dim = 16});
  spec.batch = 4;
  spec.crops = {{8, 48, 48}, {12, 24, 24}};
  spec.options = {.precision = precision, .fuse_optimizer = fused};
  return spec;
}

plan::TimeModel& device() {
  static plan::DescribedDevice cpu(plan::device_description("cpu"));
  return cpu;
}

/// The images of a batch, always the same.
Batch images_of(const StepSpec& spec) {
  Batch batch;
  const TagScope tag(Tag::batch);
  batch.images = Tensor::images(spec.crops, spec.channels);
  Philox random(5);
  for (float& x : batch.images.data<float>()) x = random.uniform(-1.f, 1.f);
  batch.indices.resize(static_cast<size_t>(spec.batch));
  return batch;
}

struct Real {
  int64_t peak, arena;
  std::vector<Tensor> parameters;
};

/// What Planner::rehearse() rehearses.
Real really(const StepSpec& spec, const std::vector<plan::Step>& steps, int64_t budget = 0) {
  Allocator& memory = allocator(Device::cpu);
  memory.trim();
  memory.reset_peaks();
  const MemoryStats before = memory.stats();
  if (budget > 0) memory.set_budget(static_cast<size_t>(before.reserved + budget));
  const auto objective = spec.objective();
  objective->trunk().follow(steps);
  const auto optimizer = spec.recipe.build(objective->trained_parameters());
  std::optional<optim::LossScale> scale;
  if (spec.options.precision == DType::f16) scale.emplace();
  optimizer->reserve();
  std::vector<Batch> batches;
  for (int64_t i = 0; i < spec.options.accumulate; ++i) batches.push_back(images_of(spec));
  for (int step = 0; step < 2; ++step)
    train_step(*objective, *optimizer, batches, {.iteration = step}, 0.1f, spec.options, scale ? &*scale : nullptr);
  const MemoryStats after = memory.stats();
  memory.set_budget(0);
  return {after.total.peak - before.total.live, after.peak_reserved - before.reserved, objective->parameters()};
}

/// A plan like any: runs within runs, both ways to keep.
std::vector<plan::Step> random_steps(Philox& random, size_t first, size_t last, int depth = 0) {
  std::vector<plan::Step> steps;
  while (first < last) {
    plan::Step step{.layer = first, .last = first + 1, .mode = random.below(2)};
    if (depth < 3 && random.below(2) == 0) {
      step.is_run = true;
      step.last = first + 1 + random.below(static_cast<uint32_t>(last - first));
      step.inside = random_steps(random, first, step.last, depth + 1);
    }
    first = step.last;
    steps.push_back(std::move(step));
  }
  return steps;
}

TEST(Plan, NoPlanChangesABitOfWhatIsLearned) {
  for (const DType precision : {DType::f32, DType::bf16, DType::f16}) {
    const StepSpec spec = small_step(precision);
    const Real plain = really(spec, {});
    Philox random(11);
    const size_t units = nn::trunk(kTrunk)->unit_count();
    for (int i = 0; i < 12; ++i) {
      StepSpec either = spec;
      either.options.fuse_optimizer = i % 2 == 1 && precision != DType::f16;
      const Real planned = really(either, random_steps(random, 0, units));
      ASSERT_EQ(planned.parameters.size(), plain.parameters.size());
      for (size_t p = 0; p < plain.parameters.size(); ++p)
        ASSERT_EQ(std::memcmp(planned.parameters[p].raw(), plain.parameters[p].raw(), plain.parameters[p].bytes()), 0)
            << name_of(precision) << ", plan " << i << ", parameter " << p;
    }
  }
}

TEST(Plan, RehearsalAndRealRunUseTheSameBytes) {
  for (const DType precision : {DType::f32, DType::bf16, DType::f16})
    for (const int64_t accumulate : {1, 2})
      for (const bool fused : {false, true}) {
        if (fused && (accumulate > 1 || precision == DType::f16)) continue;
        StepSpec spec = small_step(precision, fused);
        spec.options.accumulate = accumulate;
        Planner planner(spec, device());
        Philox random(3);
        for (int i = 0; i < 4; ++i) {
          const auto steps = i == 0 ? std::vector<plan::Step>() : random_steps(random, 0, planner.chain().size() - 1);
          really(spec, steps);  // fills the primitive cache
          const int64_t live = allocator(Device::cpu).stats().total.live;
          const Real real = really(spec, steps);
          const Rehearsal rehearsed = planner.rehearse(steps);
          EXPECT_EQ(rehearsed.peak, real.peak) << name_of(precision) << accumulate << fused << i;
          if (live == 0) {  // no other tensors shape the arena
            EXPECT_EQ(rehearsed.arena, real.arena) << name_of(precision) << accumulate << fused << i;
          }
        }
      }
}

TEST(Plan, KeepsEveryBudgetItAcceptsAndIsNeverSlowerThanAFixedWay) {
  for (const bool fused : {false, true}) {
    Planner planner(small_step(DType::f32, fused), device());
    const StepPlan eager = planner.keep_all(Keep::eager), lean = planner.keep_all(Keep::lean),
                   blocks = planner.recompute_each_block(), stages = planner.recompute_each_stage();
    const int64_t least = planner.smallest_budget(), most = eager.rehearsal.arena;
    ASSERT_LT(least, most);
    EXPECT_FALSE(planner.plan(least - 1).fits);
    for (int i = 0; i <= 10; ++i) {
      const int64_t budget = least + (most - least) * i / 10;
      const StepPlan plan = planner.plan(budget);
      ASSERT_TRUE(plan.fits) << budget;
      EXPECT_LE(plan.rehearsal.arena, budget);
      for (const StepPlan* fixed : {&eager, &lean, &blocks, &stages})
        EXPECT_TRUE(fixed->rehearsal.arena > budget || plan.rehearsal.seconds <= fixed->rehearsal.seconds)
            << budget << " " << fixed->name;
    }
    EXPECT_NEAR(planner.plan(most).extra_seconds, 0.0, 1e-12);
  }
}

TEST(Plan, RealRunsKeepTheirBudgetsAndUseTheBytesForetold) {
  if (allocator(Device::cpu).stats().total.live != 0)
    GTEST_SKIP() << "an earlier test of this process keeps tensors, which shape the arena; alone this test runs";
  for (const DType precision : {DType::f32, DType::bf16}) {
    const StepSpec spec = small_step(precision, true);
    Planner planner(spec, device());
    const int64_t least = planner.smallest_budget(), most = planner.keep_all(Keep::eager).rehearsal.arena;
    for (int i = 0; i <= 6; ++i) {
      const int64_t budget = least + (most - least) * i / 6;
      const StepPlan plan = planner.plan(budget);
      ASSERT_TRUE(plan.fits);
      really(spec, plan.steps);  // fills the primitive cache
      const Real real = really(spec, plan.steps, budget);
      EXPECT_EQ(real.arena, plan.rehearsal.arena) << budget;
      EXPECT_EQ(real.peak, plan.rehearsal.peak) << budget;
    }
  }
}

TEST(Plan, ARehearsalTellsTheMemoryOfEachMomentByTag) {
  Planner planner(small_step(), device());
  const Rehearsal seen = planner.rehearse({});
  int64_t most = 0;
  double before = 0;
  for (const Moment& m : seen.timeline) {
    int64_t all = 0;
    for (const int64_t bytes : m.live) all += bytes;
    most = std::max(most, all);
    EXPECT_GE(m.seconds, before);
    before = m.seconds;
  }
  EXPECT_EQ(most, seen.peak);
  EXPECT_DOUBLE_EQ(before, seen.seconds);
  EXPECT_GT(seen.at_peak[static_cast<size_t>(Tag::activations)], 0);
}

TEST(Plan, TheLargestBatchFitsAndOneMoreDoesNot) {
  const StepSpec spec = small_step();
  const int64_t budget = 3 * Planner(spec, device()).smallest_budget();
  const LargestBatch largest = largest_batch(spec, device(), budget);
  ASSERT_GT(largest.batch, spec.batch);
  StepSpec more = spec;
  more.batch = largest.batch + 1;
  more.crops = {{2 * more.batch, 48, 48}, {3 * more.batch, 24, 24}};
  EXPECT_LE(largest.plan.rehearsal.arena, budget);
  EXPECT_FALSE(Planner(more, device()).plan(budget).fits);
}

TEST(Plan, TheLargestBatchIsOneThatTheMethodTakes) {
  StepSpec spec = small_step();
  spec.objective = dearest_swav(kTrunk, {.prototypes = 20, .hidden = 24, .dim = 16, .queue_length = 21});
  const int64_t budget = 20 * Planner(spec, device()).smallest_budget();
  EXPECT_EQ(largest_batch(spec, device(), budget).batch, 21) << "a queue must hold a batch";
  spec.batch = 22;
  spec.crops = {{44, 48, 48}, {66, 24, 24}};
  EXPECT_THROW(largest_batch(spec, device(), budget), Error);
}

TEST(Plan, ATrunkRefusesStepsThatAreNotItsUnitsInOrder) {
  const auto trunk = nn::trunk(kTrunk);
  const size_t units = trunk->unit_count();
  Philox random(1);
  auto steps = random_steps(random, 0, units);
  EXPECT_NO_THROW(trunk->follow(steps));
  steps.pop_back();
  EXPECT_THROW(trunk->follow(steps), Error);
  EXPECT_THROW(trunk->follow(random_steps(random, 1, units)), Error);
}

// The figures per image of the paper's networks, in reduced precision: activations that wait for backward.
TEST(Plan, SeersActivationsAreThoseOfItsBlockStructure) {
  struct Row {
    const char* trunk;
    Segments crops;
    double eager, lean;  // GiB an image
  };
  for (const Row& row : {Row{"y_256gf", {{2, 224, 224}, {4, 96, 96}}, 1.142, 0.655},
                         Row{"y_256gf", {{2, 160, 160}, {4, 96, 96}}, 0.734, 0.421},
                         Row{"y_128gf", {{2, 224, 224}, {4, 96, 96}}, 0.810, 0.465},
                         Row{"y_10b", {{2, 160, 160}, {4, 96, 96}}, 1.980, 1.133}}) {
    const DeviceScope meta(Device::meta);
    const AutocastScope half(DType::bf16);
    const auto trunk = nn::trunk(row.trunk);
    for (const Keep keep : {Keep::eager, Keep::lean}) {
      const KeepScope scope(keep);
      const Tensor x = Tensor::images(row.crops, 3);
      const int64_t before = allocator(Device::meta).stats()[Tag::activations].live;
      const Tensor y = (*trunk)(x);
      const double gib =
          static_cast<double>(allocator(Device::meta).stats()[Tag::activations].live - before) / (1 << 30);
      const double expected = keep == Keep::eager ? row.eager : row.lean;
      EXPECT_NEAR(gib, expected, 0.015 * expected) << row.trunk << (keep == Keep::lean ? " lean" : " eager");
    }
  }
}

}  // namespace
}  // namespace saccade::ssl
