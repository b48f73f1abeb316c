#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/ssl/methods/crop_major.h>
#include <saccade/ssl/methods/defaults.h>
#include <saccade/ssl/methods/simclr.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace saccade::ssl {

namespace {

constexpr int64_t kCrops = 2;

int64_t images_of(std::span<const Batch> batches) {
  int64_t images = 0;
  for (const Batch& batch : batches) {
    const int64_t crops = total_images(batch.images.segments()), size = batch.size();
    if (size < 1 || crops != kCrops * size)
      fail(fmt::format("SimCLR: {} crops of {} images; expected two of each", crops, size));
    images += size;
  }
  return images;
}

constexpr double kNone = MetricGuide::kNone;
using Bad = MetricGuide::Bad;

// Tiny networks were seen to have, once they had learned, an alignment of 0.05-0.5 and a uniformity of -2.4 to -2.8;
// those crowded together 0.01-0.1 and -0.2 to -0.7.
constexpr MetricGuide kGuides[] = {
    {"loss gap", Bad::neither, kNone, kNone,
     "ln(2N - 1) minus the loss, N images. It should grow; near 0 the network does no better than chance."},
    {"contrast accuracy", Bad::neither, kNone, kNone,
     "How often an embedding's nearest is the other crop of its image. It grows; chance is 1/(2N - 1)."},
    {"alignment", Bad::neither, kNone, kNone,
     "Squared distance of the two crops of an image. It falls; 0 and a uniformity of 0 together are a collapse."},
    {"uniformity", Bad::high, -1.0, -0.2,
     "How evenly embeddings lie on their sphere: ln of the mean of exp(-2 squared distance). Healthy below -2.",
     "the embeddings of all images lie on one another (uniformity {:.2f}, healthy below -2)"},
    // Of runs of 520 iterations on CIFAR-10 those that ended with 31 to 38 % by kNN had 0.8-1.7 in their second
    // quarter, those with 46 to 49 % 3.6-4.6; between them lie 41 to 44 % with 1.9-3.0.
    {"crop found", Bad::low, 0.4, -kNone,
     "How often the nearest of other crops, of 128 images, is an image's own. It grows, to half of them and more."},
    {"found gain", Bad::low, 2.0, -kNone,
     "The odds that a crop is found, for each of the untrained network's. They grow to twice that and more."},
};

constexpr int64_t kLookedAt = 64;  ///< embeddings that are compared with all others: enough for a mean

class SimclrHealth final : public HealthRules {
 public:
  explicit SimclrHealth(SimclrOptions model) : model_(model) {}

  std::span<const MetricGuide> guides() const override { return kGuides; }
  Chance chance(const HealthLook& look) const override {
    return {.loss = std::log(static_cast<double>(2 * look.images - 1)), .name = "ln(2N - 1)"};
  }
  bool may_crowd() const override { return true; }  // at a temperature of 0.01, with features as good as any
  void measure(HealthMonitor& monitor, const HealthLook& look) override;
  std::vector<std::string> advice(const HealthOptions& options, const HealthLook& look) const override;

 private:
  SimclrOptions model_;
};

/// Alignment and uniformity: Wang and Isola, "Understanding contrastive representation learning through alignment and
/// uniformity on the hypersphere", 2020.
void SimclrHealth::measure(HealthMonitor& monitor, const HealthLook& look) {
  const Tensor* embeddings = look.find("embeddings");
  if (embeddings == nullptr) return;
  const int64_t rows = kCrops * look.images, dim = embeddings->dim(1);
  const float* z = embeddings->data<float>().data();
  const int64_t stride = std::max<int64_t>(1, rows / kLookedAt);
  double found = 0, distance = 0, crowding = 0, looked_at = 0;
  for (int64_t i = 0; i < rows; i += stride, ++looked_at) {
    const int64_t other = (i + look.images) % rows;
    float to_other = 0, nearest = -2;
    for (int64_t k = 0; k < rows; ++k) {
      if (k == i) continue;
      float similarity = 0;
      for (int64_t d = 0; d < dim; ++d) similarity += z[i * dim + d] * z[k * dim + d];
      crowding += std::exp(-4. * (1. - double{similarity}));
      (k == other ? to_other : nearest) = k == other ? similarity : std::max(nearest, similarity);
    }
    found += to_other > nearest;
    distance += 2. - 2. * double{to_other};
  }
  monitor.add("contrast accuracy", found / looked_at);
  monitor.add("alignment", distance / looked_at);
  monitor.add("uniformity", std::log(crowding / (looked_at * static_cast<double>(rows - 1))));
}

std::vector<std::string> SimclrHealth::advice(const HealthOptions& options, const HealthLook& look) const {
  const SettingNames& names = options.names;
  const std::string temperature = names.of("temperature", "SimclrOptions::temperature"),
                    head_bn = names.of("head-bn", "SimclrOptions::head_bn");
  Advice helps;
  if (model_.temperature < 0.05f || model_.temperature > 0.5f)
    helps.add(temperature,
              fmt::format("Take a temperature of 0.1 to 0.5: {} (now {:.3g}).", temperature, model_.temperature));
  helps.add(names.lr, fmt::format("Scale the learning rate ({}) to the batch of {}: about {:.2g} with LARC SGD, {:.1g} "
                                  "with AdamW.",
                                  names.lr, look.images, default_larc_lr(look.images), default_adamw_lr(look.images)));
  helps.add(names.batch, fmt::format("More images to tell apart: a larger batch ({}), or several batches an iteration "
                                     "({}).",
                                     names.batch, names.accumulate));
  if (!model_.head_bn) helps.add(head_bn, fmt::format("Batch norm in the head ({} true).", head_bn));
  helps.add(names.crops,
            fmt::format("Softer crops: larger areas ({}), weaker colour jitter ({}).", names.crops, names.jitter));
  return std::move(helps).all();
}

}  // namespace

