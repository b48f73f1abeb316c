#pragma once

/// @file
/// How a training keeps to a memory budget: planned before the first image, enforced by the allocator.

#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/core/bytes.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/ssl/plan.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace saccade::program {

/// Where this machine's times are kept from run to run: $XDG_CACHE_HOME/saccade or ~/.cache/saccade; nowhere if neither
/// is known.
inline std::filesystem::path calibration_cache() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache != nullptr && *cache != '\0') return std::filesystem::path(cache) / "saccade" / "calibration.json";
  if (home != nullptr && *home != '\0') return std::filesystem::path(home) / ".cache" / "saccade" / "calibration.json";
  return {};
}

inline int64_t machine_memory() { return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE); }

/// Has the trunk recompute what `budget` bytes of the whole process demand, and the allocator refuse more. Throws with
/// the smallest budget that would do.
/// @return a line on what was planned
inline std::string keep_budget(const ssl::StepSpec& spec, nn::Trunk& trunk, int64_t budget) {
  plan::Calibration time({.cache = calibration_cache()});
  ssl::Planner planner(spec, time);
  planner.rehearse({});  // all times are measured now, and what libraries generate is there
  time.save();
  time.release();
  const int64_t overhead = ssl::process_overhead();
  const ssl::StepPlan plan = planner.plan(budget - overhead);
  if (!plan.fits)
    throw Error(fmt::format("a step of {} images does not fit {}: the smallest memory budget for it is {}", spec.batch,
                            bytes_text(budget), bytes_text(planner.smallest_budget() + overhead)));
  trunk.follow(plan.steps);
  allocator(Device::cpu).set_budget(static_cast<size_t>(budget - overhead));
  const double plain = plan.rehearsal.seconds - plan.extra_seconds;
  return fmt::format("Memory: {} of {} ({} of activations at the peak); {}; {:.3g} s a step expected",
                     bytes_text(plan.rehearsal.arena + overhead), bytes_text(budget),
                     bytes_text(plan.rehearsal.at_peak[static_cast<size_t>(Tag::activations)]),
                     plan.extra_seconds > 1e-3 * plain
                         ? fmt::format("{:.1f} % of the work is done twice for it", 100 * plan.extra_seconds / plain)
                         : "nothing is recomputed",
                     plan.rehearsal.seconds);
}

/// What would have helped a training that ran out of `limit` bytes.
inline std::string advice(const ssl::StepSpec& spec, int64_t limit) {
  plan::DescribedDevice cpu(plan::device_description("cpu"));
  const int64_t overhead = ssl::process_overhead(), smallest = ssl::Planner(spec, cpu).smallest_budget() + overhead;
  if (smallest <= limit)
    return fmt::format("A step of this batch can be planned to fit: --memory-budget {} is the least that does.",
                       bytes_text(smallest));
  const ssl::LargestBatch largest = ssl::largest_batch(spec, cpu, limit - overhead, spec.batch);
  if (largest.batch > 0)
    return fmt::format("With recomputation a batch of {} fits: --batch {} --memory-budget {}.", largest.batch,
                       largest.batch, bytes_text(limit));
  return fmt::format("No batch of this model fits {}: its parameters and the optimizer alone need more.",
                     bytes_text(limit));
}

/// Runs a training; if it runs out of memory, the error's report ends with what would have helped.
/// @param budget  that was given, or 0: then the machine's memory is the limit
template <class Training>
auto advised(const ssl::StepSpec& spec, int64_t budget, Training training) {
  try {
    return training();
  } catch (OutOfMemory& error) {
    error.advise(advice(spec, budget > 0 ? budget : machine_memory()));
    throw;
  }
}

}  // namespace saccade::program
