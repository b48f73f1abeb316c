#include <fmt/format.h>
#include <saccade/core/bytes.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/train/budget.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>

namespace saccade::ssl {
namespace {

/// A GPU's times, by its description: that of the kind whose name is in its own, else of the A100.
plan::DeviceDescription description_of(const std::string& gpu) {
  for (const char* kind : {"V100", "A100", "H100"})
    if (gpu.find(kind) != std::string::npos)
      for (const std::string& name : plan::device_names())
        if (plan::device_description(name).name.find(kind) != std::string::npos) return plan::device_description(name);
  return plan::device_description("a100-40gb");
}

/// What of a device's memory is not the arena's to use.
int64_t overhead_of(Device device) {
  if (device == Device::cpu) return process_overhead();
  const kernels::CudaDevice gpu = kernels::cuda_device();
  return static_cast<int64_t>(gpu.memory - gpu.free) - allocator(device).stats().reserved;
}

}  // namespace

std::filesystem::path calibration_cache() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache != nullptr && *cache != '\0') return std::filesystem::path(cache) / "saccade" / "calibration.json";
  if (home != nullptr && *home != '\0') return std::filesystem::path(home) / ".cache" / "saccade" / "calibration.json";
  return {};
}

int64_t memory_of(Device device) {
  if (device == Device::cpu) return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGESIZE);
  return static_cast<int64_t>(kernels::cuda_device().memory);
}

std::string keep_budget(const StepSpec& spec, nn::Trunk& trunk, int64_t budget) {
  const Device device = trunk.device();
  std::unique_ptr<plan::TimeModel> time;
  std::optional<plan::Calibration> measured;
  if (device == Device::cpu)
    measured.emplace(plan::CalibrationOptions{.cache = calibration_cache()});
  else
    time = std::make_unique<plan::DescribedDevice>(description_of(kernels::cuda_device().name));
  Planner planner(spec, measured ? *measured : *time);
  if (measured) {
    planner.rehearse({});  // all times are measured now, and what libraries generate is there
    measured->save();
    measured->release();
  }
  const int64_t overhead = overhead_of(device);
  const StepPlan plan = planner.plan(budget - overhead);
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

std::string budget_advice(const StepSpec& spec, Device device, int64_t limit, const BudgetSettings& names) {
  plan::DescribedDevice times(device == Device::cpu ? plan::device_description("cpu")
                                                    : description_of(kernels::cuda_device().name));
  const int64_t overhead = overhead_of(device), smallest = Planner(spec, times).smallest_budget() + overhead;
  if (smallest <= limit)
    return fmt::format("A step of this batch can be planned to fit: {} {} is the least that does.",
                       names.budget.empty() ? "a memory budget of" : names.budget, bytes_text(smallest));
  const LargestBatch largest = largest_batch(spec, times, limit - overhead, spec.batch);
  if (largest.batch > 0)
    return fmt::format("With recomputation a batch of {} fits{}.", largest.batch,
                       names.batch.empty()
                           ? fmt::format(" {}", bytes_text(limit))
                           : fmt::format(": {} {} {} {}", names.batch, largest.batch, names.budget, bytes_text(limit)));
  return fmt::format("No batch of this model fits {}: its parameters and the optimizer alone need more.",
                     bytes_text(limit));
}

}  // namespace saccade::ssl
