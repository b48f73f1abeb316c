#pragma once

#include <saccade/core/named_tensor.h>
#include <saccade/ssl/train/setting_names.h>

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Watches a training for collapse through tensors that its loss has made anyway, at well under 1 % of a step's time.
/// What is true of the embeddings of every method is read and judged here; a method adds HealthRules. What each metric
/// means, its bands, and the advice: docs/training.md.

namespace saccade::ssl {

enum class Band : uint8_t { healthy, warn, alarm };
const char* name_of(Band band);

/// One health metric and the band it falls in.
struct HealthMetric {
  std::string name;  ///< "loss gap", "spread", "common direction", ...
  double value = 0;
  Band band = Band::healthy;
};

/// How a metric is judged and read: serves the monitor and the reports.
struct MetricGuide {
  static constexpr double kNone = std::numeric_limits<double>::infinity();
  std::string_view name;
  enum class Bad : uint8_t { neither, low, high } bad;  ///< on which side trouble lies
  double warn, alarm;                                   ///< trouble lies beyond; infinite: no such band
  std::string_view note;                                ///< how to read it, in a sentence
  /// What its alarm says of a collapse, with {} (as fmt has it) for the value; empty: it is no sign of one.
  std::string_view sign = {};
  Band band(double value) const;
};

struct HealthReading {
  int64_t iteration = 0;
  std::vector<HealthMetric> metrics;
  const HealthMetric* find(std::string_view name) const;  ///< null when this reading has none of that name
  double value(std::string_view name) const;              ///< NaN then
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
  /// The loss may stay no better than chance, or the embeddings crowded, for so long after learning should begin.
  int64_t stuck_iterations = 500;
  /// From here on, for so long, crops may be found no more often than by the untrained network.
  int64_t found_from = 200, found_iterations = 500;
  /// From here on they must be found as often as the method's guides say.
  int64_t found_often_from = 2000;
  int64_t spectrum_embeddings = 2048;  ///< gathered over readings for effective rank and spectrum
  bool untrained = true;               ///< the first reading is of a network that has learned nothing yet
  SettingNames names = {};             ///< for advice

  /// For a run of so many iterations: of a short one it is told sooner that it learns little, while it can still be
  /// stopped. Collapse and a loss at chance are left their time, since some good runs begin so.
  HealthOptions for_run(int64_t iterations, int64_t per_epoch) const;
};

/// The loss of a network that knows nothing of its images.
struct Chance {
  double loss = std::numeric_limits<double>::quiet_NaN();  ///< NaN: the method has no such level
  std::string_view name = {};                              ///< "ln K"
  bool judged = true;                                      ///< by now the loss should come below it
};

/// A running training, as it is looked at.
struct HealthLook {
  int64_t iteration = 0;
  int64_t images = 0;                 ///< of the iteration
  float loss = 0;                     ///< their mean
  std::span<const NamedTensor> seen;  ///< as Objective::seen(), on the CPU
  Chance chance = {};
  bool finite = true;    ///< loss and metrics; known when judging
  bool settled = false;  ///< past HealthOptions::settle_iterations

  double gap() const { return chance.loss - double{loss}; }  ///< how far the loss lies below chance; NaN: not known
  const Tensor* find(std::string_view name) const;           ///< of what was seen; null if nothing has that name
};

/// Values by name that outlast a reading: written into a checkpoint, or read from one, by the same list.
class HealthMemory {
 public:
  virtual ~HealthMemory() = default;
  virtual void operator()(const char* name, double& value) = 0;
  virtual void operator()(const char* name, int64_t& value) = 0;
  virtual void operator()(const char* name, std::vector<double>& values) = 0;
};

class HealthMonitor;

/// What a method knows of healthy and troubled runs of it, beside what the monitor knows of all embeddings. As it
/// stands, this class adds nothing.
class HealthRules {
 public:
  HealthRules() = default;
  virtual ~HealthRules() = default;
  HealthRules(const HealthRules&) = delete;
  HealthRules& operator=(const HealthRules&) = delete;

