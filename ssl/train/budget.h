#pragma once

#include <saccade/core/allocator.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/train/planner.h>

#include <cstdint>
#include <filesystem>
#include <string>

/// @file
/// How a training keeps to a memory budget: planned before the first image, enforced by the allocator.

namespace saccade::ssl {

/// Where this machine's times are kept from run to run: $XDG_CACHE_HOME/saccade or ~/.cache/saccade; empty if neither
/// is known. See plan::CalibrationOptions.
std::filesystem::path calibration_cache();

/// The memory of a device in all, bytes. Opens the GPU.
int64_t memory_of(Device device);

/// Keeps a training within `budget` bytes of its device's memory (on the CPU: of the whole process): plans its step,
/// has the trunk recompute what the budget demands, and the allocator refuse more. On the CPU the kernels of the step
/// are timed first, the first time on a machine; results are the same bits with any plan. Call it before the first
/// batch is asked for.
/// @param spec   the training's step, as it will run
/// @param trunk  of the model that will be trained
/// @return a line on what was planned, for people
/// Throws Error, with the smallest budget that would do, when the step does not fit.
std::string keep_budget(const StepSpec& spec, nn::Trunk& trunk, int64_t budget);

/// What a program calls the settings that the advice is about, as "--batch"; empty: plain words.
struct BudgetSettings {
  std::string budget{}, batch{};
};

/// A sentence on what would have helped a training that ran out of `limit` bytes of a device's memory.
std::string budget_advice(const StepSpec& spec, Device device, int64_t limit, const BudgetSettings& names = {});

/// Runs a training; if it runs out of memory, the report of the error ends with what would have helped.
/// @param budget  that was given to keep_budget(), or 0: then the device's memory is the limit
template <class Training>
auto with_budget_advice(const StepSpec& spec, Device device, int64_t budget, Training training,
                        const BudgetSettings& names = {}) {
  try {
    return training();
  } catch (OutOfMemory& error) {
    error.advise(budget_advice(spec, device, budget > 0 ? budget : memory_of(device), names));
    throw;
  }
}

}  // namespace saccade::ssl