Simclr::Simclr(std::shared_ptr<nn::Trunk> trunk, SimclrOptions options, uint64_t seed) : options_(options) {
  if (options.hidden_layers < 0 || !(options.temperature > 0.f))
    fail(fmt::format("SimCLR: {} hidden layers, temperature {}; expected at least 0, above 0", options.hidden_layers,
                     options.temperature));
  const nn::Init init{.seed = seed};
  trunk_ = add_child("trunk", std::move(trunk));
  std::vector<int64_t> widths{trunk_->out_channels()};
  widths.insert(widths.end(), static_cast<size_t>(options.hidden_layers), options.hidden);
  widths.push_back(options.dim);
  head_ = add_child("head", std::make_shared<nn::ProjectionHead>(widths, options.head_bn, init / "head"));
}

Tensor Simclr::forward(const Tensor& images) { return l2_normalize((*head_)(trunk_->features(images))); }

Tensor Simclr::contrast(const Tensor& z) const {
  const AutocastScope full(DType::f32);
  const int64_t rows = z.dim(0), images = rows / kCrops;
  std::vector<int32_t> other(static_cast<size_t>(rows));
  for (int64_t i = 0; i < rows; ++i) other[static_cast<size_t>(i)] = static_cast<int32_t>((i + images) % rows);
  return cross_entropy(scale(linear(z, z), 1.f / options_.temperature), Tensor::from(other, {rows}), true);
}

void Simclr::begin(std::span<const Batch> batches, const Progress&) {
  const int64_t images = images_of(batches);
  if (batches.size() == 1) return;
  const DeviceScope device(batches.front().images.device());
  const PhaseScope phase(Phase::forward);
  const NoGradScope no_grad;
  const FrozenStatisticsScope not_counted;
  embeddings_ = Tensor::empty({kCrops * images, options_.dim});
  int64_t first = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    const dist::OnBatch one(i);
    put_images(embeddings_, kCrops, first, (*this)(batches[i].images), batches[i].size());
    first += batches[i].size();
  }
  embeddings_ = dist::gather_views(embeddings_);
}

Tensor Simclr::loss(std::span<const Batch> batches, size_t which, const Progress&) {
  const Batch& batch = batches[which];
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  const dist::Ranks* ranks = dist::current_ranks();
  Tensor z;
  if (batches.size() == 1) {
    z = (*this)(batch.images);
    embeddings_ = dist::gather_views(z.detach());
    if (ranks == nullptr) return contrast(z);
  }
  if (which == 0) {
    Tensor leaf = embeddings_.detach();
    leaf.requires_grad_();
    const Tensor loss = contrast(leaf);
    loss.backward();
    whole_ = loss.detach();
    gradient_ = leaf.grad();
  }
  const int64_t images = embeddings_.dim(0) / kCrops, size = batch.size();
  int64_t first = 0;
  if (ranks != nullptr)
    first = ranks->iteration().shares(ranks->all->rank())[which].first;
  else
    for (size_t i = 0; i < which; ++i) first += batches[i].size();
  // The losses of the batches are averaged over images: each has its images' whole part of the gradient.
  const Tensor part =
      scale(take_images(gradient_, kCrops, first, first + size), static_cast<float>(images) / static_cast<float>(size));
  if (!z.defined()) z = (*this)(batch.images);
  const Tensor along = inner_product(z, part);
  return add(along, add(whole_, scale(along.detach(), -1.f)));
}

std::vector<NamedTensor> Simclr::seen() const { return {{"embeddings", dist::own_views(embeddings_)}}; }

std::unique_ptr<HealthRules> Simclr::health() const { return std::make_unique<SimclrHealth>(options_); }

Method simclr_method() {
  const auto o = std::make_shared<SimclrOptions>();
  return {
      .name = "simclr",
      .title = "SimCLR",
      .about = "each crop of an image finds the other one among the crops of all images (Chen et al. 2020)",
      .settings =
          {head_width(o->hidden),
           {.name = "hidden-layers",
            .help = "Of the projection head",
            .value = &o->hidden_layers,
            .range = Range::between(0, 100),
            .sizes = true},
           {.name = "dim", .help = "Of embeddings", .value = &o->dim, .range = Range::between(1, 1e7), .sizes = true},
           {.name = "head-bn", .help = "Batch norm in the head", .value = &o->head_bn, .sizes = true},
           {.name = "temperature",
            .help = "Of similarities: 0.1 to 0.5, the higher the fewer the images of a batch",
            .value = &o->temperature,
            .range = Range::above_zero()}},
      .crops = "2x96@0.08-1",
      .crops_of_each = kCrops,
      .lr = scaled_lr(),
      .warmup = usual_warmup("0 (adamw, or batch > 512: a tenth)"),
      .summary = [o] { return fmt::format("temperature {:.3g}", o->temperature); },
      .make = [o](std::shared_ptr<nn::Trunk> trunk, const MakeTrunk&,
                  uint64_t seed) { return std::make_unique<Simclr>(std::move(trunk), *o, seed); }};
}

}  // namespace saccade::ssl