  /// How many of the rows of "embeddings" are looked at: the first views of each image, which should look alike.
  virtual int64_t views() const { return 2; }
  /// Of the metrics that measure() and judge() add. One that has the name of a metric of the monitor's own replaces its
  /// guide. Must outlive the rules.
  virtual std::span<const MetricGuide> guides() const { return {}; }
  virtual Chance chance(const HealthLook& /*look*/) const { return {}; }
  /// Whether the run tells images apart, so that it has not collapsed whatever it looks like on the way: by default,
  /// when its loss lies 5 % below chance.
  virtual bool learns(const HealthLook& look) const;
  /// Whether embeddings may stay crowded around one direction and be good, as long as crops are found.
  virtual bool may_crowd() const { return false; }
  /// Adds metrics to the reading (HealthMonitor::add).
  virtual void measure(HealthMonitor& /*monitor*/, const HealthLook& /*look*/) {}
  /// Says what is wrong beside collapse (HealthMonitor::lasts, say).
  virtual void judge(HealthMonitor& /*monitor*/, const HealthLook& /*look*/) {}
  /// What helps against a collapse, first things first.
  virtual std::vector<std::string> advice(const HealthOptions& options, const HealthLook& look) const;
  /// Lists all that the rules remember from one reading to the next.
  virtual void remember(HealthMemory& /*memory*/) {}
};

/// Takes readings of a run, judges them, and says each trouble once.
class HealthMonitor {
 public:
  HealthMonitor(std::unique_ptr<HealthRules> rules, HealthOptions options);

  bool due(int64_t iteration) const { return iteration % options_.every == 0; }
  /// Takes a reading of an iteration that is due. Returns what is new to say: nothing on a healthy run.
  /// @param images  of the iteration, whose mean loss it is
  /// @param seen    as Objective::seen(), on the CPU
  std::vector<HealthMessage> observe(int64_t iteration, float loss, int64_t images, std::span<const NamedTensor> seen);

  const HealthReading& last() const { return reading_; }
  const HealthOptions& options() const { return options_; }
  /// Of all metrics that readings may have. A collapse is described by its signs in this order.
  const std::vector<MetricGuide>& guides() const { return guides_; }

  /// @name For the rules of a method
  /// @{
  /// Adds a metric to the reading that is being taken, in the band that its guide says, or another.
  void add(std::string name, double value);
  void add(std::string name, double value, Band band);
  /// Counts a reading with a trouble, or takes back three for one without. True once so many iterations were counted.
  bool lasts(const std::string& trouble, bool now, int64_t iterations);
  /// Says a trouble, unless it was said before and has not been gone for `patience_iterations` since.
  void say(const std::string& trouble, Band band, std::string words, std::vector<std::string> helps);
  double length_error() const { return length_error_; }  ///< of this reading's embeddings: max | |z| - 1 |
  /// @}

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

  /// What was seen of them; null if nothing, or if the iteration was broken off by a loss that is not finite. Throws if
  /// there are fewer rows than are looked at.
  const Tensor* embeddings(const HealthLook& look) const;
  void measure_geometry(const HealthLook& look);
  void measure_spectrum(const HealthLook& look);
  /// Takes a value into a mean over some 200 iterations.
  void average(double& mean, double value) const;
  void judge_collapse(const HealthLook& look);
  void judge_geometry(const HealthLook& look);
  void judge_found(const HealthLook& look);

  std::unique_ptr<HealthRules> rules_;
  HealthOptions options_;
  std::vector<MetricGuide> guides_;
  HealthReading reading_;
  std::vector<HealthMessage> said_;  ///< of this reading
  double length_error_ = 0;
  std::vector<float> gathered_;  ///< embeddings, rows of D, until there are enough
  std::map<std::string, Streak> streaks_;
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  double mean_gap_ = kUnknown, mean_spread_ = kUnknown, mean_common_ = kUnknown;  ///< since readings are judged
  double first_found_ = kUnknown,
         mean_found_ = kUnknown;             ///< crops found by the untrained network, and since it settled
  static constexpr double kRankLeft = 0.25;  ///< of the best effective rank: below, dimensions are lost
  double rank_ = 0, best_rank_ = 0, slope_ = 0;
};

/// The guide of that name; null where there is none.
const MetricGuide* find_guide(std::span<const MetricGuide> guides, std::string_view name);

/// Advice on a setting: kept if the setting has a name.
class Advice {
 public:
  void add(const std::string& setting, std::string words) {
    if (!setting.empty()) all_.push_back(std::move(words));
  }
  std::vector<std::string> all() && { return std::move(all_); }

 private:
  std::vector<std::string> all_;
};

}  // namespace saccade::ssl
