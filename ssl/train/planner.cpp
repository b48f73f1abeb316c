#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/ssl/train/planner.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

namespace saccade::ssl {
namespace {

std::array<int64_t, kTags> live_by_tag(const MemoryStats& stats) {
  std::array<int64_t, kTags> live{};
  for (size_t i = 0; i < kTags; ++i) live[i] = stats.by_tag[i].live;
  return live;
}

/// Takes the gradients of a unit: those of parameters are dropped at once if the optimiser is fused.
class Sink final : public autograd::Gradients {
 public:
  Sink(bool fused, const std::vector<Tensor>& leaves, const Tensor& input) : fused_(fused) {
    for (const Tensor& leaf : leaves) inputs_.push_back(leaf.impl() == input.impl());
  }
  bool wanted(size_t) const override { return true; }
  void give(size_t i, Tensor gradient) override {
    if (!fused_ || inputs_[i]) kept_.push_back(std::move(gradient));
  }

 private:
  bool fused_;
  std::vector<bool> inputs_;
  std::vector<Tensor> kept_;
};

/// Writes down a step as it is rehearsed: time, arithmetic and, at each kernel, memory.
class StepRecorder final : public kernels::MetaListener {
 public:
  /// @param before  what is not the step's
  StepRecorder(plan::TimeModel& time, const MemoryStats& before, Rehearsal& result)
      : time_(time), before_(live_by_tag(before)), result_(result) {}
  /// Time and arithmetic begin anew. Only of a step that is `kept` the timeline is written.
  void begin(bool kept) {
    kept_ = kept;
    result_.seconds = result_.flops = 0;
  }
  void on_call(const kernels::Call& call) override {
    result_.seconds += time_.seconds(call);
    result_.flops += kernels::cost_of(call).flops;
    Moment moment{.seconds = result_.seconds,
                  .live = live_by_tag(allocator(Device::meta).stats()),
                  .phase = PhaseScope::current()};
    for (size_t i = 0; i < kTags; ++i) moment.live[i] -= before_[i];
    if (const int64_t all = std::accumulate(moment.live.begin(), moment.live.end(), int64_t{0}); all > peak_) {
      peak_ = all;
      result_.at_peak = moment.live;
    }
    if (kept_) result_.timeline.push_back(moment);
  }

 private:
  plan::TimeModel& time_;
  std::array<int64_t, kTags> before_;
  Rehearsal& result_;
  int64_t peak_ = 0;
  bool kept_ = false;
  kernels::MetaListenScope listen_{*this};
};

struct UnitCost {
  double forward = 0, backward = 0;
  plan::SaveMode mode;
};

/// One unit's forward and backward on the meta device, its memory beside input and output gradient.
UnitCost measure_mode(nn::Trunk& trunk, size_t unit, const Tensor& x, const std::vector<Tensor>& leaves,
                      const Tensor& output, Keep keep, bool fused, plan::TimeModel& time) {
  Allocator& memory = allocator(Device::meta);
  UnitCost cost;
  cost.mode.name = keep == Keep::lean ? "lean" : "eager";
  Sink sink(fused, leaves, x);
  Tensor dy = Tensor::empty_like(output);
  const int64_t before = memory.stats().total.live;
  memory.reset_peaks();
  plan::Clock clock(time);
  const kernels::MetaListenScope listen(clock);
  const auto forward = [&] {
    const KeepScope scope(keep);
    Tensor y = trunk.forward_unit(unit, x);
    const MemoryStats after = memory.stats();
    cost.forward = clock.seconds();
    cost.mode.saved = after.total.live - before;
    cost.mode.forward_peak = after.total.peak - before;
    memory.reset_peaks();
    return y;
  };
  const NoGradScope as_in_backward;
  autograd::run_nested(Context::current(), forward, std::move(dy), leaves, sink);
  cost.backward = clock.seconds() - cost.forward;
  cost.mode.backward_peak = std::max<int64_t>(0, memory.stats().total.peak - before - cost.mode.saved);
  return cost;
}

int64_t status_kib(const char* field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field)) return std::stoll(line.substr(line.find(':') + 1));
  return 0;
}

}  // namespace

Planner::Planner(StepSpec spec, plan::TimeModel& time) : spec_(std::move(spec)), time_(time) {
  if (!spec_.objective) fail("plan: a step needs something to train");
  if (spec_.batch < 1 || spec_.crops.empty()) fail("plan: a step needs at least one image and one crop");
  measure();
}

