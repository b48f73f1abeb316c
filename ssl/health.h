#pragma once

#include <saccade/core/named_tensor.h>
#include <saccade/ssl/setting_names.h>
#include <saccade/ssl/swav.h>

#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::ssl {

enum class Band : uint8_t { healthy, warn, alarm };
const char* name_of(Band band);

/// One health metric and the band it falls in.
struct HealthMetric {
  std::string name;  ///< "loss gap", "spread", "common direction", ...
  double value = 0;
  Band band = Band::healthy;
};

/// How a metric is judged and read. One table of them serves the monitor and the report.
struct MetricGuide {
  std::string_view name;
  enum class Bad : uint8_t { neither, low, high } bad;  ///< on which side trouble lies
  double warn, alarm;                                   ///< trouble lies beyond; infinite: no such band
  std::string_view note;                                ///< how to read it, in a sentence
  Band band(double value) const;
};
/// Of a HealthMetric by name; null where there is none.
const MetricGuide* metric_guide(std::string_view name);

struct HealthReading {
  int64_t iteration = 0;
  std::vector<HealthMetric> metrics;
  /// The value of a metric; NaN when this reading has none of that name.
  double value(std::string_view name) const;
};

/// What the monitor has to say, once for each trouble.
struct HealthMessage {
  int64_t iteration = 0;
  Band band = Band::warn;
  std::string trouble;              ///< what is seen and what it means
  std::vector<std::string> advice;  ///< what to do, first things first
  std::string text() const;         ///< all of it, on several lines
};

struct HealthOptions {
  int64_t every = 20;  ///< iterations between readings
  int64_t iterations_per_epoch = 500;
  /// Readings before this iteration are shown but not judged: a network's first steps look collapsed.
  int64_t settle_iterations = 200;
  /// A sign of collapse must last so long, with few readings between that lack it, before it is spoken of.
  int64_t patience_iterations = 300;
  /// The loss may stay within 1 % of ln K, or the embeddings crowded, for so long after the prototypes are released.
  int64_t stuck_iterations = 500;
  int64_t spectrum_embeddings = 2048;  ///< gathered over readings for effective rank and spectrum
  SettingNames names = {};             ///< for advice
};

/// Watches a run for collapse through tensors that the loss has made anyway, at well under 1 % of a step's time. What
/// each metric means, its bands, and the advice: docs/training.md. All metrics are of the assigning (large) crops.
class HealthMonitor {
 public:
  HealthMonitor(SwAVOptions model, HealthOptions options);

  bool due(int64_t iteration) const { return iteration % options_.every == 0; }
  /// Takes a reading of an iteration that is due. Returns what is new to say: nothing on a healthy run.
  /// @param queue_in_use  as SwAV::queue_in_use(iteration)
  std::vector<HealthMessage> observe(int64_t iteration, float loss, const StepTensors& step, bool queue_in_use = false);

  const HealthReading& last() const { return reading_; }

  /// @name All it remembers, so that a resumed run speaks as an uninterrupted one.
  /// @{
  std::string state() const;  ///< JSON
  std::vector<NamedTensor> state_tensors() const;
  void load_state(const std::string& json, const std::vector<NamedTensor>& tensors);
  /// @}

 private:
  struct Streak {
    int64_t readings = 0;  ///< with it, less three for each without; no more than are needed to speak
    int64_t calm = 0;      ///< readings in a row without it
    bool told = false;     ///< until it has been calm for `patience_iterations`
  };

  void measure_geometry(const StepTensors& step);
  void measure_assignments(const StepTensors& step, bool queue_in_use);
  void measure_spectrum(const StepTensors& step);
  void add(std::string name, double value);
  void add(std::string name, double value, Band band);
  const HealthMetric& metric(std::string_view name) const;
  /// Takes a value into a mean over some 200 iterations.
  void average(double& mean, double value) const;
  /// Counts a reading with a trouble, or takes back three for one without. True once so many iterations were counted.
  bool lasts(const std::string& trouble, bool now, int64_t iterations);
  void say(const std::string& trouble, Band band, std::string words, std::vector<std::string> helps);
  void judge_collapse(float loss, double gap);
  void judge_prototypes(double gap);
  void judge_queue(float loss, bool queue_in_use);
  std::vector<std::string> advice() const;

  SwAVOptions model_;
  HealthOptions options_;
  HealthReading reading_;
  std::vector<HealthMessage> said_;      ///< of this reading
  int64_t batch_ = 0;                    ///< images a step, as observed
  double length_error_ = 0;              ///< of embeddings: max | |z| - 1 |
  std::vector<double> mean_prediction_;  ///< running mean of softmax(S / tau), K
  std::vector<float> gathered_;          ///< embeddings, rows of `dim`, until there are enough
  std::map<std::string, Streak> streaks_;
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  double mean_gap_ = kNone, mean_spread_ = kNone, mean_common_ = kNone;  ///< since readings are judged
  static constexpr double kRankLeft = 0.25;  ///< of the best effective rank: below, dimensions are lost
  double rank_ = 0, best_rank_ = 0, slope_ = 0;
  std::deque<double> losses_;  ///< of the readings of the last epoch
  double before_queue_ = 0;    ///< mean loss of the epoch before the queue came into use; 0: not yet, -1: no such epoch
  int64_t readings_of_queue_ = 0;
};

}  // namespace saccade::ssl
