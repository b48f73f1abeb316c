#pragma once

#include <saccade/ssl/report/run_log.h>
#include <saccade/ssl/train/health.h>

#include <span>
#include <string>
#include <vector>

namespace saccade::ssl {

/// How a run stands by the health readings of its last quarter.
struct Verdict {
  Band band = Band::healthy;  ///< the worst of its metrics
  std::string text;           ///< a sentence or two; empty where a run was too short to be judged
};

/// Judges the mean of each metric over the last quarter of a run, by its guide: a run is called healthy only when every
/// reading that has a healthy range is within it and the monitor had nothing to say, for a run can be half dead without
/// any one trouble that lasts.
Verdict verdict_of(const std::vector<LogLine>& log, std::span<const MetricGuide> guides);

}  // namespace saccade::ssl
