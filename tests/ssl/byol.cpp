#include "byol.h"

#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

#include <utility>

namespace saccade::ssl {

Byol::Byol(std::shared_ptr<nn::Trunk> trunk, std::shared_ptr<nn::Trunk> teacher, ByolOptions options, uint64_t seed)
    : options_(options) {
  const nn::Init init{.seed = seed};
  const auto head = [&](int64_t in, const nn::Init& values) {
    return std::make_shared<nn::ProjectionHead>(std::vector<int64_t>{in, options.hidden, options.dim}, true, values);
  };
  trunk_ = add_child("trunk", std::move(trunk));
  head_ = add_child("head", head(trunk_->out_channels(), init / "head"));
  predictor_ = add_child("predictor", head(options.dim, init / "predictor"));
  teacher_ = add_child("teacher", std::move(teacher));
  teacher_head_ = add_child("teacher_head", head(teacher_->out_channels(), init / "head"));
  teacher_->requires_grad(false);
  teacher_head_->requires_grad(false);
}

Tensor Byol::forward(const Tensor& images) { return l2_normalize((*head_)(trunk_->features(images))); }

Tensor Byol::targets(const Batch& batch, int64_t views) const {
  const NoGradScope no_grad;
  const int64_t n = batch.size();
  const Segments large{batch.images.segments().front()};
  const Tensor images = batch.images.slice(0, total_rows(large)).with_segments(large);
  const Tensor t = l2_normalize((*teacher_head_)(teacher_->features(images)));
  const Tensor to_both = scale(add(t.slice(0, n), t.slice(n, 2 * n)), 0.5f);
  Tensor all = Tensor::empty({views * n, options_.dim});
  for (int64_t view = 0; view < views; ++view)
    all.slice(view * n, (view + 1) * n).copy_from(view == 0 ? t.slice(n, 2 * n) : view == 1 ? t.slice(0, n) : to_both);
  return all;
}

Tensor Byol::loss(std::span<const Batch> batches, size_t which, const Progress&) {
  const Batch& batch = batches[which];
  const int64_t n = batch.size(), images = total_images(batch.images.segments());
  if (n < 1 || batch.images.segments().front().n != 2 * n || images % n != 0)
    fail(fmt::format("BYOL: {} views of {} images; expected two of the first size of each, and as many of the others",
                     images, n));
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  const Tensor wanted = targets(batch, images / n), z = (*this)(batch.images);
  embeddings_.push_back(z.detach().slice(0, 2 * n));
  const Tensor predicted = l2_normalize((*predictor_)(z));
  // |p - t|^2 = 2 - 2 p . t where both are of unit length; the constant is left out.
  return scale(inner_product(predicted, wanted), -2.f / static_cast<float>(images));
}

std::vector<NamedTensor> Byol::seen() const {
  if (embeddings_.empty()) return {};
  return {{"embeddings", view_after_view(embeddings_, 2)}};
}

void Byol::updated(const Progress&) {
  const auto follow = [&](const nn::Module& teacher, const nn::Module& student) {
    const std::vector<Tensor> slow = teacher.parameters(), fast = student.parameters();
    for (size_t i = 0; i < slow.size(); ++i)
      slow[i].copy_from(add(scale(slow[i], options_.momentum), scale(fast[i], 1.f - options_.momentum)));
  };
  follow(*teacher_, *trunk_);
  follow(*teacher_head_, *head_);
}

/// A network that answers every image alike is predicted without effort: the loss alone does not tell.
class ByolHealth final : public HealthRules {
 public:
  std::span<const MetricGuide> guides() const override {
    static constexpr MetricGuide kGuides[] = {
        {"agreement", MetricGuide::Bad::neither, MetricGuide::kNone, MetricGuide::kNone,
         "Mean cosine of predictions and targets. It rises; a collapsed run has 1 as well, so look at the spread."}};
    return kGuides;
  }
  void measure(HealthMonitor& monitor, const HealthLook& look) override {
    monitor.add("agreement", -double{look.loss} / 2);
  }
};

std::unique_ptr<HealthRules> Byol::health() const { return std::make_unique<ByolHealth>(); }

Method byol_method() {
  const auto o = std::make_shared<ByolOptions>();
  return {
      .name = "byol",
      .title = "BYOL",
      .about = "a network predicts its own moving average on another view (Grill et al. 2020)",
      .settings =
          {{.name = "momentum-of-teacher",
            .help = "Of the moving average: nearer 1 in long trainings",
            .value = &o->momentum,
            .range = Range::between(0, 1)},
           {.name = "dim", .help = "Of embeddings", .value = &o->dim, .range = Range::between(1, 1e7), .sizes = true}},
      .optimizer = "adamw",
      .lr = {"0.001 x batch/256", [](const RunFacts& run) { return 1e-3 * static_cast<double>(run.images) / 256; }},
      .warmup = {"a tenth of the run", [](const RunFacts& run) { return static_cast<double>(run.iterations) / 10; }},
      .make = [o](std::shared_ptr<nn::Trunk> trunk, const MakeTrunk& another, uint64_t seed) {
        return std::make_unique<Byol>(std::move(trunk), another(), *o, seed);
      }};
}

}  // namespace saccade::ssl
