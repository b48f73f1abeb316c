#include <fmt/format.h>
#include <saccade/core/plan/chain.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <limits>

namespace saccade::plan {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The chain with what the recurrences ask for: sums over ranges and the conditions that a choice must meet. [s, t] are
/// layers inclusive; a_s is counted outside, the gradient of a_{t+1} inside.
class Chain {
 public:
  explicit Chain(std::span<const ChainLayer> layers) : layers_(layers), seconds_{0}, gradients_{0} {
    if (layers.empty()) throw Error("plan: the chain has no layers");
    for (const ChainLayer& layer : layers) {
      if (layer.modes.empty())
        throw Error(fmt::format("plan: layer {} has no way to be saved; it needs at least one", layer.name));
      seconds_.push_back(seconds_.back() + layer.forward_seconds);
      gradients_.push_back(gradients_.back() + layer.gradient_bytes);
    }
  }
  size_t size() const { return layers_.size(); }
  const ChainLayer& operator[](size_t i) const { return layers_[i]; }
  /// Forward seconds and parameter gradients of layers first .. last - 1.
  double forward_seconds(size_t first, size_t last) const { return seconds_[last] - seconds_[first]; }
  int64_t gradients(size_t first, size_t last) const { return gradients_[last] - gradients_[first]; }

  double once(size_t s, const SaveMode& mode) const {
    return layers_[s].forward_seconds + layers_[s].backward_seconds + mode.extra_seconds;
  }
  /// Memory that saving layer s first in [s, t] needs for its own forward and backward.
  int64_t needed_to_save(size_t s, size_t t, const SaveMode& mode) const {
    return std::max(layers_[t].output_gradient_bytes + mode.forward_peak,
                    layers_[s].output_gradient_bytes + mode.saved + mode.backward_peak + gradients(s + 1, t + 1));
  }
  /// Memory that the forward of layer k needs within a run from s whose results are not kept.
  int64_t needed_to_pass(size_t s, size_t k, size_t t) const {
    return layers_[t].output_gradient_bytes + (k > s ? layers_[k - 1].output_bytes : 0) + layers_[k].forward_peak;
  }

 private:
  std::span<const ChainLayer> layers_;
  std::vector<double> seconds_;
  std::vector<int64_t> gradients_;
};

/// A value for each 0 <= s <= t < n.
template <class T>
class Triangle {
 public:
  explicit Triangle(size_t n, const T& value) : values_(n * (n + 1) / 2, value) {}
  T& at(size_t s, size_t t) { return values_[t * (t + 1) / 2 + s]; }
  const T& at(size_t s, size_t t) const { return values_[t * (t + 1) / 2 + s]; }

 private:
  std::vector<T> values_;
};

/// C(s, t, M) for all ranges and M = 0 .. slots, and the choice behind each.
class Table {
 public:
  Table(const Chain& chain, int64_t memory, int slots)
      : chain_(chain),
        memory_(memory),
        slots_(slots),
        best_(chain.size(), std::vector<Choice>(static_cast<size_t>(slots) + 1)) {
    for (size_t s = chain.size(); s-- > 0;)
      for (size_t t = s; t < chain.size(); ++t) fill(s, t);
  }
  double seconds() const { return best_.at(0, chain_.size() - 1).back().seconds; }
  std::vector<Step> steps() const {
    std::vector<Step> steps;
    collect(0, chain_.size() - 1, slots_, steps);
    return steps;
  }

 private:
  struct Choice {
    double seconds = kInfinity;
    bool is_run = false;
    size_t mode_or_last = 0;  // the mode of layer s, or one past the run that begins with s
  };

  int64_t bytes(int64_t slot) const { return memory_ * slot / slots_; }
  /// The largest slot of at most so many bytes; -1 when there is none.
  int64_t slot_within(int64_t bytes) const {
    return bytes < 0 ? -1 : std::min(slots_, ((bytes + 1) * slots_ - 1) / memory_);
  }

