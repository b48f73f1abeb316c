#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/ssl/train/health.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace saccade::ssl {

namespace {

// Parts of the loss of chance by which the loss lies below it: what a network without knowledge reaches, and what none
// with collapsed embeddings does.
constexpr double kChance = 0.01, kLearning = 0.05;
// Means of spread and common direction that were seen when the learning rate was far too high (0.09-0.42, 0.73-0.97);
// small networks have 0.49 and 0.65 while they learn.
constexpr double kCrowdedSpread = 0.45, kCrowdedCommon = 0.7;

// A half-dead run on CIFAR-10, whose features were worth less than the pixels, had 0.043; one with good features 0.29.
constexpr double kRankShare = 1.0 / 16;

// Shares of crops found, by the untrained network and by now, beyond which crops are all but the same: of a run on
// areas of 90 to 100 % without changes of colour 0.38 and 0.98 (its features were worth eight points less by kNN
// than those of areas from 20 %); of others at most 0.13 and 0.82.
constexpr double kFoundUntrained = 0.3, kFoundAll = 0.95;

// What docs/training.md has a table for: a run whose crops are found less often is worth less than raw pixels, whatever
// its network found untrained; of methods that may_crowd() one that finds so many tells images apart, however crowded
// its embeddings look.
constexpr double kFoundRarely = 0.12, kFoundWell = 0.4, kNoGain = 1.1;

constexpr double kNone = MetricGuide::kNone;
using Bad = MetricGuide::Bad;

// Where runs are known to lie: healthy ones on Fashion-MNIST have, once they have learned, spread 0.94-0.98, common
// direction 0.01-0.16, view margin 0.75-0.95; those that were made to collapse have a spread of 0.00-0.08, common
// direction 0.95-1, view margin 0.00-0.02. The spectrum tells no one from the other (slopes of 1.7-3.3 and 2.3-2.5), so
// it has no bands.
constexpr MetricGuide kBeforeTheMethods[] = {
    {"loss gap", Bad::neither, kNone, kNone,
     "The loss of chance minus the loss. It should grow; near 0 the network does no better than chance."},
    {"learned", Bad::low, kLearning, -kNone,
     "The loss gap as a share of the loss of chance. It grows, to 0.2 or more; a run that stays below 0.05 learns "
     "little."},
    {"spread", Bad::low, 0.5, 0.1, "How evenly embeddings fill their sphere. Near 1 is healthy, below 0.1 collapsed.",
     "the embeddings of different images are nearly the same (spread {:.2f}, healthy near 1)"},
    {"common direction", Bad::high, 0.5, 0.9,
     "What all embeddings share. Near 0 is healthy, above 0.9 nearly all of them is shared.",
     "all embeddings point one way (common direction {:.2f}, healthy near 0)"},
};
constexpr MetricGuide kBehindTheMethods[] = {
    {"view margin", Bad::low, -kNone, 0.02, "How much closer two views of one image are than views of two. It grows.",
     "two views of one image are no more alike than those of two images (margin {:.3f})"},
    {"crop found", Bad::low, kFoundRarely, -kNone,
     "How often the nearest of other crops, of 128 images, is an image's own. It grows beyond what it was untrained."},
    {"found gain", Bad::low, kNoGain, -kNone,
     "The odds of that, in the mean, for each of the untrained network's. They grow; below 1 the network learned less "
     "than it forgot."},
    {"effective rank", Bad::neither, kNone, kNone, "Dimensions in use (RankMe). Compare within one recipe only."},
    {"rank share", Bad::low, kRankShare, -kNone,
     "The effective rank as a share of the embeddings' dimensions. Below a sixteenth they say little."},
    {"spectrum slope", Bad::neither, kNone, kNone,
     "Decay of the eigenvalues (alpha-ReQ). Compare within one recipe only."},
};

/// JSON has no infinities: what was not finite comes back as null.
double number(const nlohmann::json& value) { return value.is_null() ? std::nan("") : value.get<double>(); }

class Writing final : public HealthMemory {
 public:
  explicit Writing(nlohmann::json& to) : to_(to) {}
  void operator()(const char* name, double& value) override { to_[name] = value; }
  void operator()(const char* name, int64_t& value) override { to_[name] = value; }
  void operator()(const char* name, std::vector<double>& values) override { to_[name] = values; }

