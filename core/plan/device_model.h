#pragma once

#include <saccade/kernels/rehearsal.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// @file
/// How long a rehearsed step would take: on a device that somebody described, or on this machine (calibration.h).

namespace saccade::plan {

/// Knows how long calls take. Not thread-safe.
class TimeModel {
 public:
  virtual ~TimeModel() = default;
  virtual double seconds(const kernels::Call& call) = 0;
};

/// For questions about memory alone.
struct NoTime final : TimeModel {
  double seconds(const kernels::Call& /*call*/) override { return 0; }
};

/// Adds up what the calls of a rehearsal would take: install it with a kernels::MetaListenScope.
class Clock final : public kernels::MetaListener {
 public:
  explicit Clock(TimeModel& model) : model_(model) {}
  void on_call(const kernels::Call& call) override {
    const double seconds = model_.seconds(call);
    all_ += seconds;
    by_name_[name_of(call)] += seconds;
  }
  double seconds() const { return all_; }
  const std::map<std::string_view, double>& by_name() const { return by_name_; }

 private:
  TimeModel& model_;
  double all_ = 0;
  std::map<std::string_view, double> by_name_;
};

/// A device as a data sheet and experience describe it. The file that it is read from names its sources.
struct DeviceDescription {
  std::string name;
  int64_t memory_bytes = 0;    ///< what the device reports as its own
  int64_t reserved_bytes = 0;  ///< of those, what context and libraries take before the first tensor
  double f32_flops = 0, f16_flops = 0, bf16_flops = 0;  ///< peak, 2 a multiply-accumulate, a second
  double bytes_per_second = 0;                          ///< of the device's memory, peak
  double call_seconds = 0;  ///< least time of a call: launch, or entering and leaving threads
  /// Share of the peak that is reached: of arithmetic in dense and in grouped convolutions and in matrix products (1x1
  /// convolutions too), of bandwidth in batch norms and in everything else.
  double convolution = 1, grouped_convolution = 1, matmul = 1, batch_norm = 1, memory = 1;
  std::string conv_workspaces = {};  ///< whose workspaces convolutions take (ConvWorkspaces); empty: the CPU backend's

  int64_t usable_bytes() const { return memory_bytes - reserved_bytes; }
};

/// Names of the descriptions that come with the library: "v100-32gb", "a100-40gb", "a100-80gb", "h100-80gb", "cpu".
std::vector<std::string> device_names();
/// The description of that name, or, where the text has a "." or a "/", of a JSON file of one's own with the same
/// members (core/plan/devices has them to copy). Throws on an unknown name, a missing member or a value that is not
/// positive.
DeviceDescription device_description(std::string_view name_or_path);

/// A call takes the longer of its arithmetic and its traffic, and a little more; of an op in several calls that is the
/// one that counts.
class DescribedDevice final : public TimeModel {
 public:
  explicit DescribedDevice(DeviceDescription device) : device_(std::move(device)) {}
  const DeviceDescription& description() const { return device_; }
  double seconds(const kernels::Call& call) override;

 private:
  DeviceDescription device_;
};

}  // namespace saccade::plan
