#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/dist/gradient_buckets.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/train/step.h>

#include <bit>
#include <cmath>
#include <optional>

namespace saccade::ssl {

void check(const StepOptions& options) {
  if (options.precision != DType::f32 && options.precision != DType::bf16 && options.precision != DType::f16)
    fail(fmt::format("precision {}: expected f32, bf16 or f16", name_of(options.precision)));
  if (options.accumulate < 1) fail(fmt::format("accumulate {}: a step takes at least one batch", options.accumulate));
  if (!options.fuse_optimizer) return;
  const char* reason =
      options.accumulate > 1    ? "gradients that accumulate over several batches are whole only after the last of them"
      : options.clip_norm > 0.f ? "clipping needs the norm of all gradients before the first update"
      : options.precision == DType::f16 ? "an overflow in f16 must leave the whole step out, and shows only at its end"
                                        : nullptr;
  if (reason != nullptr)
    fail(fmt::format("the optimizer cannot be fused into backward here: {}. Leave one of the two.", reason));
}

namespace {

/// What is done for a step off the tape, where its tensors lie.
struct Beside {
  explicit Beside(std::span<const Batch> batches) : device_(batches.front().images.device()) {}

 private:
  DeviceScope device_;
  NoGradScope no_grad_;
};

/// The batches as all processes see them. On the meta device, where nobody else is, theirs are as large.
std::optional<dist::Ranks> ranks_of(const StepOptions& options, std::span<const Batch> batches) {
  if (options.ranks == nullptr || options.ranks->size() == 1) return std::nullopt;
  dist::Communicator& all = *options.ranks;
  dist::Ranks none{.all = &all, .statistics = options.statistics};
  if (options.statistics != nullptr) none.statistics_first = all.rank() - options.statistics->rank();
  dist::Ranks ranks = none;
  std::vector<int64_t> own;
  for (const Batch& batch : batches) own.push_back(batch.size());
  const bool rehearsal = batches.front().images.device() == Device::meta;
  const auto sizes = rehearsal ? std::vector(static_cast<size_t>(all.size()), own) : dist::numbers_of_all(all, own);
  for (size_t i = 0; i < batches.size(); ++i) {
    dist::Ranks batch = none;
    for (const auto& of_rank : sizes) batch.images += of_rank[i];
    for (int rank = 0; rank < all.size(); ++rank)
      if (const int64_t has = sizes[static_cast<size_t>(rank)][i], share = batch.images_of(rank); has != share)
        fail(fmt::format("process {} of {} has {} of the {} images of a batch; its share are {} (see dist::share_of)",
                         rank, all.size(), has, batch.images, share));
    if (batch.own() < 1)
      fail(fmt::format("{} images for {} processes: each takes at least one", batch.images, all.size()));
    ranks.images += batch.images;
    ranks.batches.push_back(std::move(batch));
  }
  return ranks;
}

/// The sum over processes, in their order: the same number everywhere.
double sum_over(dist::Communicator& ranks, double own) {
  double sum = 0;
  for (const auto& of_rank : dist::numbers_of_all(ranks, std::vector{std::bit_cast<int64_t>(own)}))
    sum += std::bit_cast<double>(of_rank.front());
  return sum;
}

struct ReleaseAtTheEnd {
  Objective& objective;
  ~ReleaseAtTheEnd() { objective.release(); }
};

}  // namespace

std::vector<NamedTensor> seen_by_all(const Objective& objective) {
  std::vector<NamedTensor> seen = objective.seen();
  if (const dist::Ranks* ranks = dist::current_ranks())
    for (NamedTensor& t : seen)
      if (t.tensor.defined() && t.tensor.rank() == 2 && t.tensor.dim(0) % ranks->own() == 0)
        t.tensor = dist::gather_views(t.tensor);
  return seen;
}

StepResult train_step(Objective& objective, optim::Optimizer& optimizer, std::span<const Batch> batches,
                      const Progress& progress, float lr, const StepOptions& options, optim::LossScale* loss_scale,
                      const StepWatch& watch) {
  if (static_cast<int64_t>(batches.size()) != options.accumulate)
    fail(fmt::format("a step of {} batches was given {}", options.accumulate, batches.size()));
  optimizer.zero_grad();
  const AutocastScope precision(options.precision);
  const ReleaseAtTheEnd releasing{objective};
  std::optional<dist::Ranks> ranks = ranks_of(options, batches);
  std::optional<dist::GradientBuckets> exchange;
  if (ranks) {
    for (dist::Ranks& batch : ranks->batches) batch.whole = &*ranks;
    std::vector<Tensor> trained;
    for (const NamedTensor& p : objective.trained_parameters()) trained.push_back(p.tensor);
    exchange.emplace(std::move(trained), *ranks->all);
  }
  const dist::RanksScope together(ranks ? &*ranks : nullptr);
  int64_t images = 0;
  for (const Batch& batch : batches) images += batch.size();
  if (ranks) images = ranks->images;
  const double scaled = loss_scale != nullptr ? double{loss_scale->value()} : 1.0;
  double mean = 0;
  {
    const Beside beside(batches);
    objective.begin(batches, progress);
  }
  for (size_t i = 0; i < batches.size(); ++i) {
    const double share = static_cast<double>(batches[i].size()) / static_cast<double>(images);
    Tensor loss;
    {
      const dist::OnBatch one(i);
      loss = objective.loss(batches, i, progress);
    }
    const bool closing = i + 1 == batches.size(), measured = loss.device() != Device::meta;
    if (measured) mean += share * double{loss.item()};
    if (ranks && closing && measured) mean = sum_over(*ranks->all, mean);
    if (watch && (closing || (!ranks && !std::isfinite(mean)))) watch(static_cast<float>(mean));
    if (closing) objective.release();
    const auto factor = static_cast<float>(share * scaled);
    if (factor != 1.f) loss = scale(loss, factor);
    if (options.fuse_optimizer)
      optimizer.backward_and_step(loss, lr);
    else
      loss.backward({.last = closing});
  }
  StepResult result{.loss = static_cast<float>(mean), .images = images};
  if (!options.fuse_optimizer) {
    result.skipped = loss_scale != nullptr && !loss_scale->unscale(optimizer);
    if (!result.skipped) {
      if (options.clip_norm > 0.f) optimizer.clip_gradients(options.clip_norm);
      optimizer.step(lr);
    }
    optimizer.zero_grad();
  }
  const Beside beside(batches);
  if (!result.skipped) objective.updated(progress);
  if ((progress.iteration + 1) % progress.per_epoch == 0) objective.epoch_ended(progress);
  return result;
}

}  // namespace saccade::ssl
