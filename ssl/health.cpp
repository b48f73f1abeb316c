#include <fmt/format.h>
#include <saccade/ssl/health.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

namespace saccade::ssl {

namespace {

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

HealthMonitor::HealthMonitor(SwAVOptions model, HealthOptions options) : model_(model), options_(options) {
  if (options_.every < 1) options_.every = 1;
}

void HealthMonitor::add(std::string name, double value, Band band) {
  reading_.metrics.push_back({std::move(name), value, band});
}

bool HealthMonitor::lasts(const std::string& trouble, bool now, int64_t readings) {
  Streak& streak = streaks_[trouble];
  // A metric near the edge of its band wavers: a reading outside takes back three, it does not start the count anew.
  streak.readings = now ? streak.readings + 1 : std::max<int64_t>(streak.readings - 3, 0);
  streak.calm = now ? 0 : streak.calm + 1;
  if (streak.calm >= options_.patience) streak.told = false;
  return streak.readings >= std::max<int64_t>(readings, 1);
}

std::vector<HealthMessage> HealthMonitor::observe(int64_t iteration, float loss, const StepTensors& step,
                                                  bool queue_in_use) {
  reading_ = {.iteration = iteration, .metrics = {}};
  batch_ = step.batch;
  std::vector<HealthMessage> out;
  const double ln_k = std::log(static_cast<double>(model_.prototypes)), gap = ln_k - double{loss};
  const bool released = iteration >= model_.freeze_prototypes_iterations;
  const bool stuck = released && !(gap >= 0.01 * ln_k);
  const bool stuck_long = lasts("stuck", stuck, options_.stuck_iterations / options_.every);
  add("loss gap", gap, stuck_long ? Band::alarm : Band::healthy);
  measure_geometry(step);
  measure_assignments(step, queue_in_use);
  measure_spectrum(step);

  const auto say = [&](const std::string& trouble, Band band, std::string words, std::vector<std::string> helps) {
    if (std::exchange(streaks_[trouble].told, true)) return;
    out.push_back({iteration, band, std::move(words), std::move(helps)});
  };

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
        {"Normalise embeddings to unit length before the prototypes (SwAVOptions::unit_embeddings)."});

  if (finite && iteration >= options_.settle_iterations) {
    std::vector<std::string> seen;
    bool lasting = stuck_long;
    for (const Sign& sign : kCollapseSigns) {
      const auto metric = std::ranges::find(reading_.metrics, sign.metric, &HealthMetric::name);
      const bool alarm = metric->band == Band::alarm;
      lasting = lasts(sign.metric, alarm, options_.patience) || lasting;
      if (alarm) seen.push_back(fmt::format(fmt::runtime(sign.words), metric->value));
    }
    lasts("collapse", stuck_long || !seen.empty(), 1);
    const std::string loss_words =
        fmt::format("the loss has not come below ln K = {:.3f} for {} iterations (now {:.3f}), no better than chance",
                    ln_k, options_.stuck_iterations, loss);
    if (lasting && seen.empty())
      say("collapse", Band::alarm, "the run is not learning: " + loss_words + ".", advice());
    else if (lasting)
      say("collapse", Band::alarm,
          fmt::format("the run has collapsed: {}{}. The network answers alike whatever it is shown, and its features "
                      "are worth little.",
                      fmt::join(seen, "; "), stuck_long ? "; " + loss_words : ""),
          advice());
    if (lasts("rank", best_rank_ > 0 && rank_ < 0.25 * best_rank_, options_.patience))
      say("rank", Band::warn,
          fmt::format("the embeddings have lost dimensions: effective rank {:.1f}, and it was {:.1f} at best.", rank_,
                      best_rank_),
          advice());
  }
  judge_queue(iteration, loss, queue_in_use, out);
  return out;
}

void HealthMonitor::judge_queue(int64_t iteration, float loss, bool queue_in_use, std::vector<HealthMessage>& out) {
  const auto epoch = static_cast<size_t>(std::max<int64_t>(options_.iterations_per_epoch / options_.every, 1));
  if (queue_in_use && before_queue_ == 0 && !losses_.empty()) {
    before_queue_ = std::accumulate(losses_.begin(), losses_.end(), 0.0) / static_cast<double>(losses_.size());
    losses_.clear();
  }
  losses_.push_back(double{loss});
  if (losses_.size() > epoch) losses_.pop_front();
  if (before_queue_ == 0 || losses_.size() < epoch) return;
  const double now = std::accumulate(losses_.begin(), losses_.end(), 0.0) / static_cast<double>(losses_.size());
  const double rise = now / before_queue_ - 1.0;
  add("loss since queue", rise, rise > 0.02 ? Band::alarm : Band::healthy);
  // Judged once, over the first epoch with the queue.
  if (readings_of_queue_++ == 0 && rise > 0.02)
    out.push_back({iteration,
                   Band::alarm,
                   fmt::format("the loss rose by {:.1f} % over the first epoch with the queue, and it should fall: the "
                               "queue's embeddings are older than the network can bear.",
                               100 * rise),
                   {"Start the queue later (queue_start_iteration), when embeddings change more slowly.",
                    fmt::format("Make it shorter than {} rows (queue_length).", model_.queue_length)}});
}

std::vector<std::string> HealthMonitor::advice() const {
  std::vector<std::string> helps;
  if (!model_.unit_embeddings) helps.push_back("Normalise embeddings to unit length (unit_embeddings).");
  helps.push_back(
      fmt::format("Scale the learning rate to the batch of {}: about {:.2g} with LARC SGD, {:.1g} with AdamW.", batch_,
                  batch_ <= 256 ? 0.6 * static_cast<double>(batch_) / 256.0 : 0.3 * static_cast<double>(batch_) / 256.0,
                  1e-3 * static_cast<double>(batch_) / 256.0));
  helps.push_back(fmt::format(
      "Freeze the prototypes longer: an epoch ({} iterations) or more (freeze_prototypes_iterations, now {}).",
      options_.iterations_per_epoch, model_.freeze_prototypes_iterations));
  if (model_.eps > 0.0301f) helps.push_back(fmt::format("Sharpen the assignments: eps 0.03 (now {:.3g}).", model_.eps));
  helps.push_back(fmt::format(
      "Use fewer prototypes: about ten times the classes you expect, and no more than batch + queue = {} (now {}).",
      batch_ + model_.queue_length, model_.prototypes));
  if (model_.queue_length > 0)
    helps.push_back(fmt::format("Start the queue later or make it shorter (now {} rows from iteration {}).",
                                model_.queue_length, model_.queue_start_iteration));
  helps.push_back("Make the assignments of the first iterations hard (hard_assignment_iterations).");
  if (model_.head_bn) helps.push_back("Leave batch norm out of the head (head_bn).");
  helps.push_back("Fewer or softer crops: larger scales, weaker colour jitter.");
  return helps;
}

}  // namespace saccade::ssl