 private:
  nlohmann::json& to_;
};

class Reading final : public HealthMemory {
 public:
  explicit Reading(const nlohmann::json& from) : from_(from) {}
  void operator()(const char* name, double& value) override { value = number(from_.at(name)); }
  void operator()(const char* name, int64_t& value) override { value = from_.at(name).get<int64_t>(); }
  void operator()(const char* name, std::vector<double>& values) override {
    values.clear();
    if (!from_.contains(name)) return;  // a checkpoint of a version that knew nothing of it
    for (const auto& v : from_.at(name)) values.push_back(number(v));
  }

 private:
  const nlohmann::json& from_;
};

}  // namespace

const char* name_of(Band band) { return band == Band::healthy ? "healthy" : band == Band::warn ? "warn" : "alarm"; }

Band MetricGuide::band(double value) const {
  const auto beyond = [&](double limit) {
    return bad == Bad::high ? value > limit : bad == Bad::low ? value < limit : false;
  };
  return beyond(alarm) ? Band::alarm : beyond(warn) ? Band::warn : Band::healthy;
}

const MetricGuide* find_guide(std::span<const MetricGuide> guides, std::string_view name) {
  const auto found = std::ranges::find(guides, name, &MetricGuide::name);
  return found == guides.end() ? nullptr : &*found;
}

const HealthMetric* HealthReading::find(std::string_view name) const {
  const auto found = std::ranges::find(metrics, name, &HealthMetric::name);
  return found == metrics.end() ? nullptr : &*found;
}

double HealthReading::value(std::string_view name) const {
  const HealthMetric* metric = find(name);
  return metric == nullptr ? std::numeric_limits<double>::quiet_NaN() : metric->value;
}

std::string HealthMessage::text() const {
  std::string text =
      fmt::format("{} at iteration {}: {}", band == Band::alarm ? "ALARM" : "Warning", iteration, trouble);
  if (!advice.empty()) text += "\n  What helps, in this order:";
  for (size_t i = 0; i < advice.size(); ++i) text += fmt::format("\n  {}. {}", i + 1, advice[i]);
  return text;
}

const Tensor* HealthLook::find(std::string_view name) const {
  const auto found = std::ranges::find(seen, name, &NamedTensor::name);
  return found == seen.end() || !found->tensor.defined() ? nullptr : &found->tensor;
}

bool HealthRules::learns(const HealthLook& look) const { return look.gap() >= kLearning * look.chance.loss; }

std::vector<std::string> HealthRules::advice(const HealthOptions& options, const HealthLook& look) const {
  const SettingNames& names = options.names;
  Advice helps;
  helps.add(names.lr, fmt::format("Scale the learning rate ({}) to the batch of {}.", names.lr, look.images));
  helps.add(names.crops, fmt::format("Fewer or softer crops: larger areas ({}), weaker colour jitter ({}).",
                                     names.crops, names.jitter));
  return std::move(helps).all();
}

HealthOptions HealthOptions::for_run(int64_t iterations, int64_t per_epoch) const {
  HealthOptions options = *this;
  options.iterations_per_epoch = per_epoch;
  options.found_from = std::min(found_from, std::max<int64_t>(iterations / 8, 60));
  options.found_iterations = std::min(found_iterations, std::max<int64_t>(iterations / 4, 100));
  options.found_often_from = std::max(options.found_from, iterations / 5);
  return options;
}

HealthMonitor::HealthMonitor(std::unique_ptr<HealthRules> rules, HealthOptions options)
    : rules_(std::move(rules)), options_(std::move(options)) {
  if (options_.every < 1) options_.every = 1;
  const std::span<const MetricGuide> own = rules_->guides();
  const auto add = [&](std::span<const MetricGuide> guides) {
    for (const MetricGuide& guide : guides)
      if (find_guide(guides_, guide.name) == nullptr) {
        const MetricGuide* replaced = find_guide(own, guide.name);
        guides_.push_back(replaced != nullptr ? *replaced : guide);
      }
  };
  add(kBeforeTheMethods);
  add(own);
  add(kBehindTheMethods);
}

void HealthMonitor::add(std::string name, double value) {
  const MetricGuide* guide = find_guide(guides_, name);
  add(std::move(name), value, guide != nullptr ? guide->band(value) : Band::healthy);
}

void HealthMonitor::add(std::string name, double value, Band band) {
  reading_.metrics.push_back({std::move(name), value, band});
}

void HealthMonitor::average(double& mean, double value) const {
  const double weight = std::min(static_cast<double>(options_.every) / 200.0, 1.0);
  mean = std::isnan(mean) ? value : mean + weight * (value - mean);
}

