#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/swav.h>

#include <algorithm>

namespace saccade::ssl {

namespace {

/// Each row becomes one-hot at its maximum (the first of equals).
void harden(const Tensor& q) {
  if (q.device() == Device::meta) return;
  const int64_t k = q.dim(1);
  for (int64_t r = 0; r < q.dim(0); ++r) {
    float* row = q.data<float>().data() + r * k;
    const int64_t best = std::max_element(row, row + k) - row;
    std::fill(row, row + k, 0.f);
    row[best] = 1.f;
  }
}

}  // namespace

SwAV::SwAV(std::shared_ptr<nn::Trunk> trunk, SwAVOptions options, uint64_t seed) : options_(options) {
  if (options.prototypes < 2 || options.assigning < 1 || options.queue_length < 0 || !(options.temperature > 0.f))
    fail(
        fmt::format("SwAV: {} prototypes, {} assigning crops, a queue of {}, temperature {}; expected at least 2, at "
                    "least 1, at least 0, above 0",
                    options.prototypes, options.assigning, options.queue_length, options.temperature));
  const nn::Init init{.seed = seed};
  trunk_ = add_child("trunk", std::move(trunk));
  head_ = add_child(
      "head", std::make_shared<nn::ProjectionHead>(std::vector{trunk_->out_channels(), options.hidden, options.dim},
                                                   options.head_bn, init / "head"));
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
  return std::ranges::any_of(oldest.data<float>(), [](float v) { return v != 0.f; });
}

void SwAV::push(size_t queue, const Tensor& embeddings) {
  const Tensor& rows = queues_[queue];
  const int64_t length = rows.dim(0), batch = embeddings.dim(0);
  rows.slice(batch, length).copy_from(rows.slice(0, length - batch).clone());
  rows.slice(0, batch).copy_from(embeddings);
}

Tensor SwAV::assign(const Tensor& embeddings, const Tensor& scores, int64_t batch, int64_t iteration) {
  const NoGradScope no_grad;
  const int64_t k = options_.prototypes;
  const bool queued = queue_in_use(iteration);  // judged by the first queue, for all
  const bool filling = !queues_.empty() && iteration >= options_.queue_start_iteration;
  Tensor q = Tensor::empty({options_.assigning * batch, k});
  for (int64_t crop = 0; crop < options_.assigning; ++crop) {
    const auto which = static_cast<size_t>(crop);
    const int64_t first = crop * batch, last = first + batch;
    Tensor all = scores.slice(first, last);
    if (queued) {
      const Tensor earlier = linear(queues_[which], prototypes());
      const int64_t waiting = earlier.dim(0);
      all = Tensor::empty({waiting + batch, k});
      all.slice(0, waiting).copy_from(earlier);
      all.slice(waiting, waiting + batch).copy_from(scores.slice(first, last));
    }
    if (filling) push(which, embeddings.slice(first, last));
    q.slice(first, last).copy_from(sinkhorn(all, options_.eps, options_.sinkhorn_iterations, batch));
  }
  if (iteration < options_.hard_assignment_iterations) harden(q);
  return q;
}

Tensor SwAV::forward(const Tensor& images) {
  const Tensor z = (*head_)(trunk_->features(images));
  return options_.unit_embeddings ? l2_normalize(z) : z;
}

Tensor SwAV::loss(const Batch& batch, int64_t iteration, StepTensors* keep) {
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  const int64_t images = total_images(batch.images.segments()), size = batch.size();
  if (size < 1 || images % size != 0 || images / size < std::max<int64_t>(2, options_.assigning))
    fail(fmt::format("SwAV: {} crops of {} images; expected the same number of crops of each, at least {}", images,
                     size, std::max<int64_t>(2, options_.assigning)));
  if (options_.queue_length > 0 && options_.queue_length < size)
    fail(fmt::format("SwAV: a queue of {} rows for a batch of {}; it must hold a batch at least", options_.queue_length,
                     size));
  prototypes_->normalize();
  const Tensor z = (*this)(batch.images);
  // Scores are f32 whatever the embeddings are: at temperature 0.05 half-precision rounding is an error of percents.
  const Tensor scores = (*prototypes_)(z.dtype() == DType::f32 ? z : cast(z, DType::f32));
  const Tensor assignments = assign(z.detach(), scores.detach(), size, iteration);
  if (keep) *keep = {size, images / size, options_.assigning, z.detach(), scores.detach(), assignments};
  return swapped_prediction(scores, assignments, size, options_.temperature);
}

void SwAV::freeze_prototypes(int64_t iteration) {
  if (!prototypes_released(iteration)) prototypes().set_grad({});
}

}  // namespace saccade::ssl
