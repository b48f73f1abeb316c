#pragma once

#include <saccade/core/plan/device_model.h>

#include <filesystem>
#include <memory>

namespace saccade::plan {

struct CalibrationOptions {
  std::filesystem::path cache = {};  ///< JSON file of what was measured before on a machine like this; empty: none
  int64_t memory = 512 << 20;        ///< scratch at most; a call that needs more is measured smaller and scaled up
};

/// This machine, measured: the first time a call of some kind and shape is asked for, it runs on the CPU backend, in
/// scratch memory that no allocator knows of, with caches as a training step leaves them (what the op before has just
/// written is in them, the rest is not). Calls of segments and products are measured each; others at powers of two of
/// their rows or elements.
class Calibration final : public TimeModel {
 public:
  /// Reads the cache if it is there and of this machine (processor, threads, instruction set).
  explicit Calibration(CalibrationOptions options = {});
  ~Calibration() override;
  Calibration(const Calibration&) = delete;
  Calibration& operator=(const Calibration&) = delete;

  double seconds(const kernels::Call& call) override;
  /// Writes the cache, if there is a path and something new, and makes its folder. False when that cannot be done (no
  /// room, no permission, another process at it, a file of others): the next process then measures again.
  bool save();
  /// Gives the scratch memory back until the next measurement.
  void release();

  int64_t measurements() const;      ///< calls measured, not read from the cache
  double measuring_seconds() const;  ///< time spent on it
  int64_t scratch_bytes() const;     ///< the most scratch memory that was held at once

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace saccade::plan
