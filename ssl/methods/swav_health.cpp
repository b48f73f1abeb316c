// What the health monitor knows of SwAV: its assignments, its prototypes and its queue.
#include <fmt/format.h>
#include <saccade/ssl/methods/defaults.h>
#include <saccade/ssl/methods/swav.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace saccade::ssl {

namespace {

constexpr double kNone = MetricGuide::kNone;
using Bad = MetricGuide::Bad;

// Where runs are known to lie: healthy ones on Fashion-MNIST have, once they have learned, a loss gap of 2.0-2.6,
// assignment entropy 0.40-0.64, prediction marginal 0.995; those that were made to collapse have an assignment entropy
// of 0.99-1. Sinkhorn error tells no one from the other (0.2-5 for sharp scores, 0.00 in collapse), so it has no bands.
constexpr MetricGuide kGuides[] = {
    {"loss gap", Bad::neither, kNone, kNone,
     "ln K minus the loss. It should grow; near 0 the network does no better than chance."},
    {"assignment entropy", Bad::high, 0.95, 0.99,
     "Softness of the assignments. It falls while the run learns, to 0.1-0.8; 1 says nothing.",
     "assignments are nearly uniform over the prototypes ({:.3f} of the greatest entropy)"},
    {"prediction marginal", Bad::low, 0.8, -kNone, "Whether all prototypes are predicted. Near 1 is healthy."},
    {"prototypes in use", Bad::neither, kNone, kNone,
     "To how many prototypes images are nearest (the perplexity of their use), of as many as could be told."},
    {"top prototype", Bad::neither, kNone, kNone, "Share of images that are nearest to the most used prototype."},
    {"found gain", Bad::low, 2.0, -kNone,
     "The odds that a crop is found, for each of the untrained network's. They grow to twice that and more."},
    {"Sinkhorn error", Bad::neither, kNone, kNone,
     "How far prototypes are from equal use after the iterations: 0.2-5 once scores are sharp, and no trouble."},
    {"loss since queue", Bad::high, kNone, 0.02, "Change of the loss since the queue came into use. It should fall."},
};

constexpr int64_t kFarAbove = 4;  ///< prototypes for each embedding: up to twice as many did no harm where it was tried
constexpr double kAtFloor = 0.8;  ///< part of what the loss can fall at all
constexpr int64_t kRows =
    128;  ///< of scores and assignments looked at: enough for a mean, and cheap with many prototypes

constexpr double kNew = 0.1;  ///< share of a reading in running means

const float* row(const Tensor& t, int64_t i) { return t.data<float>().data() + i * t.dim(1); }

double entropy(const std::vector<double>& p) {
  double h = 0;
  for (const double v : p)
    if (v > 0) h -= v * std::log(v);
  return h;
}

class SwAVHealth final : public HealthRules {
 public:
  SwAVHealth(SwAVOptions model, std::function<bool(int64_t)> queue_in_use)
      : model_(model), queue_in_use_(std::move(queue_in_use)) {}

  int64_t views() const override { return model_.assigning; }
  std::span<const MetricGuide> guides() const override { return kGuides; }
  Chance chance(const HealthLook& look) const override {
    return {.loss = std::log(static_cast<double>(model_.prototypes)),
            .name = "ln K",
            .judged = look.iteration >= model_.freeze_prototypes_iterations};
  }
  void measure(HealthMonitor& monitor, const HealthLook& look) override;
  void judge(HealthMonitor& monitor, const HealthLook& look) override {
    if (look.finite) judge_length(monitor);
    if (look.finite) judge_prototypes(monitor, look);
    judge_queue(monitor, look);
  }
  std::vector<std::string> advice(const HealthOptions& options, const HealthLook& look) const override;
  void remember(HealthMemory& memory) override {
    memory("mean prediction", mean_prediction_);
    memory("mean use", mean_use_);
    memory("losses", losses_);
    memory("before queue", before_queue_);
    memory("readings of queue", readings_of_queue_);
  }

 private:
  void judge_length(HealthMonitor& monitor) const;
  void judge_prototypes(HealthMonitor& monitor, const HealthLook& look) const;
  void judge_queue(HealthMonitor& monitor, const HealthLook& look);

