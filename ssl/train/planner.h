#pragma once

#include <saccade/core/autograd.h>
#include <saccade/core/plan/chain.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/train/objective.h>
#include <saccade/ssl/train/step.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// @file
/// Before a training runs: how much memory and time its step takes, and what to recompute so that it fits a budget.

namespace saccade::ssl {

/// All that decides what a training step costs.
struct StepSpec {
  /// What is trained, such that each of its steps is the dearest there is: nothing is frozen, nothing still fills.
  MakeObjective objective;
  Segments crops;        ///< of one batch: data::MultiCrop::segments(batch)
  int64_t batch = 0;     ///< images of one batch
  int64_t channels = 3;  ///< of the images
  optim::Recipe recipe = optim::larc_sgd();
  StepOptions options = {};
  int64_t loader_batches = 1;  ///< that the loader has memory for: data::batches_in_memory()
};

/// Memory at one moment of a step, live bytes by tag.
struct Moment {
  double seconds = 0;  ///< since the step's start
  std::array<int64_t, kTags> live{};
  Phase phase = Phase::setup;
};

/// What a rehearsal of training steps on the meta device saw.
struct Rehearsal {
  bool fits = true;   ///< ran to the end within the budget it was given; if not, the rest is up to where it failed
  int64_t arena = 0;  ///< end of the arena at its highest: what Allocator::set_budget() limits
  int64_t peak = 0;   ///< most bytes in use
  std::array<int64_t, kTags> at_peak{};
  double seconds = 0;  ///< of one step
  double flops = 0;
  std::vector<Moment> timeline;  ///< of one step, a moment a kernel
};

/// A way to run a step, rehearsed.
struct StepPlan {
  std::string name;               ///< "planned", "eager", "lean", "each block", "each stage"
  std::vector<plan::Step> steps;  ///< for nn::Trunk::follow()
  Rehearsal rehearsal;
  double extra_seconds = 0;  ///< against keeping all that backward reads
  bool fits = false;         ///< in the budget it was made for
};

/// Plans the steps of one training. The objective lives on the meta device: a billion parameters take no memory here.
class Planner {
 public:
  /// @param time  how long a kernel takes; must outlive the planner
  Planner(StepSpec spec, plan::TimeModel& time);
  Planner(const Planner&) = delete;
  Planner& operator=(const Planner&) = delete;

  const StepSpec& spec() const { return spec_; }
  /// The trunk's units, measured one by one; the last layer stands for the head, the loss and what follows.
  const std::vector<plan::ChainLayer>& chain() const { return chain_; }
  int64_t parameters() const { return parameters_; }

  /// The cheapest way whose rehearsal keeps the arena within `budget` bytes; `fits` is false if there is none, and the
  /// plan is then the one that needs least.
  StepPlan plan(int64_t budget);
  /// Ways without a search, to compare with: everything kept, everything lean, each block or each stage recomputed;
  /// rehearsed within a budget if one is given.
  StepPlan keep_all(Keep keep, int64_t budget = 0);
  StepPlan recompute_each_block(int64_t budget = 0);
  StepPlan recompute_each_stage(int64_t budget = 0);
  /// The smallest arena that any plan keeps.
  int64_t smallest_budget();

  /// Two training steps on the meta device, by train_step() itself, of a process that allocates nothing else before.
  /// @param budget  of the arena, as Allocator::set_budget() takes it: under one, the arena is packed tighter
  Rehearsal rehearse(const std::vector<plan::Step>& steps, int64_t budget = 0);

 private:
  StepPlan make(std::string name, const plan::Plan& plan, int64_t budget = 0);
  /// The trunk's units, without the head.
  std::span<const plan::ChainLayer> units() const { return std::span(chain_).first(chain_.size() - 1); }
  plan::Plan tightest_chain() const;
  /// The way that needs least, rehearsed within the smallest budget that it keeps.
  StepPlan least();
  void measure();

  StepSpec spec_;
  plan::TimeModel& time_;
  std::vector<plan::ChainLayer> chain_;
  std::vector<size_t> stage_starts_;
  int64_t parameters_ = 0;
};

/// The largest batch whose step fits and that the method takes, and its plan; batch 0 if not even one image does. Crops
/// of a batch grow with it.
struct LargestBatch {
  int64_t batch = 0;
  StepPlan plan;
};
LargestBatch largest_batch(const StepSpec& spec, plan::TimeModel& time, int64_t budget, int64_t at_most = 65536);

/// Bytes that the process needs beside the arena: code, libraries, thread stacks, what oneDNN generated so far.
/// Measured now, so call it after rehearsing.
int64_t process_overhead();
/// The most memory that this process has occupied so far (VmHWM), bytes.
int64_t peak_resident();

}  // namespace saccade::ssl
