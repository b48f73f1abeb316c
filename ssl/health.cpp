#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/ssl/defaults.h>
#include <saccade/ssl/health.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace saccade::ssl {

namespace {

// Parts of ln K by which the loss lies below it: what a network without knowledge reaches, and what none with collapsed
// embeddings does.
constexpr double kChance = 0.01, kLearning = 0.05;
// Means of spread and common direction that were seen when the learning rate was far too high (0.09-0.42, 0.73-0.97);
// small networks have 0.49 and 0.65 while they learn.
constexpr double kCrowdedSpread = 0.45, kCrowdedCommon = 0.7;
constexpr int64_t kFarAbove = 4;  ///< prototypes for each embedding: up to twice as many did no harm where it was tried
constexpr double kAtFloor = 0.8;  ///< part of what the loss can fall at all

/// What one alarm looks like in words.
struct Sign {
  const char* metric;
  const char* words;
};
constexpr Sign kCollapseSigns[] = {
    {"spread", "the embeddings of different images are nearly the same (spread {:.2f}, healthy near 1)"},
    {"common direction", "all embeddings point one way (common direction {:.2f}, healthy near 0)"},
    {"assignment entropy", "assignments are nearly uniform over the prototypes ({:.3f} of the greatest entropy)"},
    {"view margin", "two views of one image are no more alike than those of two images (margin {:.3f})"},
};

}  // namespace

const char* name_of(Band band) { return band == Band::healthy ? "healthy" : band == Band::warn ? "warn" : "alarm"; }

double HealthReading::value(std::string_view name) const {
  const auto found = std::ranges::find(metrics, name, &HealthMetric::name);
  return found == metrics.end() ? std::numeric_limits<double>::quiet_NaN() : found->value;
}

std::string HealthMessage::text() const {
  std::string text =
      fmt::format("{} at iteration {}: {}", band == Band::alarm ? "ALARM" : "Warning", iteration, trouble);
  if (!advice.empty()) text += "\n  What helps, in this order:";
  for (size_t i = 0; i < advice.size(); ++i) text += fmt::format("\n  {}. {}", i + 1, advice[i]);
  return text;
}

HealthMonitor::HealthMonitor(SwAVOptions model, HealthOptions options) : model_(model), options_(std::move(options)) {
  if (options_.every < 1) options_.every = 1;
}

void HealthMonitor::add(std::string name, double value) {
  const MetricGuide* guide = metric_guide(name);
  add(std::move(name), value, guide ? guide->band(value) : Band::healthy);
}

void HealthMonitor::add(std::string name, double value, Band band) {
  reading_.metrics.push_back({std::move(name), value, band});
}