void Planner::measure() {
  const DeviceScope meta(Device::meta);
  const AutocastScope precision(spec_.options.precision);
  const std::unique_ptr<Objective> objective = spec_.objective();
  nn::Trunk& trunk = objective->trunk();
  parameters_ = objective->parameter_count();
  Allocator& memory = allocator(Device::meta);

  Tensor x = Tensor::images(spec_.crops, spec_.channels);
  for (size_t unit = 0; unit < trunk.unit_count(); ++unit) {
    plan::ChainLayer layer{.name = trunk.unit_name(unit)};
    std::vector<Tensor> leaves;
    Tensor y;
    {
      const int64_t before = memory.stats().total.live;
      memory.reset_peaks();
      y = autograd::run_unrecorded([&] { return trunk.forward_unit(unit, x); }, leaves);
      layer.output_bytes = memory.stats().total.live - before;
      layer.forward_peak = memory.stats().total.peak - before;
    }
    layer.output_gradient_bytes = layer.output_bytes;
    if (!spec_.options.fuse_optimizer)
      for (const Tensor& leaf : leaves)
        if (leaf.impl() != x.impl()) layer.gradient_bytes += static_cast<int64_t>(leaf.bytes() + 63) / 64 * 64;
    for (const Keep keep : {Keep::eager, Keep::lean}) {
      const UnitCost cost = measure_mode(trunk, unit, x, leaves, y, keep, spec_.options.fuse_optimizer, time_);
      if (keep == Keep::eager) {
        layer.forward_seconds = cost.forward;
        layer.backward_seconds = cost.backward;
      }
      layer.modes.push_back(cost.mode);
      layer.modes.back().extra_seconds = std::max(0.0, cost.backward - layer.backward_seconds);
    }
    if (unit == 0 || trunk.stage_of(unit) != trunk.stage_of(unit - 1)) stage_starts_.push_back(unit);
    chain_.push_back(std::move(layer));
    y.requires_grad_();
    x = std::move(y);
  }
  // What follows the trunk is never recomputed; only the gradients it leaves matter to the rest.
  plan::ChainLayer tail{.name = "head"};
  std::set<const void*> of_trunk;
  for (const Tensor& p : trunk.parameters()) of_trunk.insert(p.impl());
  if (!spec_.options.fuse_optimizer)
    for (const NamedTensor& p : objective->trained_parameters())
      if (!of_trunk.contains(p.tensor.impl()))
        tail.gradient_bytes += static_cast<int64_t>(p.tensor.bytes() + 63) / 64 * 64;
  tail.modes = {{.name = "eager"}};
  chain_.push_back(std::move(tail));
}

Rehearsal Planner::rehearse(const std::vector<plan::Step>& steps, int64_t budget) {
  const DeviceScope meta(Device::meta);
  Allocator& memory = allocator(Device::meta);
  memory.trim();
  memory.reset_peaks();
  const MemoryStats before = memory.stats();
  Rehearsal result;
  struct Limit {
    Allocator& memory;
    ~Limit() { memory.set_budget(0); }
  } const unlimited_afterwards{memory};
  if (budget > 0) memory.set_budget(static_cast<size_t>(before.reserved + budget));

  StepRecorder recorder(time_, before, result);
  try {
    const std::unique_ptr<Objective> objective = spec_.objective();
    objective->trunk().follow(steps);
    const auto optimizer = spec_.recipe.build(objective->trained_parameters());
    std::optional<optim::LossScale> loss_scale;
    if (spec_.options.precision == DType::f16) loss_scale.emplace();
    optimizer->reserve();
    std::vector<Tensor> buffers;  // as a loader keeps them
    for (int step = 0; step < 2; ++step) {
      recorder.begin(step == 1);
      std::vector<Batch> batches;
      while (static_cast<int64_t>(batches.size()) < spec_.options.accumulate) {
        while (static_cast<int64_t>(buffers.size()) < std::max(spec_.loader_batches, spec_.options.accumulate)) {
          const TagScope tag(Tag::batch);
          buffers.push_back(Tensor::images(spec_.crops, spec_.channels));
        }
        Batch& batch = batches.emplace_back();
        batch.images = buffers[batches.size() - 1];
        batch.indices.resize(static_cast<size_t>(spec_.batch));
      }
      // The monitor of several processes brings together what all have seen.
      StepWatch watch;
      if (spec_.options.ranks != nullptr) watch = [&](float) { seen_by_all(*objective); };
      train_step(*objective, *optimizer, batches, {.iteration = step, .iterations = 2}, 0.1f, spec_.options,
                 loss_scale ? &*loss_scale : nullptr, watch);
    }
  } catch (const OutOfMemory&) {
    result.fits = false;
  }
  const MemoryStats after = memory.stats();
  result.arena = after.peak_reserved - before.reserved;
  result.peak = after.total.peak - before.total.live;
  return result;
}

