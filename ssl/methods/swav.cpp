#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/methods/crop_major.h>
#include <saccade/ssl/methods/swav.h>

#include <algorithm>

namespace saccade::ssl {

namespace {

/// Each row becomes one-hot at its maximum (the first of equals).
void harden(const Tensor& q) {
  if (q.device() == Device::meta) return;
  const Tensor rows = q.to(Device::cpu);
  const int64_t k = q.dim(1);
  for (int64_t r = 0; r < q.dim(0); ++r) {
    float* row = rows.data<float>().data() + r * k;
    const int64_t best = std::max_element(row, row + k) - row;
    std::fill(row, row + k, 0.f);
    row[best] = 1.f;
  }
  if (q.device() != Device::cpu) q.copy_from(rows);
}

/// The whole resolutions, from the first, that hold so many images.
Tensor first_images(const Batch& batch, int64_t images) {
  Segments taken;
  for (const Segment& segment : batch.images.segments())
    if (total_images(taken) < images) taken.push_back(segment);
  return batch.images.slice(0, total_rows(taken)).with_segments(taken);
}

/// From its first step on prototypes learn; a queue is taken for full where nothing can be looked at.
SwAVOptions dearest(SwAVOptions options) {
  options.queue_start_iteration = options.freeze_prototypes_iterations = 0;
  return options;
}

}  // namespace

SwAV::SwAV(std::shared_ptr<nn::Trunk> trunk, SwAVOptions options, uint64_t seed) : options_(options) {
  if (options.prototypes < 2 || options.hidden_layers < 0 || options.assigning < 1 || options.queue_length < 0 ||
      !(options.temperature > 0.f))
    fail(
        fmt::format("SwAV: {} prototypes, {} assigning crops, a queue of {}, temperature {}; expected at least 2, at "
                    "least 1, at least 0, above 0",
                    options.prototypes, options.assigning, options.queue_length, options.temperature));
  const nn::Init init{.seed = seed};
  trunk_ = add_child("trunk", std::move(trunk));
  std::vector<int64_t> widths{trunk_->out_channels()};
  widths.insert(widths.end(), static_cast<size_t>(options.hidden_layers), options.hidden);
  widths.push_back(options.dim);
  head_ = add_child("head", std::make_shared<nn::ProjectionHead>(widths, options.head_bn, init / "head"));
  prototypes_ =
      add_child("prototypes", std::make_shared<nn::Prototypes>(options.prototypes, options.dim, init / "prototypes"));
  for (int64_t crop = 0; crop < options.assigning && options.queue_length > 0; ++crop)
    queues_.push_back(
        add_buffer(fmt::format("queue{}", crop), nn::Init::constant({options.queue_length, options.dim}, 0.f)));
}

bool SwAV::queue_in_use(int64_t iteration) const {
  if (queues_.empty() || iteration < options_.queue_start_iteration) return false;
  const Tensor oldest = queues_.front().slice(options_.queue_length - 1, options_.queue_length);
  if (oldest.device() == Device::meta) return true;  // a rehearsal is of the dearest step
  // A queue begins as zeros and embeddings are never zero: it is full once its last row is written.
  const Tensor row = oldest.to(Device::cpu);
  return std::ranges::any_of(row.data<float>(), [](float v) { return v != 0.f; });
}

void SwAV::push(size_t queue, const Tensor& embeddings) {
  const Tensor& rows = queues_[queue];
  const int64_t length = rows.dim(0), batch = embeddings.dim(0);
  rows.slice(batch, length).copy_from(rows.slice(0, length - batch).clone());
  rows.slice(0, batch).copy_from(embeddings);
}

Tensor SwAV::assign_scores(const Tensor& embeddings, const Tensor& scores, int64_t batch, int64_t iteration) {
  const NoGradScope no_grad;
  const int64_t k = options_.prototypes;
  const bool queued = queue_in_use(iteration);  // judged by the first queue, for all
  const bool filling = !queues_.empty() && iteration >= options_.queue_start_iteration;
  // Of several processes each scores its part of the queue, which all of them hold.
  const dist::Ranks* ranks = dist::current_ranks();
  dist::Share waiting_here{0, options_.queue_length};
  if (ranks != nullptr) waiting_here = dist::share_of(options_.queue_length, ranks->all->rank(), ranks->all->size());
  const int64_t everywhere = ranks == nullptr ? 0 : ranks->images + (queued ? options_.queue_length : 0);
  const int64_t images = ranks == nullptr ? batch : ranks->images;
  const Tensor entering = filling ? dist::gather_views(embeddings.slice(0, options_.assigning * batch)) : Tensor();
  Tensor q = Tensor::empty({options_.assigning * batch, k});
  for (int64_t crop = 0; crop < options_.assigning; ++crop) {
    const auto which = static_cast<size_t>(crop);
    const int64_t first = crop * batch, last = first + batch;
    Tensor all = scores.slice(first, last);
    if (queued) {
      const Tensor earlier = prototypes_->scores(queues_[which].slice(waiting_here.first, waiting_here.last), true);
      const int64_t waiting = earlier.dim(0);
      all = Tensor::empty({waiting + batch, k});
      all.slice(0, waiting).copy_from(earlier);
      all.slice(waiting, waiting + batch).copy_from(scores.slice(first, last));
    }
    if (filling) push(which, entering.slice(crop * images, (crop + 1) * images));
    q.slice(first, last).copy_from(sinkhorn(all, options_.eps, options_.sinkhorn_iterations, batch, everywhere));
  }
  if (iteration < options_.hard_assignment_iterations) harden(q);
  return q;
}

Tensor SwAV::forward(const Tensor& images) {
  const Tensor z = (*head_)(trunk_->features(images));
  return options_.unit_embeddings ? l2_normalize(z) : z;
}

Tensor SwAV::scores(const Tensor& embeddings, int64_t iteration) const {
  return prototypes_->scores(embeddings, !prototypes_released(iteration));
}

void SwAV::check(const Batch& batch) const {
  const int64_t images = total_images(batch.images.segments()), size = batch.size();
  if (size < 1 || images % size != 0 || images / size < std::max<int64_t>(2, options_.assigning))
    fail(fmt::format("SwAV: {} crops of {} images; expected the same number of crops of each, at least {}", images,
                     size, std::max<int64_t>(2, options_.assigning)));
}

void SwAV::check_queue(int64_t batch) const {
  if (const dist::Ranks* ranks = dist::current_ranks()) batch = ranks->images;
  if (options_.queue_length > 0 && options_.queue_length < batch)
    fail(fmt::format("SwAV: a queue of {} rows for a batch of {}; it must hold a batch at least", options_.queue_length,
                     batch));
}

Tensor SwAV::loss(const Batch& batch, int64_t iteration, StepTensors* keep) {
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  check(batch);
  check_queue(batch.size());
  prototypes_->normalize();
  const int64_t size = batch.size();
  const Tensor z = (*this)(batch.images), s = scores(z, iteration);
  const Tensor assignments = assign_scores(z.detach(), s.detach(), size, iteration);
  if (keep) *keep = {size, s.dim(0) / size, options_.assigning, z.detach(), s.detach(), assignments};
  return swapped_prediction(s, assignments, size, options_.temperature);
}

Tensor SwAV::loss(const Batch& batch, const Tensor& assignments, int64_t iteration) {
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  check(batch);
  return swapped_prediction(scores((*this)(batch.images), iteration), assignments, batch.size(), options_.temperature);
}

StepTensors SwAV::assign(std::span<const Batch> batches, int64_t iteration) {
  if (batches.empty()) fail("SwAV: assign() was given no batch");
  const DeviceScope device(batches.front().images.device());
  const PhaseScope phase(Phase::forward);
  const NoGradScope no_grad;
  const FrozenStatisticsScope not_counted;
  int64_t all = 0;
  for (const Batch& batch : batches) {
    check(batch);
    all += batch.size();
  }
  check_queue(all);
  prototypes_->normalize();
  const Tensor z = Tensor::empty({options_.assigning * all, options_.dim});
  int64_t first = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    const Batch& batch = batches[i];
    const dist::OnBatch one(i);
    const int64_t size = batch.size();
    const Tensor part = (*this)(options_.head_bn ? batch.images : first_images(batch, options_.assigning * size));
    put_images(z, options_.assigning, first, part, size);
    first += size;
  }
  const Tensor s = scores(z, iteration);
  return {all, options_.assigning, options_.assigning, z, s, assign_scores(z, s, all, iteration)};
}