  void fill(size_t s, size_t t) {
    std::vector<Choice>& best = best_.at(s, t);
    const auto offer = [&best](int64_t slot, const Choice& choice) {
      if (choice.seconds < best[static_cast<size_t>(slot)].seconds) best[static_cast<size_t>(slot)] = choice;
    };
    const auto cost = [this](size_t from, size_t to, int64_t slot) {
      return slot < 0 ? kInfinity : best_.at(from, to)[static_cast<size_t>(slot)].seconds;
    };
    for (size_t k = 0; k < chain_[s].modes.size(); ++k) {
      const SaveMode& mode = chain_[s].modes[k];
      const int64_t needed = chain_.needed_to_save(s, t, mode);
      for (int64_t m = 0; m <= slots_; ++m) {
        if (bytes(m) < needed) continue;
        const double rest = s == t ? 0 : cost(s + 1, t, slot_within(bytes(m) - mode.saved));
        offer(m, {chain_.once(s, mode) + rest, false, k});
      }
    }
    int64_t needed = 0;
    for (size_t r = s + 1; r <= t; ++r) {
      needed = std::max(needed, chain_.needed_to_pass(s, r - 1, t));
      const double forward = chain_.forward_seconds(s, r);
      for (int64_t m = 0; m <= slots_; ++m) {
        if (bytes(m) < needed) continue;
        const double after = cost(r, t, slot_within(bytes(m) - chain_[r - 1].output_bytes));
        const double again = cost(s, r - 1, slot_within(bytes(m) - chain_.gradients(r, t + 1)));
        offer(m, {forward + after + again, true, r});
      }
    }
  }

  void collect(size_t s, size_t t, int64_t slot, std::vector<Step>& steps) const {
    while (true) {
      const Choice& choice = best_.at(s, t)[static_cast<size_t>(slot)];
      const size_t next = choice.is_run ? choice.mode_or_last : s + 1;
      Step& step = steps.emplace_back(Step{choice.is_run, s, next});
      if (choice.is_run)
        collect(s, next - 1, slot_within(bytes(slot) - chain_.gradients(next, t + 1)), step.inside);
      else
        step.mode = choice.mode_or_last;
      if (next > t) return;
      slot =
          slot_within(bytes(slot) - (choice.is_run ? chain_[next - 1].output_bytes : chain_[s].modes[step.mode].saved));
      s = next;
    }
  }

  const Chain& chain_;
  int64_t memory_, slots_;
  Triangle<std::vector<Choice>> best_;
};

Step saved_step(std::span<const ChainLayer> layers, size_t i, size_t mode) {
  return {false, i, i + 1, std::min(mode, layers[i].modes.size() - 1)};
}

double seconds_of(const Chain& chain, std::span<const Step> steps) {
  double seconds = 0;
  for (const Step& step : steps)
    seconds += step.is_run ? chain.forward_seconds(step.layer, step.last) + seconds_of(chain, step.inside)
                           : chain.once(step.layer, chain[step.layer].modes[step.mode]);
  return seconds;
}

Plan finished(const Chain& chain, std::vector<Step> steps) {
  Plan plan{std::move(steps)};
  plan.feasible = true;
  plan.seconds = plan.extra_seconds = seconds_of(chain, plan.steps);
  for (size_t i = 0; i < chain.size(); ++i) plan.extra_seconds -= chain[i].forward_seconds + chain[i].backward_seconds;
  return plan;
}

/// Most that is live while these steps run, beside the first one's input.
int64_t peak_of(const Chain& chain, std::span<const Step> steps) {
  const auto gradient_of_input = [&chain](size_t i) { return i == 0 ? 0 : chain[i - 1].output_gradient_bytes; };
  int64_t live = gradient_of_input(steps.back().last), peak = live;
  for (const Step& step : steps) {
    if (!step.is_run) {
      const SaveMode& mode = chain[step.layer].modes[step.mode];
      peak = std::max(peak, live + mode.forward_peak);
      live += mode.saved;
      continue;
    }
    for (size_t k = step.layer; k < step.last; ++k)
      peak = std::max(peak, live + (k > step.layer ? chain[k - 1].output_bytes : 0) + chain[k].forward_peak);
    live += chain[step.last - 1].output_bytes;
  }
  for (size_t i = steps.size(); i-- > 0;) {
    const Step& step = steps[i];
    const int64_t arriving = gradient_of_input(step.last);
    if (step.is_run) {
      live -= chain[step.last - 1].output_bytes;
      peak = std::max(peak, live - arriving + peak_of(chain, step.inside));
    } else {
      const SaveMode& mode = chain[step.layer].modes[step.mode];
      peak = std::max(peak, live + mode.backward_peak);
      live -= mode.saved;
    }
    live += gradient_of_input(step.layer) - arriving + chain.gradients(step.layer, step.last);
  }
  return peak;
}

void count_uses(std::span<const Step> steps, std::vector<LayerUse>& uses) {
  for (const Step& step : steps) {
    for (size_t i = step.layer; i < step.last; ++i) ++uses[i].forwards;
    if (step.is_run)
      count_uses(step.inside, uses);
    else
      uses[step.layer].mode = step.mode;
  }
}

std::string range_text(size_t first, size_t last) {
  return last == first + 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, last - 1);
}

