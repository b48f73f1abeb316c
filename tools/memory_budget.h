#pragma once

/// @file
/// How a training keeps to a memory budget: planned before the first image, enforced by the allocator.

#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/core/bytes.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/ssl/plan.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
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

/// A GPU's times, by its description: that of the kind whose name is in its own, else of the A100.
inline plan::DeviceDescription description_of(const std::string& gpu) {
  for (const char* kind : {"V100", "A100", "H100"})
    if (gpu.find(kind) != std::string::npos)
      for (const std::string& name : plan::device_names())
        if (plan::device_description(name).name.find(kind) != std::string::npos) return plan::device_description(name);
  return plan::device_description("a100-40gb");
}

/// What of a device's memory is not the arena's to use.
inline int64_t overhead_of(Device device) {
  if (device == Device::cpu) return ssl::process_overhead();
  const kernels::CudaDevice gpu = kernels::cuda_device();
  return static_cast<int64_t>(gpu.memory - gpu.free) - allocator(device).stats().reserved;
}
inline int64_t memory_of(Device device) {
  return device == Device::cpu ? machine_memory() : static_cast<int64_t>(kernels::cuda_device().memory);
}

/// Has the trunk recompute what `budget` bytes of the device's memory demand (on the CPU: of the whole process), and
/// the allocator refuse more. Throws with the smallest budget that would do.
/// @return a line on what was planned
inline std::string keep_budget(const ssl::StepSpec& spec, nn::Trunk& trunk, Device device, int64_t budget) {
  std::unique_ptr<plan::TimeModel> time;
  std::optional<plan::Calibration> measured;
  if (device == Device::cpu)
    measured.emplace(plan::CalibrationOptions{.cache = calibration_cache()});
  else
    time = std::make_unique<plan::DescribedDevice>(description_of(kernels::cuda_device().name));
  ssl::Planner planner(spec, measured ? *measured : *time);
  if (measured) {
    planner.rehearse({});  // all times are measured now, and what libraries generate is there
    measured->save();
    measured->release();
  }
  const int64_t overhead = overhead_of(device);
  const ssl::StepPlan plan = planner.plan(budget - overhead);
  if (!plan.fits)
    throw Error(fmt::format("a step of {} images does not fit {}: the smallest memory budget for it is {}", spec.batch,
                            bytes_text(budget), bytes_text(planner.smallest_budget() + overhead)));
  trunk.follow(plan.steps);
  allocator(device).set_budget(static_cast<size_t>(budget - overhead));
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
inline std::string advice(const ssl::StepSpec& spec, Device device, int64_t limit) {
  plan::DescribedDevice times(device == Device::cpu ? plan::device_description("cpu")
                                                    : description_of(kernels::cuda_device().name));
  const int64_t overhead = overhead_of(device), smallest = ssl::Planner(spec, times).smallest_budget() + overhead;
  if (smallest <= limit)
    return fmt::format("A step of this batch can be planned to fit: --memory-budget {} is the least that does.",
                       bytes_text(smallest));
  const ssl::LargestBatch largest = ssl::largest_batch(spec, times, limit - overhead, spec.batch);
  if (largest.batch > 0)
    return fmt::format("With recomputation a batch of {} fits: --batch {} --memory-budget {}.", largest.batch,
                       largest.batch, bytes_text(limit));
  return fmt::format("No batch of this model fits {}: its parameters and the optimizer alone need more.",
                     bytes_text(limit));
}

/// Runs a training; if it runs out of memory, the error's report ends with what would have helped.
/// @param budget  that was given, or 0: then the device's memory is the limit
template <class Training>
auto advised(const ssl::StepSpec& spec, Device device, int64_t budget, Training training) {
  try {
    return training();
  } catch (OutOfMemory& error) {
    error.advise(advice(spec, device, budget > 0 ? budget : memory_of(device)));
    throw;
  }
}

}  // namespace saccade::program