void SwAV::begin(std::span<const Batch> batches, const Progress& progress) {
  if (batches.size() > 1) seen_ = assign(batches, progress.iteration);
}

Tensor SwAV::loss(std::span<const Batch> batches, size_t which, const Progress& progress) {
  const Batch& batch = batches[which];
  if (batches.size() == 1) return loss(batch, progress.iteration, &seen_);
  int64_t first = 0;
  for (const Batch& before : batches.first(which)) first += before.size();
  return loss(batch, seen_.assignments_of(first, first + batch.size()), progress.iteration);
}

std::vector<NamedTensor> SwAV::seen() const {
  if (!seen_.embeddings.defined()) return {};
  return {{"embeddings", seen_.embeddings}, {"scores", seen_.scores}, {"assignments", seen_.assignments}};
}

std::unique_ptr<HealthRules> SwAV::health() const {
  return swav_health(options_, [this](int64_t iteration) { return queue_in_use(iteration); });
}

MakeObjective dearest_swav(std::string trunk, SwAVOptions options) {
  return [trunk = std::move(trunk), options = dearest(options)] {
    return std::make_unique<SwAV>(nn::trunk(trunk), options);
  };
}

Method swav_method() {
  const auto o = std::make_shared<SwAVOptions>();
  return {
      .name = "swav",
      .title = "SwAV",
      .about = "crops of an image predict each other's assignment to prototypes (Caron et al. 2020)",
      .settings =
          {{.name = "prototypes",
            .help = "About ten times the kinds of things you expect",
            .value = &o->prototypes,
            .range = Range::between(2, 1e9),
            .otherwise = {"batch + queue, at most 3000",
                          [o](const RunFacts& run) {
                            return static_cast<double>(std::min<int64_t>(3000, run.images + o->queue_length));
                          }},
            .sizes = true},
           head_width(o->hidden),
           {.name = "hidden-layers",
            .help = "Of the projection head; SEER: 2, with --head-bn false",
            .value = &o->hidden_layers,
            .range = Range::between(0, 100),
            .sizes = true},
           {.name = "dim", .help = "Of embeddings", .value = &o->dim, .range = Range::between(1, 1e7), .sizes = true},
           {.name = "head-bn", .help = "Batch norm in the head", .value = &o->head_bn, .sizes = true},
           {.name = "temperature", .help = "Of predictions", .value = &o->temperature, .range = Range::above_zero()},
           {.name = "eps",
            .help = "Softness of assignments: 0.03 when a run collapses",
            .value = &o->eps,
            .range = Range::above_zero()},
           {.name = "sinkhorn",
            .help = "Iterations of the assignment",
            .value = &o->sinkhorn_iterations,
            .range = Range::between(1, 1000)},
           {.name = "queue",
            .help = "Earlier embeddings that take part in assignments; a multiple of the batch",
            .value = &o->queue_length,
            .range = Range::at_least(0),
            .sizes = true},
           {.name = "queue-start",
            .help = "Iteration",
            .value = &o->queue_start_iteration,
            .range = Range::at_least(0),
            .otherwise = {"a tenth of the run",
                          [](const RunFacts& run) { return static_cast<double>(run.iterations / 10); }}},
           {.name = "freeze",
            .help = "Iterations with fixed prototypes",
            .value = &o->freeze_prototypes_iterations,
            .range = Range::at_least(0),
            .otherwise = {"1 epoch", [](const RunFacts& run) { return static_cast<double>(run.per_epoch); }}},
           {.name = "hard",
            .help = "Iterations with one-hot assignments",
            .value = &o->hard_assignment_iterations,
            .range = Range::at_least(0)}},
      .lr = scaled_lr(),
      .warmup = usual_warmup("0 (adamw, or batch > 512: a tenth)"),
      .misfit = [o](const RunFacts& run) -> std::optional<Method::Misfit> {
        if (o->queue_length == 0 || o->queue_length >= run.images) return std::nullopt;
        return Method::Misfit{"queue", fmt::format("0, or at least the {} images of an iteration", run.images)};
      },
      .summary = [o] { return fmt::format("{} prototypes", o->prototypes); },
      .make = [o](std::shared_ptr<nn::Trunk> trunk, const MakeTrunk&,
                  uint64_t seed) { return std::make_unique<SwAV>(std::move(trunk), *o, seed); },
      .make_dearest = [o](std::shared_ptr<nn::Trunk> trunk,
                          const MakeTrunk&) { return std::make_unique<SwAV>(std::move(trunk), dearest(*o)); }};
}

Tensor StepTensors::assignments_of(int64_t first, int64_t last) const {
  return take_images(assignments, assigning, first, last);
}

}  // namespace saccade::ssl