  SwAVOptions model_;
  std::function<bool(int64_t)> queue_in_use_;
  std::vector<double> mean_prediction_;  ///< running mean of softmax(S / tau), K
  std::vector<double> mean_use_;         ///< running mean: share of images that are nearest to each prototype, K
  std::vector<double> losses_;           ///< of the readings of the last epoch
  double before_queue_ = 0;  ///< mean loss of the epoch before the queue came into use; 0: not yet, -1: no such epoch
  int64_t readings_of_queue_ = 0;
};

void SwAVHealth::measure(HealthMonitor& monitor, const HealthLook& look) {
  const Tensor *scores = look.find("scores"), *assignments = look.find("assignments");
  if (scores == nullptr || assignments == nullptr) return;
  const int64_t batch = look.images, rows = model_.assigning * batch, k = assignments->dim(1);
  const double ln_k = std::log(static_cast<double>(k));
  const int64_t stride = std::max<int64_t>(1, rows / kRows);
  double h = 0, seen = 0;
  std::vector<double> prediction(static_cast<size_t>(k)), mean(static_cast<size_t>(k)), use(static_cast<size_t>(k));
  for (int64_t r = 0; r < rows; r += stride, ++seen) {
    const float *q = row(*assignments, r), *s = row(*scores, r);
    double total = 0;
    const float* nearest = std::max_element(s, s + k);
    const double top = double{*nearest};
    ++use[static_cast<size_t>(nearest - s)];
    for (int64_t i = 0; i < k; ++i) {
      if (q[i] > 0.f) h -= double{q[i]} * std::log(double{q[i]});
      prediction[static_cast<size_t>(i)] = std::exp((double{s[i]} - top) / double{model_.temperature});
      total += prediction[static_cast<size_t>(i)];
    }
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += prediction[i] / total;
  }
  for (double& m : mean) m /= seen;
  if (mean_prediction_.empty()) mean_prediction_ = mean;
  for (size_t i = 0; i < mean.size(); ++i) mean_prediction_[i] += kNew * (mean[i] - mean_prediction_[i]);

  monitor.add("assignment entropy", h / seen / ln_k);
  monitor.add("prediction marginal", entropy(mean_prediction_) / ln_k);
  for (double& u : use) u /= seen;
  if (mean_use_.empty()) mean_use_ = use;
  for (size_t i = 0; i < use.size(); ++i) mean_use_[i] += kNew * (use[i] - mean_use_[i]);
  monitor.add("prototypes in use",
              std::exp(entropy(mean_use_)) / std::min<double>(static_cast<double>(k), seen / kNew));
  monitor.add("top prototype", *std::ranges::max_element(mean_use_));

  if (queue_in_use_(look.iteration)) return;  // column masses then count the queue's rows, which were not assigned
  double error = 0;
  for (int64_t crop = 0; crop < model_.assigning; ++crop) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (int64_t b = 0; b < batch; ++b) {
      const float* q = row(*assignments, crop * batch + b);
      for (size_t i = 0; i < mean.size(); ++i) mean[i] += double{q[i]};
    }
    for (const double m : mean)
      error = std::max(error, std::abs(static_cast<double>(k) * m / static_cast<double>(batch) - 1.0));
  }
  monitor.add("Sinkhorn error", error);
}

void SwAVHealth::judge_length(HealthMonitor& monitor) const {
  const double error = monitor.length_error();
  if (!monitor.lasts("length", error > 1e-3, 1)) return;
  monitor.say("length", Band::alarm,
              fmt::format("embeddings are not of unit length (off by {:.2g}): scores are then no cosines, and the "
                          "assignments have no scale.",
                          error),
              {fmt::format("Normalise embeddings to unit length before the prototypes ({}).",
                           monitor.options().names.of("unit-embeddings", "SwAVOptions::unit_embeddings"))});
}

void SwAVHealth::judge_prototypes(HealthMonitor& monitor, const HealthLook& look) const {
  // The assignments of N embeddings give each of K prototypes N / K of one: no image's assignment is then sharper than
  // K / N prototypes, and the loss not lower than ln(K / N).
  const int64_t k = model_.prototypes, batch = look.images, rows = batch + model_.queue_length;
  if (k <= kFarAbove * rows) return;
  const double share = static_cast<double>(k) / static_cast<double>(rows);
  const SettingNames& names = monitor.options().names;
  const std::string prototypes = names.of("prototypes", "SwAVOptions::prototypes"),
                    queue = names.of("queue", "SwAVOptions::queue_length");
  Advice helps;
  helps.add(prototypes,
            fmt::format("Use fewer prototypes ({}): about ten times the classes you expect, and no more than {}.",
                        prototypes, rows));
  helps.add(queue,
            fmt::format("Or let earlier embeddings take part: a queue of {} ({}).", (k - 1) / batch * batch, queue));
  helps.add(names.batch, fmt::format("Or a larger batch ({}).", names.batch));
  const std::vector<std::string> advice = std::move(helps).all();
  monitor.say(
      "prototypes", Band::warn,
      fmt::format("{} prototypes share {} embeddings at a time ({} images a batch, a queue of {}), so that each image "
                  "is spread over {:.3g} prototypes at least, and those of one kind cannot share them: images are told "
                  "apart rather than grouped, and the loss cannot fall much below {:.3f}.",
                  k, rows, batch, model_.queue_length, share, std::log(share)),
      advice);
  const double most = std::log(static_cast<double>(rows));
  if (monitor.lasts("floor", look.gap() > kAtFloor * most, monitor.options().patience_iterations))
    monitor.say(
        "floor", Band::warn,
        fmt::format(
            "the loss has come near the floor that so many prototypes set: ln K - loss is {:.2f}, and can be {:.2f} "
            "at most. Longer training helps little; how good the features are, only a task tells.",
            look.gap(), most),
        advice);
}