const HealthMetric& HealthMonitor::metric(std::string_view name) const {
  return *std::ranges::find(reading_.metrics, name, &HealthMetric::name);
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

std::vector<HealthMessage> HealthMonitor::observe(int64_t iteration, float loss, const StepTensors& step,
                                                  bool queue_in_use) {
  reading_ = {.iteration = iteration, .metrics = {}};
  said_.clear();
  batch_ = step.batch;
  const double ln_k = std::log(static_cast<double>(model_.prototypes)), gap = ln_k - double{loss};
  const bool settled = iteration >= options_.settle_iterations;
  if (settled && std::isfinite(gap)) average(mean_gap_, gap);
  const bool at_chance = settled && iteration >= model_.freeze_prototypes_iterations && !(mean_gap_ >= kChance * ln_k);
  add("loss gap", gap, lasts("stuck", at_chance, options_.stuck_iterations) ? Band::alarm : Band::healthy);
  measure_geometry(step);
  measure_assignments(step, queue_in_use);
  measure_spectrum(step);

  const bool finite = std::isfinite(loss) && std::ranges::all_of(reading_.metrics, [](const HealthMetric& m) {
                        return std::isfinite(m.value);
                      });
  if (lasts("not finite", !finite, 1))
    say("not finite", Band::alarm,
        "the loss or the embeddings are no longer finite numbers; nothing learned from here on counts.", advice());
  if (finite && lasts("length", length_error_ > 1e-3, 1))
    say("length", Band::alarm,
        fmt::format("embeddings are not of unit length (off by {:.2g}): scores are then no cosines, and the "
                    "assignments have no scale.",
                    length_error_),
        {fmt::format("Normalise embeddings to unit length before the prototypes ({}).",
                     options_.names.unit_embeddings)});
  if (finite) judge_prototypes(gap);
  if (finite && settled) judge_collapse(loss, gap);
  judge_queue(loss, queue_in_use);
  return std::exchange(said_, {});
}

void HealthMonitor::judge_collapse(float loss, double gap) {
  const double ln_k = std::log(static_cast<double>(model_.prototypes));
  const bool stuck = metric("loss gap").band == Band::alarm;
  std::vector<std::string> seen;
  bool lasting = stuck;
  for (const Sign& sign : kCollapseSigns) {
    const HealthMetric& m = metric(sign.metric);
    // A run whose loss tells images apart has not collapsed, whatever it looks like on the way.
    const bool alarm = m.band == Band::alarm && gap < kLearning * ln_k;
    lasting = lasts(sign.metric, alarm, options_.patience_iterations) || lasting;
    if (alarm) seen.push_back(fmt::format(fmt::runtime(sign.words), m.value));
  }
  lasts("collapse", stuck || !seen.empty(), 1);
  const std::string loss_words =
      fmt::format("the loss has not come 1 % below ln K = {:.3f} for {} iterations (now {:.3f}), no better than chance",
                  ln_k, options_.stuck_iterations, loss);
  if (lasting && seen.empty())
    say("collapse", Band::alarm, "the run is not learning: " + loss_words + ".", advice());
  else if (lasting)
    say("collapse", Band::alarm,
        fmt::format("the run has collapsed: {}{}. The network answers alike whatever it is shown, and its features "
                    "are worth little.",
                    fmt::join(seen, "; "), stuck ? "; " + loss_words : ""),
        advice());

  // A rate that is too high throws the embeddings to and fro, so that only means tell.
  average(mean_spread_, metric("spread").value);
  average(mean_common_, metric("common direction").value);
  const bool crowded = mean_spread_ < kCrowdedSpread && mean_common_ > kCrowdedCommon;
  const bool collapsed = streaks_["collapse"].told;
  if (lasts("crowded", crowded, options_.stuck_iterations) && !collapsed)
    say("crowded", Band::warn,
        fmt::format("the embeddings have stayed crowded around one direction for {} iterations (spread {:.2f}, healthy "
                    "near 1; common direction {:.2f}, healthy near 0): the run learns little, most often because the "
                    "learning rate is far too high, or far too low.",
                    options_.stuck_iterations, mean_spread_, mean_common_),
        advice());
  if (lasts("rank", best_rank_ > 0 && rank_ < kRankLeft * best_rank_, options_.patience_iterations) && !collapsed)
    say("rank", Band::warn,
        fmt::format("the embeddings have lost dimensions: effective rank {:.1f}, and it was {:.1f} at best.", rank_,
                    best_rank_),
        advice());
}

void HealthMonitor::judge_prototypes(double gap) {
  // The assignments of N embeddings give each of K prototypes N / K of one: no image's assignment is then sharper than
  // K / N prototypes, and the loss not lower than ln(K / N).
  const int64_t k = model_.prototypes, rows = batch_ + model_.queue_length;
  if (k <= kFarAbove * rows) return;
  const double share = static_cast<double>(k) / static_cast<double>(rows);
  const SettingNames& names = options_.names;
  std::vector<std::string> helps;
  const auto help = [&](const std::string& setting, std::string words) {
    if (!setting.empty()) helps.push_back(std::move(words));
  };
  help(names.prototypes,
       fmt::format("Use fewer prototypes ({}): about ten times the classes you expect, and no more than {}.",
                   names.prototypes, rows));
  help(names.queue,
       fmt::format("Or let earlier embeddings take part: a queue of {} ({}).", (k - 1) / batch_ * batch_, names.queue));
  help(names.batch, fmt::format("Or a larger batch ({}).", names.batch));
  say("prototypes", Band::warn,
      fmt::format(
          "{} prototypes share {} embeddings at a time ({} images a batch, a queue of {}), so that each image is "
          "spread over {:.3g} prototypes at least, and those of one kind cannot share them: images are told "
          "apart rather than grouped, and the loss cannot fall much below {:.3f}.",
          k, rows, batch_, model_.queue_length, share, std::log(share)),
      helps);
  const double most = std::log(static_cast<double>(rows));
  if (lasts("floor", gap > kAtFloor * most, options_.patience_iterations))
    say("floor", Band::warn,
        fmt::format(
            "the loss has come near the floor that so many prototypes set: ln K - loss is {:.2f}, and can be {:.2f} "
            "at most. Longer training helps little; how good the features are, only a task tells.",
            gap, most),
        helps);
}

void HealthMonitor::judge_queue(float loss, bool queue_in_use) {
  // Single losses waver by more than what is looked for: short epochs are taken together.
  const auto window =
      static_cast<size_t>(std::max<int64_t>(std::max<int64_t>(options_.iterations_per_epoch, 200) / options_.every, 1));
  const auto mean = [&] {
    return std::accumulate(losses_.begin(), losses_.end(), 0.0) / static_cast<double>(losses_.size());
  };
  if (queue_in_use && before_queue_ == 0) {
    before_queue_ = losses_.size() < window ? -1 : mean();
    losses_.clear();
  }
  losses_.push_back(double{loss});
  if (losses_.size() > window) losses_.pop_front();
  if (before_queue_ <= 0 || losses_.size() < window) return;
  const double rise = mean() / before_queue_ - 1.0;
  add("loss since queue", rise);
  // Judged once, over the first epoch with the queue.
  if (readings_of_queue_++ == 0 && reading_.metrics.back().band == Band::alarm)
    say("queue", Band::alarm,
        fmt::format("the loss rose by {:.1f} % over the first epoch with the queue, and it should fall: the queue's "
                    "embeddings are older than the network can bear.",
                    100 * rise),
        {fmt::format("Start the queue later ({}), when embeddings change more slowly.", options_.names.queue_start),
         fmt::format("Make it shorter than {} rows ({}).", model_.queue_length, options_.names.queue)});
}

std::vector<std::string> HealthMonitor::advice() const {
  const SettingNames& names = options_.names;
  std::vector<std::string> helps;
  const auto help = [&](const std::string& setting, std::string words) {
    if (!setting.empty()) helps.push_back(std::move(words));
  };
  if (!model_.unit_embeddings)
    help(names.unit_embeddings, fmt::format("Normalise embeddings to unit length ({}).", names.unit_embeddings));
  help(names.lr,
       fmt::format("Scale the learning rate ({}) to the batch of {}: about {:.2g} with LARC SGD, {:.1g} with AdamW.",
                   names.lr, batch_, default_larc_lr(batch_), default_adamw_lr(batch_)));
  help(names.freeze, fmt::format("Freeze the prototypes longer ({}): an epoch ({} iterations) or more (now {}).",
                                 names.freeze, options_.iterations_per_epoch, model_.freeze_prototypes_iterations));
  if (model_.eps > 0.0301f)
    help(names.eps, fmt::format("Sharpen the assignments: {} 0.03 (now {:.3g}).", names.eps, model_.eps));
  help(names.prototypes, fmt::format("Use fewer prototypes ({}): about ten times the classes you expect, and no more "
                                     "than batch + queue = {} (now {}).",
                                     names.prototypes, batch_ + model_.queue_length, model_.prototypes));
  if (model_.queue_length > 0)
    help(names.queue, fmt::format("Start the queue later ({}, now iteration {}) or make it shorter ({}, now {} rows).",
                                  names.queue_start, model_.queue_start_iteration, names.queue, model_.queue_length));
  help(names.hard, fmt::format("Make the assignments of the first iterations hard ({}).", names.hard));
  if (model_.head_bn) help(names.head_bn, fmt::format("Leave batch norm out of the head ({} false).", names.head_bn));
  help(names.crops,
       fmt::format("Fewer or softer crops: larger areas ({}), weaker colour jitter ({}).", names.crops, names.jitter));
  return helps;
}

}  // namespace saccade::ssl
