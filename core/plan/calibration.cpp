#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/core/plan/call_timer.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/error.h>

#include <bit>
#include <chrono>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace saccade::plan {
namespace {

using kernels::Call;
using kernels::CallKind;

/// Processor, threads and instruction set: what was measured elsewhere is not used.
std::string this_machine() {
  std::string processor = "unknown processor";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) {
      processor = line.substr(line.find(':') + 2);
      break;
    }
  return fmt::format("{}, {} threads, {}", processor, kernels::cpu_threads(), kernels::name_of(kernels::cpu_isa()));
}

bool only_traffic_counts(CallKind kind) { return kind >= CallKind::elementwise; }

/// All that the time of a call depends on.
std::string key_of(const Call& call) {
  std::string key = fmt::format("{} {}", kernels::name_of(call.kind), name_of(call.dtype));
  if (call.kind <= CallKind::conv_backward_weight) {
    const kernels::Conv2d& c = call.conv;
    key +=
        fmt::format(" {}-{} k{} s{} p{} g{}", c.in_channels, c.out_channels, c.kernel, c.stride, c.padding, c.groups);
  } else if (call.kind == CallKind::matmul) {
    const kernels::MatMul& p = call.matmul;
    key += fmt::format(" {}x{}x{}{}{} {}{}", p.m, p.n, p.k, p.transpose_a ? " ta" : "", p.transpose_b ? " tb" : "",
                       name_of(p.out_dtype), p.beta == 0 ? "" : " +");
  } else if (call.kind == CallKind::sinkhorn) {
    key += fmt::format(" {}x{} {}", call.assignment.rows, call.assignment.prototypes, call.assignment.iterations);
  } else if (call.kind == CallKind::swapped_prediction) {
    const kernels::SwappedPrediction& s = call.swapped_prediction;
    key += fmt::format(" {}x{}x{} {}", s.crops, s.batch, s.prototypes, s.assigning);
  } else if (!only_traffic_counts(call.kind)) {
    key += fmt::format(" {}{}{}", call.norm.channels, call.norm.relu ? " relu" : "", call.residual ? " residual" : "");
  }
  for (const Segment& s : call.segments) key += fmt::format(" {}x{}x{}", s.n, s.h, s.w);
  return key;
}

}  // namespace

struct Calibration::Impl {
  explicit Impl(CalibrationOptions o)
      : options(std::move(o)), timer(kernels::backend(Device::cpu), options.memory), machine(this_machine()) {
    if (options.cache.empty()) return;
    std::ifstream file(options.cache);
    const auto json = nlohmann::json::parse(file, nullptr, false);  // no file: discarded
    of_others = file.is_open() && !(json.is_object() && json.contains("machine"));
    if (!json.is_object() || json.value("machine", "") != machine || !json.contains("seconds")) return;
    for (const auto& [key, value] : json["seconds"].items())
      if (value.is_number()) known.emplace(key, value.get<double>());
  }

  double measured(const Call& call) {
    const std::string key =
        only_traffic_counts(call.kind) ? fmt::format("{} {:.0f}", key_of(call), call.bytes) : key_of(call);
    if (const auto it = known.find(key); it != known.end()) return it->second;
    const auto start = std::chrono::steady_clock::now();
    const double seconds = timer.seconds(call);
    measuring += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ++measurements;
    known.emplace(key, seconds);
    return seconds;
  }

  CalibrationOptions options;
  CallTimer timer;
  std::string machine;
  bool of_others = false;               // the file holds something else, and is left
  std::map<std::string, double> known;  // seconds
  int64_t measurements = 0;
  double measuring = 0;
};

Calibration::Calibration(CalibrationOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Calibration::~Calibration() = default;

double Calibration::seconds(const Call& call) {
  if (!only_traffic_counts(call.kind)) return impl_->measured(call);
  // Between a power of two and the next, in proportion.
  constexpr double kLeast = 4096, kMost = 1 << 28;
  Call rounded = call;
  rounded.bytes = kLeast;
  while (rounded.bytes < call.bytes && rounded.bytes < kMost) rounded.bytes *= 2;
  const double upper = impl_->measured(rounded);
  if (call.bytes >= rounded.bytes || rounded.bytes == kLeast) return upper * std::max(1., call.bytes / rounded.bytes);
  rounded.bytes /= 2;
  const double lower = impl_->measured(rounded);
  return lower + (upper - lower) * (call.bytes / rounded.bytes - 1);
}

bool Calibration::save() {
  if (impl_->options.cache.empty() || impl_->measurements == 0) return true;
  if (impl_->of_others) return false;
  nlohmann::json json;
  json["machine"] = impl_->machine;
  json["seconds"] = impl_->known;
  std::error_code failed;
  if (impl_->options.cache.has_parent_path())
    std::filesystem::create_directories(impl_->options.cache.parent_path(), failed);
  try {
    io::write_file_atomically(impl_->options.cache, json.dump(1) + "\n");
  } catch (const Error&) {
    return false;
  }
  return true;
}

void Calibration::release() { impl_->timer.release(); }
int64_t Calibration::measurements() const { return impl_->measurements; }
double Calibration::measuring_seconds() const { return impl_->measuring; }
int64_t Calibration::scratch_bytes() const { return impl_->timer.most_bytes(); }

}  // namespace saccade::plan