std::string describe_steps(const Chain& chain, std::span<const Step> steps) {
  const auto name = [&chain](const Step& step) { return chain[step.layer].modes[step.mode].name; };
  const auto alone = [](const Step& step) { return step.is_run && step.last == step.layer + 1; };
  std::string text;
  for (size_t i = 0; i < steps.size();) {
    const Step& first = steps[i];
    size_t end = i + 1;  // of the steps that are told together
    if (!first.is_run)
      while (end < steps.size() && !steps[end].is_run && name(steps[end]) == name(first)) ++end;
    else if (alone(first))
      while (end < steps.size() && alone(steps[end]) && name(steps[end].inside[0]) == name(first.inside[0])) ++end;
    if (!text.empty()) text += ", ";
    text += range_text(first.layer, steps[end - 1].last);
    if (!first.is_run)
      text += fmt::format(" {}", name(first));
    else if (alone(first))
      text += fmt::format("{} recomputed [{}]", end > i + 1 ? " each" : "", name(first.inside[0]));
    else
      text += fmt::format(" recomputed [{}]", describe_steps(chain, first.inside));
    i = end;
  }
  return text;
}

}  // namespace

Plan plan_chain(std::span<const ChainLayer> layers, int64_t memory, int slots) {
  const Chain chain(layers);
  if (slots < 1) throw Error(fmt::format("plan: expected at least one memory slot, got {}", slots));
  if (memory < 1) return {};
  const Table table(chain, memory, slots);
  return table.seconds() < kInfinity ? finished(chain, table.steps()) : Plan{};
}

int64_t smallest_memory(std::span<const ChainLayer> layers) {
  const Chain chain(layers);
  Triangle<int64_t> least(layers.size(), std::numeric_limits<int64_t>::max());
  for (size_t s = layers.size(); s-- > 0;)
    for (size_t t = s; t < layers.size(); ++t) {
      int64_t& best = least.at(s, t);
      for (const SaveMode& mode : layers[s].modes) {
        const int64_t own = chain.needed_to_save(s, t, mode);
        best = std::min(best, s == t ? own : std::max(own, mode.saved + least.at(s + 1, t)));
      }
      int64_t pass = 0;
      for (size_t r = s + 1; r <= t; ++r) {
        pass = std::max(pass, chain.needed_to_pass(s, r - 1, t));
        best = std::min(best, std::max({pass, layers[r - 1].output_bytes + least.at(r, t),
                                        chain.gradients(r, t + 1) + least.at(s, r - 1)}));
      }
    }
  return least.at(0, layers.size() - 1);
}

Plan save_all(std::span<const ChainLayer> layers, size_t mode) {
  const Chain chain(layers);
  std::vector<Step> steps;
  for (size_t i = 0; i < layers.size(); ++i) steps.push_back(saved_step(layers, i, mode));
  return finished(chain, std::move(steps));
}

Plan recompute_runs(std::span<const ChainLayer> layers, std::span<const size_t> starts, size_t mode) {
  const Chain chain(layers);
  std::vector<Step> steps;
  for (size_t i = 0; i < starts.size(); ++i) {
    const size_t last = i + 1 < starts.size() ? starts[i + 1] : layers.size();
    if ((i == 0 && starts[0] != 0) || last <= starts[i])
      throw Error(fmt::format("plan: runs must begin at layer 0 and at ascending layers of {}; run {} is {} to {}",
                              layers.size(), i, starts[i], last));
    Step& run = steps.emplace_back(Step{true, starts[i], last});
    for (size_t k = starts[i]; k < last; ++k) run.inside.push_back(saved_step(layers, k, mode));
  }
  return finished(chain, std::move(steps));
}

Plan recompute_each(std::span<const ChainLayer> layers, size_t mode) {
  std::vector<size_t> starts(layers.size());
  for (size_t i = 0; i < starts.size(); ++i) starts[i] = i;
  return recompute_runs(layers, starts, mode);
}

int64_t simulated_peak(std::span<const ChainLayer> layers, const Plan& plan) {
  return plan.steps.empty() ? 0 : peak_of(Chain(layers), plan.steps);
}

std::vector<LayerUse> by_layer(std::span<const ChainLayer> layers, const Plan& plan) {
  std::vector<LayerUse> uses(layers.size());
  count_uses(plan.steps, uses);
  return uses;
}

std::string describe(std::span<const ChainLayer> layers, const Plan& plan) {
  return plan.feasible ? describe_steps(Chain(layers), plan.steps) : "no plan";
}

}  // namespace saccade::plan