StepPlan Planner::make(std::string name, const plan::Plan& plan, int64_t budget) {
  StepPlan made;
  made.name = std::move(name);
  made.steps = plan.steps;
  std::erase_if(made.steps, [this](const plan::Step& step) { return step.layer == units().size(); });  // the head
  made.rehearsal = rehearse(made.steps, budget);
  made.fits = made.rehearsal.fits;
  made.extra_seconds = std::max(0.0, plan.extra_seconds);
  return made;
}

StepPlan Planner::keep_all(Keep keep, int64_t budget) {
  const bool lean = keep == Keep::lean;
  return make(lean ? "lean" : "eager", plan::save_all(units(), lean ? 1 : 0), budget);
}

StepPlan Planner::recompute_each_block(int64_t budget) {
  return make("each block", plan::recompute_each(units(), 0), budget);
}

StepPlan Planner::recompute_each_stage(int64_t budget) {
  return make("each stage", plan::recompute_runs(units(), stage_starts_, 0), budget);
}

plan::Plan Planner::tightest_chain() const {
  for (int64_t memory = plan::smallest_memory(chain_);; memory += memory / 64 + 64)  // slots round up
    if (plan::Plan plan = plan::plan_chain(chain_, memory); plan.feasible) return plan;
}

StepPlan Planner::least() {
  StepPlan best;
  for (StepPlan& way : std::vector{make("planned", tightest_chain()), keep_all(Keep::lean), recompute_each_stage(),
                                   recompute_each_block()}) {
    // Under a budget the arena is packed tighter: the smallest that still runs lies between what is in use and what
    // the arena grows to unhindered.
    int64_t low = way.rehearsal.peak - 1;
    if (best.fits && low >= best.rehearsal.arena) continue;
    while (way.rehearsal.arena - low > std::max<int64_t>(64, low >> 10)) {
      const int64_t middle = low + (way.rehearsal.arena - low) / 2;
      if (Rehearsal packed = rehearse(way.steps, middle); packed.fits)
        way.rehearsal = std::move(packed);
      else
        low = middle;
    }
    if (!best.fits || way.rehearsal.arena < best.rehearsal.arena) best = std::move(way);
  }
  return best;
}

int64_t Planner::smallest_budget() { return least().rehearsal.arena; }

StepPlan Planner::plan(int64_t budget) {
  StepPlan best;
  const auto consider = [&](StepPlan candidate) {
    const bool fits = candidate.fits;
    if (fits && (!best.fits || candidate.rehearsal.seconds < best.rehearsal.seconds)) best = std::move(candidate);
    return fits;
  };
  if (budget > 0 && consider(keep_all(Keep::eager, budget))) return best;
  if (budget > 0) {
    consider(keep_all(Keep::lean, budget));
    consider(recompute_each_stage(budget));
    consider(recompute_each_block(budget));
    // The programme's memory is that of the chain alone. How much the budget leaves to it is found by rehearsing: what
    // else lives, when, and what fragmentation costs, need no model of their own.
    int64_t low = plan::smallest_memory(chain_), high = plan::simulated_peak(chain_, plan::save_all(chain_, 0));
    if (consider(make("planned", tightest_chain(), budget)))
      for (int round = 0; round < 12 && high - low > (high >> 9); ++round) {
        const int64_t middle = low + (high - low) / 2;
        const plan::Plan candidate = plan::plan_chain(chain_, middle);
        (candidate.feasible && consider(make("planned", candidate, budget)) ? low : high) = middle;
      }
  }
  if (!best.fits) {
    best = least();
    best.fits = best.rehearsal.arena <= budget;
  }
  return best;
}

LargestBatch largest_batch(const StepSpec& spec, plan::TimeModel& time, int64_t budget, int64_t at_most) {
  const auto planned = [&](int64_t batch) {
    StepSpec other = spec;
    other.batch = batch;
    for (Segment& s : other.crops) s.n = s.n / spec.batch * batch;
    return Planner(other, time).plan(budget);
  };
  LargestBatch best;
  const auto fits = [&](int64_t batch) {
    StepPlan plan;
    try {
      plan = planned(batch);
    } catch (const Error&) {
      if (batch <= spec.batch) throw;
      return false;  // the method takes no such batch: it may have bounds of its own
    }
    const bool does = plan.fits;
    if (does) best = {batch, std::move(plan)};
    return does;
  };
  int64_t low = 0, high = spec.batch;
  while (high <= at_most && fits(high)) {
    low = high;
    high *= 2;
  }
  high = std::min(high, at_most + 1);
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return best;
}

int64_t process_overhead() {
  constexpr int64_t growth = 6 << 20;  // thread stacks and what libraries keep, while steps run: 4 MiB measured
  const int64_t resident = status_kib("VmRSS") * 1024;
  return std::max<int64_t>(0, resident - allocator(Device::cpu).stats().reserved) + growth;
}

int64_t peak_resident() { return status_kib("VmHWM") * 1024; }

}  // namespace saccade::ssl
