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
    const std::string key = key_of(call);
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
  const int64_t extent = grows(call) ? extent_of(call) : 0;
  if (extent < 1) return impl_->measured(call);
  // Between a power of two and the next, in proportion.
  const auto below = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(extent)));
  const double lower = impl_->measured(with_extent(call, below));
  if (extent == below) return lower;
  const double upper = impl_->measured(with_extent(call, 2 * below));
  return lower + (upper - lower) * static_cast<double>(extent - below) / static_cast<double>(below);
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