bool HealthMonitor::lasts(const std::string& trouble, bool now, int64_t iterations) {
  const int64_t needed = std::max<int64_t>(iterations / options_.every, 1);
  Streak& streak = streaks_[trouble];
  // A metric near the edge of its band wavers: a reading outside takes back three, it does not start the count anew.
  streak.readings = now ? std::min(streak.readings + 1, needed) : std::max<int64_t>(streak.readings - 3, 0);
  streak.calm = now ? 0 : streak.calm + 1;
  if (streak.calm * options_.every >= options_.patience_iterations) streak.told = false;
  return streak.readings >= needed;
}

void HealthMonitor::say(const std::string& trouble, Band band, std::string words, std::vector<std::string> helps) {
  if (std::exchange(streaks_[trouble].told, true)) return;
  said_.push_back({reading_.iteration, band, std::move(words), std::move(helps)});
}

std::vector<HealthMessage> HealthMonitor::observe(int64_t iteration, float loss, int64_t images,
                                                  std::span<const NamedTensor> seen) {
  reading_ = {.iteration = iteration, .metrics = {}};
  said_.clear();
  length_error_ = 0;
  HealthLook look{.iteration = iteration,
                  .images = images,
                  .loss = loss,
                  .seen = seen,
                  .settled = iteration >= options_.settle_iterations};
  look.chance = rules_->chance(look);
  if (!std::isnan(look.chance.loss)) {
    if (look.settled && std::isfinite(look.gap())) average(mean_gap_, look.gap());
    const bool at_chance = look.settled && look.chance.judged && !(mean_gap_ >= kChance * look.chance.loss);
    add("loss gap", look.gap(), lasts("stuck", at_chance, options_.stuck_iterations) ? Band::alarm : Band::healthy);
    if (look.chance.judged) add("learned", look.gap() / look.chance.loss);
  }
  measure_geometry(look);
  rules_->measure(*this, look);
  measure_spectrum(look);

  look.finite = std::isfinite(loss) &&
                std::ranges::all_of(reading_.metrics, [](const HealthMetric& m) { return std::isfinite(m.value); });
  if (lasts("not finite", !look.finite, 1))
    say("not finite", Band::alarm,
        "the loss or the embeddings are no longer finite numbers; nothing learned from here on counts.",
        rules_->advice(options_, look));
  if (look.finite && look.settled) {
    judge_collapse(look);
    judge_geometry(look);
  }
  if (look.finite) judge_found(look);
  rules_->judge(*this, look);
  return std::exchange(said_, {});
}

void HealthMonitor::judge_collapse(const HealthLook& look) {
  const HealthMetric* gap = reading_.find("loss gap");
  const bool stuck = gap != nullptr && gap->band == Band::alarm, learns = rules_->learns(look);
  std::vector<std::string> seen;
  bool lasting = stuck;
  for (const MetricGuide& guide : guides_) {
    const HealthMetric* m = guide.sign.empty() ? nullptr : reading_.find(guide.name);
    if (m == nullptr) continue;
    // A run whose loss tells images apart has not collapsed, whatever it looks like on the way.
    const bool alarm = m->band == Band::alarm && !learns;
    lasting = lasts(m->name, alarm, options_.patience_iterations) || lasting;
    if (alarm) seen.push_back(fmt::format(fmt::runtime(guide.sign), m->value));
  }
  lasts("collapse", stuck || !seen.empty(), 1);
  if (!lasting) return;
  const std::string loss_words =
      fmt::format("the loss has not come 1 % below {} = {:.3f} for {} iterations (now {:.3f}), no better than chance",
                  look.chance.name, look.chance.loss, options_.stuck_iterations, look.loss);
  if (seen.empty())
    say("collapse", Band::alarm, "the run is not learning: " + loss_words + ".", rules_->advice(options_, look));
  else
    say("collapse", Band::alarm,
        fmt::format("the run has collapsed: {}{}. The network answers alike whatever it is shown, and its features "
                    "are worth little.",
                    fmt::join(seen, "; "), stuck ? "; " + loss_words : ""),
        rules_->advice(options_, look));
}