void SwAVHealth::judge_queue(HealthMonitor& monitor, const HealthLook& look) {
  // Single losses waver by more than what is looked for: short epochs are taken together.
  const HealthOptions& options = monitor.options();
  const auto window =
      static_cast<size_t>(std::max<int64_t>(std::max<int64_t>(options.iterations_per_epoch, 200) / options.every, 1));
  const auto mean = [&] {
    return std::accumulate(losses_.begin(), losses_.end(), 0.0) / static_cast<double>(losses_.size());
  };
  if (before_queue_ == 0 && queue_in_use_(look.iteration)) {
    before_queue_ = losses_.size() < window ? -1 : mean();
    losses_.clear();
  }
  losses_.push_back(double{look.loss});
  if (losses_.size() > window) losses_.erase(losses_.begin());
  if (before_queue_ <= 0 || losses_.size() < window) return;
  const double rise = mean() / before_queue_ - 1.0;
  monitor.add("loss since queue", rise);
  // Judged once, over the first epoch with the queue.
  if (readings_of_queue_++ == 0 && monitor.last().metrics.back().band == Band::alarm)
    monitor.say(
        "queue", Band::alarm,
        fmt::format("the loss rose by {:.1f} % over the first epoch with the queue, and it should fall: the queue's "
                    "embeddings are older than the network can bear.",
                    100 * rise),
        {fmt::format("Start the queue later ({}), when embeddings change more slowly.",
                     options.names.of("queue-start", "SwAVOptions::queue_start_iteration")),
         fmt::format("Make it shorter than {} rows ({}).", model_.queue_length,
                     options.names.of("queue", "SwAVOptions::queue_length"))});
}

std::vector<std::string> SwAVHealth::advice(const HealthOptions& options, const HealthLook& look) const {
  const SettingNames& names = options.names;
  const int64_t batch = look.images;
  const std::string unit_embeddings = names.of("unit-embeddings", "SwAVOptions::unit_embeddings"),
                    freeze = names.of("freeze", "SwAVOptions::freeze_prototypes_iterations"),
                    eps = names.of("eps", "SwAVOptions::eps"),
                    prototypes = names.of("prototypes", "SwAVOptions::prototypes"),
                    queue = names.of("queue", "SwAVOptions::queue_length"),
                    queue_start = names.of("queue-start", "SwAVOptions::queue_start_iteration"),
                    hard = names.of("hard", "SwAVOptions::hard_assignment_iterations"),
                    head_bn = names.of("head-bn", "SwAVOptions::head_bn");
  Advice helps;
  if (!model_.unit_embeddings)
    helps.add(unit_embeddings, fmt::format("Normalise embeddings to unit length ({}).", unit_embeddings));
  helps.add(names.lr, fmt::format("Scale the learning rate ({}) to the batch of {}: about {:.2g} with LARC SGD, {:.1g} "
                                  "with AdamW.",
                                  names.lr, batch, default_larc_lr(batch), default_adamw_lr(batch)));
  helps.add(freeze, fmt::format("Freeze the prototypes longer ({}): an epoch ({} iterations) or more (now {}).", freeze,
                                options.iterations_per_epoch, model_.freeze_prototypes_iterations));
  if (model_.eps > 0.0301f)
    helps.add(eps, fmt::format("Sharpen the assignments: {} 0.03 (now {:.3g}).", eps, model_.eps));
  helps.add(prototypes, fmt::format("Use fewer prototypes ({}): about ten times the classes you expect, and no more "
                                    "than batch + queue = {} (now {}).",
                                    prototypes, batch + model_.queue_length, model_.prototypes));
  if (model_.queue_length > 0)
    helps.add(queue, fmt::format("Start the queue later ({}, now iteration {}) or make it shorter ({}, now {} rows).",
                                 queue_start, model_.queue_start_iteration, queue, model_.queue_length));
  helps.add(hard, fmt::format("Make the assignments of the first iterations hard ({}).", hard));
  if (model_.head_bn) helps.add(head_bn, fmt::format("Leave batch norm out of the head ({} false).", head_bn));
  helps.add(names.crops, fmt::format("Fewer or softer crops: larger areas ({}), weaker colour jitter ({}).",
                                     names.crops, names.jitter));
  return std::move(helps).all();
}

}  // namespace

std::unique_ptr<HealthRules> swav_health(const SwAVOptions& options, std::function<bool(int64_t)> queue_in_use) {
  if (!queue_in_use) queue_in_use = [](int64_t) { return false; };
  return std::make_unique<SwAVHealth>(options, std::move(queue_in_use));
}

}  // namespace saccade::ssl
