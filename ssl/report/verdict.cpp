#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/ssl/report/verdict.h>

#include <algorithm>
#include <cmath>

namespace saccade::ssl {
namespace {

constexpr int64_t kReadings = 5;  ///< fewer are chance

/// "healthy above 0.5": where no more is known of a metric than where trouble begins.
std::string healthy_range(const MetricGuide& guide) {
  const double limit = std::isfinite(guide.warn) ? guide.warn : guide.alarm;
  return fmt::format("healthy {} {:g}", guide.bad == MetricGuide::Bad::high ? "up to" : "from", limit);
}

}  // namespace

Verdict verdict_of(const std::vector<LogLine>& log, std::span<const MetricGuide> guides) {
  int64_t last = -1, messages = 0;
  for (const LogLine& line : log) {
    if (line.kind == "step") last = std::max(last, line.step);
    if (line.kind == "message") ++messages;
  }
  const int64_t from = std::max(last * 3 / 4, HealthOptions{}.settle_iterations);
  Verdict verdict;
  std::vector<std::string> outside, inside;
  for (const MetricGuide& guide : guides) {
    if (!std::isfinite(guide.warn) && !std::isfinite(guide.alarm)) continue;
    double sum = 0;
    int64_t count = 0;
    for (const LogLine& line : log) {
      if (line.kind != "health" || line.step < from) continue;
      const auto at = line.numbers.find(std::string(guide.name));
      if (at == line.numbers.end()) continue;
      sum += at->second;
      ++count;
    }
    if (count < kReadings) continue;
    const double mean = sum / static_cast<double>(count);
    const Band band = guide.band(mean);
    verdict.band = std::max(verdict.band, band);
    if (band == Band::healthy)
      inside.push_back(fmt::format("{} {:.2g}", guide.name, mean));
    else
      outside.push_back(fmt::format("{} {:.2g} ({})", guide.name, mean, healthy_range(guide)));
  }
  if (inside.empty() && outside.empty()) return verdict;
  if (!outside.empty())
    verdict.text = fmt::format(
        "Not healthy in all: over its last quarter the run had {}. Its features may be worth little: compare them with "
        "raw pixels.",
        fmt::join(outside, ", "));
  else if (messages > 0)
    verdict.text = fmt::format("By its end all readings are in their healthy ranges: {}.", fmt::join(inside, ", "));
  else
    verdict.text =
        fmt::format("Healthy: the monitor found nothing to report, and all readings are in their ranges: {}.",
                    fmt::join(inside, ", "));
  return verdict;
}

}  // namespace saccade::ssl