void HealthMonitor::judge_geometry(const HealthLook& look) {
  const HealthMetric *spread = reading_.find("spread"), *common = reading_.find("common direction");
  if (spread == nullptr || common == nullptr) return;
  // A rate that is too high throws the embeddings to and fro, so that only means tell.
  average(mean_spread_, spread->value);
  average(mean_common_, common->value);
  const bool crowded = mean_spread_ < kCrowdedSpread && mean_common_ > kCrowdedCommon &&
                       !(rules_->may_crowd() && mean_found_ > kFoundWell);
  const bool collapsed = streaks_["collapse"].told;
  if (lasts("crowded", crowded, options_.stuck_iterations) && !collapsed)
    say("crowded", Band::warn,
        fmt::format("the embeddings have stayed crowded around one direction for {} iterations (spread {:.2f}, healthy "
                    "near 1; common direction {:.2f}, healthy near 0): the run learns little, most often because the "
                    "learning rate is far too high, or far too low.",
                    options_.stuck_iterations, mean_spread_, mean_common_),
        rules_->advice(options_, look));
  if (lasts("rank", best_rank_ > 0 && rank_ < kRankLeft * best_rank_, options_.patience_iterations) && !collapsed)
    say("rank", Band::warn,
        fmt::format("the embeddings have lost dimensions: effective rank {:.1f}, and it was {:.1f} at best.", rank_,
                    best_rank_),
        rules_->advice(options_, look));
}

void HealthMonitor::judge_found(const HealthLook& look) {
  const HealthMetric* gain = reading_.find("found gain");
  if (gain == nullptr || streaks_["collapse"].told) return;
  const SettingNames& names = options_.names;
  if (lasts("alike", first_found_ > kFoundUntrained && mean_found_ > kFoundAll, options_.found_iterations)) {
    Advice harder;
    harder.add(names.crops, fmt::format("Harder crops: smaller areas ({}), stronger changes of colour ({}).",
                                        names.crops, names.jitter));
    say("alike", Band::warn,
        fmt::format(
            "the other crop of an image is found without fail ({:.0f} % among the images of a batch; {:.0f} % by "
            "the untrained network): the crops are too much alike for there to be more to learn.",
            100 * mean_found_, 100 * first_found_),
        std::move(harder).all());
  }
  // Collapsed and crowded embeddings are told apart by what says more of them.
  const bool told_otherwise = streaks_["collapse"].readings > 0 || streaks_["crowded"].readings > 0;
  const bool rare = find_guide(guides_, "crop found")->band(mean_found_) != Band::healthy;
  const bool too_few =
      gain->value < kNoGain || (look.iteration >= options_.found_often_from && (rare || gain->band != Band::healthy));
  if (lasts("found", too_few, options_.found_iterations) && !told_otherwise)
    say("found", Band::warn,
        fmt::format("the other crop of an image is found {} ({:.1f} % among the images of a batch, {:.1f} % by the "
                    "untrained network): the run learns little, and its features may be worth less than raw pixels.",
                    gain->band != Band::healthy ? "hardly more often than by the untrained network" : "rarely",
                    100 * mean_found_, 100 * first_found_),
        rules_->advice(options_, look));
}

std::string HealthMonitor::state() const {
  nlohmann::json j = {{"rank", rank_},
                      {"best rank", best_rank_},
                      {"slope", slope_},
                      {"mean gap", mean_gap_},
                      {"mean spread", mean_spread_},
                      {"mean common", mean_common_},
                      {"first found", first_found_},
                      {"mean found", mean_found_}};
  Writing writing(j);
  rules_->remember(writing);
  for (const auto& [name, streak] : streaks_) j["streaks"][name] = {streak.readings, streak.calm, streak.told};
  return j.dump();
}

std::vector<NamedTensor> HealthMonitor::state_tensors() const {
  if (gathered_.empty()) return {};
  return {{"gathered", Tensor::from(gathered_, {static_cast<int64_t>(gathered_.size())})}};
}

void HealthMonitor::load_state(const std::string& json, const std::vector<NamedTensor>& tensors) {
  const auto j = nlohmann::json::parse(json);
  rank_ = number(j.at("rank"));
  best_rank_ = number(j.at("best rank"));
  slope_ = number(j.at("slope"));
  mean_gap_ = number(j.at("mean gap"));
  mean_spread_ = number(j.at("mean spread"));
  mean_common_ = number(j.at("mean common"));
  if (j.contains("first found")) {  // else a checkpoint of a version that did not compare
    first_found_ = number(j.at("first found"));
    mean_found_ = number(j.at("mean found"));
  }
  Reading reading(j);
  rules_->remember(reading);
  streaks_.clear();
  if (j.contains("streaks"))
    for (const auto& [name, streak] : j.at("streaks").items())
      streaks_[name] = {streak.at(0).get<int64_t>(), streak.at(1).get<int64_t>(), streak.at(2).get<bool>()};
  gathered_.clear();
  for (const NamedTensor& t : tensors)
    if (t.name == "gathered") gathered_.assign(t.tensor.data<float>().begin(), t.tensor.data<float>().end());
}

}  // namespace saccade::ssl
