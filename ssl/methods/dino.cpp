#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/autograd.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/optim/moving_average.h>
#include <saccade/ssl/methods/crop_major.h>
#include <saccade/ssl/methods/defaults.h>
#include <saccade/ssl/methods/dino.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>

namespace saccade::ssl {

/// Pooled features (N, C) -> embeddings of length 1 (N, dim), then their scores (N, K). Tensors are named as in the
/// authors' code.
class Dino::Head final : public nn::Module {
 public:
  Head(int64_t features, const DinoOptions& options, const nn::Init& init) {
    int64_t in = features;
    for (int64_t i = 0; i <= options.hidden_layers; ++i) {
      // The authors' 0.02 at their width of 2048, and as lively at any other.
      const nn::Linear::Options drawn{.weight_std = 0.02 * std::sqrt(2048.0 / static_cast<double>(in))};
      const bool last = i == options.hidden_layers;
      const int64_t out = last ? options.dim : options.hidden, place = i * (options.head_bn ? 3 : 2);
      const auto name = fmt::format("mlp.{}", place);
      Layer layer{.linear = add_child(name, std::make_shared<nn::Linear>(in, out, drawn, init / name)), .norm = {}};
      if (options.head_bn && !last)
        layer.norm = add_child(fmt::format("mlp.{}", place + 1), std::make_shared<nn::BatchNorm>(out));
      layers_.push_back(std::move(layer));
      in = out;
    }
    weight_v_ = add_parameter("last_layer.weight_v", init.uniform("last_layer.weight_v", {options.outputs, options.dim},
                                                                  1.0 / std::sqrt(static_cast<double>(in))));
  }

  /// The rows of the last layer have length 1 whatever that of their parameter is; a fixed one gets no gradient.
  Tensor scores(const Tensor& embeddings, bool fixed) {
    const LayerScope layer(name());
    const AutocastScope full(DType::f32);
    const Tensor rows = l2_normalize(weight_v_);
    return linear(embeddings, fixed ? rows.detach() : rows);
  }

 protected:
  Tensor forward(const Tensor& x) override {
    Tensor y = x;
    for (size_t i = 0; i < layers_.size(); ++i) {
      y = (*layers_[i].linear)(y);
      if (layers_[i].norm) y = (*layers_[i].norm)(y);
      if (i + 1 < layers_.size()) y = gelu(y);
    }
    return l2_normalize(y.dtype() == DType::f32 ? y : cast(y, DType::f32));
  }

 private:
  struct Layer {
    std::shared_ptr<Module> linear, norm;
  };
  std::vector<Layer> layers_;
  Tensor weight_v_;
};

/// The teacher, under one name.
class Dino::Teacher final : public nn::Module {
 public:
  Teacher(const std::shared_ptr<nn::Trunk>& trunk, const std::shared_ptr<Head>& head)
      : trunk_(add_child("trunk", trunk)), head_(add_child("head", head)) {
    requires_grad(false);
  }

 protected:
  Tensor forward(const Tensor& images) override { return head_->scores((*head_)(trunk_->features(images)), true); }

 private:
  std::shared_ptr<nn::Trunk> trunk_;
  std::shared_ptr<Head> head_;
};

namespace {

/// The first so many crops of each image, which lie at the front.
Tensor first_crops(const Batch& batch, int64_t crops) {
  Segments taken;
  int64_t left = crops * batch.size();
  for (Segment segment : batch.images.segments()) {
    segment.n = std::min(segment.n, left);
    left -= segment.n;
    if (segment.n > 0) taken.push_back(segment);
  }
  return batch.images.slice(0, total_rows(taken)).with_segments(taken);
}

constexpr double kNone = MetricGuide::kNone;
using Bad = MetricGuide::Bad;

// Tiny networks were seen to have, once they had learned, a target entropy of 0.00-0.55, information of 0.2-0.56 and
// marginal of 0.17-0.8; without the centre 0.00, 0.000 and 0.000; without sharpening 1.000, 0.000 and 1.
constexpr MetricGuide kGuides[] = {
    {"target entropy", Bad::high, 0.98, 0.999,
     "Softness of the teacher's outputs, as a share of ln K. It falls while the run learns; 1 says nothing.",
     "the teacher's outputs are uniform ({:.3f} of the greatest entropy)"},
    {"target information", Bad::low, 0.05, 0.01,
     "What an output of the teacher tells of its image: entropy of their mean less their mean entropy, as a share of "
     "the "
     "greatest. It grows; 0 is a collapse, to one output or to all alike.",
     "the teacher's outputs are the same for all images (they tell {:.3f} of what they could)"},
    {"target marginal", Bad::low, 0.1, 0.02,
     "Entropy of the mean of the teacher's outputs, as a share of ln K. Near 0 one output has all images.",
     "one of the teacher's outputs has nearly all images (entropy of their mean: {:.3f} of the greatest)"},
    {"KL", Bad::neither, kNone, kNone,
     "What the student does not yet foretell of the teacher: the loss less the mean entropy of the teacher's outputs. "
     "Near 0 both say the same of all images."},
    {"center norm", Bad::neither, kNone, kNone,
     "Root of the mean square of the centre, which is taken off the teacher's outputs. It settles; steady growth is an "
     "output that wins."},
};

constexpr int64_t kLookedAt = 256;  ///< rows of targets: enough for a mean, and cheap with many outputs
constexpr double kTelling = 0.1;    ///< of target information: more than any run has that has collapsed

class DinoHealth final : public HealthRules {
 public:
  DinoHealth(DinoOptions model, Tensor center) : model_(model), center_(std::move(center)) {}

  int64_t views() const override { return model_.teaching; }
  std::span<const MetricGuide> guides() const override { return kGuides; }
  bool learns(const HealthLook&) const override { return information_ > kTelling; }
  void measure(HealthMonitor& monitor, const HealthLook& look) override;
  std::vector<std::string> advice(const HealthOptions& options, const HealthLook& look) const override;

 private:
  DinoOptions model_;
  Tensor center_;
  double information_ = 0;  ///< of this reading
};

double entropy_of(std::span<const double> p) {
  double h = 0;
  for (const double v : p)
    if (v > 0) h -= v * std::log(v);
  return h;
}

void DinoHealth::measure(HealthMonitor& monitor, const HealthLook& look) {
  const Tensor* targets = look.find("targets");
  if (targets == nullptr) return;
  const int64_t rows = targets->dim(0), k = targets->dim(1), stride = (rows + kLookedAt - 1) / kLookedAt;
  std::vector<double> mean(static_cast<size_t>(k)), row(mean.size());
  double entropy = 0, seen = 0;
  for (int64_t r = 0; r < rows; r += stride, ++seen) {
    const auto q = targets->data<float>().subspan(static_cast<size_t>(r * k), static_cast<size_t>(k));
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += row[i] = double{q[i]};
    entropy += entropy_of(row);
  }
  entropy /= seen;
  for (double& m : mean) m /= seen;
  const double marginal = entropy_of(mean), ln_k = std::log(static_cast<double>(k));
  // No mean of so many rows has more than ln(rows) above their mean entropy.
  const double most = std::min(ln_k, std::log(seen));
  information_ = (marginal - entropy) / most;
  monitor.add("target entropy", entropy / ln_k);
  monitor.add("target information", information_);
  monitor.add("target marginal", marginal / ln_k);
  monitor.add("KL", double{look.loss} - entropy);
  double square = 0;
  const Tensor center = center_.to(Device::cpu);
  for (const float c : center.data<float>()) square += double{c} * double{c};
  monitor.add("center norm", std::sqrt(square / static_cast<double>(k)));
}

std::vector<std::string> DinoHealth::advice(const HealthOptions& options, const HealthLook& look) const {
  const SettingNames& names = options.names;
  const std::string sharpness = names.of("teacher-temperature", "DinoOptions::teacher_temperature"),
                    center = names.of("center-momentum", "DinoOptions::center_momentum"),
                    momentum = names.of("teacher-momentum", "DinoOptions::momentum"),
                    freeze = names.of("freeze", "DinoOptions::freeze_iterations"),
                    outputs = names.of("outputs", "DinoOptions::outputs");
  Advice helps;
  if (model_.teacher_temperature > 0.0401f)
    helps.add(sharpness, fmt::format("Sharpen the teacher: {} 0.04 (now {:.3g}); above 0.06 it needs a warm-up.",
                                     sharpness, model_.teacher_temperature));
  if (model_.center_momentum > 0.95f)
    helps.add(center, fmt::format("Let the centre follow the teacher's outputs: {} 0.9 (now {:.4g}).", center,
                                  model_.center_momentum));
  helps.add(names.lr, fmt::format("Halve the learning rate ({}): about {:.1g} with AdamW is usual for {} images.",
                                  names.lr, default_dino_adamw_lr(look.images), look.images));
  helps.add(momentum, fmt::format("A slower teacher: {} nearer to 1 (now {:.4g}).", momentum, model_.momentum));
  helps.add(freeze, fmt::format("Freeze the last layer longer ({}): an epoch ({} iterations) or more (now {}).", freeze,
                                options.iterations_per_epoch, model_.freeze_iterations));
  helps.add(outputs, fmt::format("Fewer outputs ({}, now {}).", outputs, model_.outputs));
  helps.add(names.crops,
            fmt::format("Softer crops: larger areas ({}), weaker colour jitter ({}).", names.crops, names.jitter));
  return std::move(helps).all();
}

}  // namespace

Dino::Dino(std::shared_ptr<nn::Trunk> trunk, std::shared_ptr<nn::Trunk> teacher, DinoOptions options, uint64_t seed)
    : options_(options) {
  if (options.outputs < 2 || options.hidden_layers < 0 || options.teaching < 1 || !(options.temperature > 0.f) ||
      !(options.teacher_temperature > 0.f) || !(options.teacher_temperature_start > 0.f))
    fail(
        fmt::format("DINO: {} outputs, {} hidden layers, {} teaching crops, temperatures {}, {} and {}; expected at "
                    "least 2, at least 0, at least 1, above 0",
                    options.outputs, options.hidden_layers, options.teaching, options.temperature,
                    options.teacher_temperature, options.teacher_temperature_start));
  const nn::Init init{.seed = seed};
  trunk_ = add_child("trunk", std::move(trunk));
  head_ = add_child("head", std::make_shared<Head>(trunk_->out_channels(), options, init / "head"));
  const auto teacher_head = std::make_shared<Head>(teacher->out_channels(), options, init / "head");
  teacher_trunk_ = std::move(teacher);
  teacher_ = add_child("teacher", std::make_shared<Teacher>(teacher_trunk_, teacher_head));
  center_ = add_buffer("center", nn::Init::constant({options.outputs}, 0.f));
  teach_from_student();
}

std::vector<Tensor> Dino::student() const {
  std::vector<Tensor> all = trunk_->parameters(), of_head = head_->parameters();
  all.insert(all.end(), of_head.begin(), of_head.end());
  return all;
}

void Dino::teach_from_student() {
  const NoGradScope no_grad;
  std::vector<NamedTensor> from = trunk_->named_tensors(), to = teacher_->named_tensors(),
                           of_head = head_->named_tensors();
  from.insert(from.end(), of_head.begin(), of_head.end());
  for (size_t i = 0; i < from.size(); ++i) {
    if (from[i].tensor.shape() != to[i].tensor.shape())
      fail(fmt::format("DINO: the teacher's {} is {}, the student's {}", to[i].name, to_string(to[i].tensor.shape()),
                       to_string(from[i].tensor.shape())));
    to[i].tensor.copy_from(from[i].tensor);
  }
}

void Dino::begin(std::span<const Batch>, const Progress& progress) {
  if (progress.iteration == 0) teach_from_student();
}

std::vector<StartingPart> Dino::parts_from(const Weights& weights, const std::string& trunk_prefix) {
  std::vector<StartingPart> parts = Objective::parts_from(weights, trunk_prefix);
  for (StartingPart& part : parts)
    if (part.name == "teacher") part = {.name = part.name, .line = "The teacher begins as the student."};
  return parts;
}

Tensor Dino::forward(const Tensor& images) { return (*head_)(trunk_->features(images)); }

float Dino::teacher_temperature(const Progress& progress) const {
  const int64_t epoch = progress.iteration / progress.per_epoch, warmup = options_.teacher_warmup_epochs;
  if (epoch >= warmup) return options_.teacher_temperature;
  const float part = warmup > 1 ? static_cast<float>(epoch) / static_cast<float>(warmup - 1) : 0.f;
  return options_.teacher_temperature_start +
         part * (options_.teacher_temperature - options_.teacher_temperature_start);
}

float Dino::momentum(const Progress& progress) const {
  const double done = static_cast<double>(progress.iteration) / static_cast<double>(progress.iterations);
  return static_cast<float>(1. - (1. - double{options_.momentum}) * (1. + std::cos(std::numbers::pi * done)) / 2.);
}

Tensor Dino::loss(std::span<const Batch> batches, size_t which, const Progress& progress) {
  const Batch& batch = batches[which];
  const DeviceScope device(batch.images.device());
  const PhaseScope phase(Phase::forward);
  const int64_t size = batch.size(), crops = total_images(batch.images.segments());
  if (size < 1 || crops % size != 0 || crops / size < std::max<int64_t>(2, options_.teaching))
    fail(fmt::format("DINO: {} crops of {} images; expected the same number of crops of each, at least {}", crops, size,
                     std::max<int64_t>(2, options_.teaching)));
  int64_t all = 0, first = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    if (i == which) first = all;
    all += batches[i].size();
  }
  if (which == 0) mean_ = embeddings_ = targets_ = {};

  Tensor targets;
  {
    const NoGradScope no_grad;
    const float temperature = teacher_temperature(progress);
    const Tensor outputs = (*teacher_)(first_crops(batch, options_.teaching));
    targets = softmax(outputs, temperature, scale(center_, -1.f / temperature));
    const dist::Ranks* ranks = dist::current_ranks();
    const int64_t everywhere = ranks == nullptr ? all : ranks->iteration().images;
    const Tensor mean = scale(mean_rows(outputs), static_cast<float>(size) / static_cast<float>(everywhere));
    mean_ = mean_.defined() ? add(mean_, mean) : mean;
  }
  const Tensor z = (*this)(batch.images);
  const Tensor s = head_->scores(z, progress.iteration < options_.freeze_iterations);
  if (size == all) {
    embeddings_ = z.detach(), targets_ = targets;
  } else {
    if (which == 0) {
      embeddings_ = Tensor::empty({options_.teaching * all, options_.dim});
      targets_ = Tensor::empty({options_.teaching * all, options_.outputs});
    }
    put_images(embeddings_, options_.teaching, first, z.detach(), size);
    put_images(targets_, options_.teaching, first, targets, size);
  }
  return swapped_prediction(s, targets, size, options_.temperature);
}

std::vector<NamedTensor> Dino::seen() const { return {{"embeddings", embeddings_}, {"targets", targets_}}; }

void Dino::updated(const Progress& progress) {
  const DeviceScope device(center_.device());
  if (const dist::Ranks* ranks = dist::current_ranks()) ranks->all->all_reduce(mean_);
  optim::moving_average(teacher_->parameters(), student(), momentum(progress));
  optim::moving_average({&center_, 1}, {&mean_, 1}, options_.center_momentum);
  mean_ = {};
}

std::unique_ptr<HealthRules> Dino::health() const { return std::make_unique<DinoHealth>(options_, center_); }

Method dino_method() {
  const auto o = std::make_shared<DinoOptions>();
  const auto larc = [](const RunFacts& run) { return run.optimizer == "larc"; };
  return {
      .name = "dino",
      .title = "DINO",
      .about = "a student foretells what its own moving average, the teacher, says of other crops (Caron et al. 2021)",
      .settings =
          {{.name = "outputs",
            .help = "Of the head: far more than the kinds of things you expect",
            .value = &o->outputs,
            .range = Range::between(2, 1e9),
            .otherwise = {"a twentieth of the images, from 256 to 65536",
                          [](const RunFacts& run) {
                            return run.data == 0 ? 65536.
                                                 : std::clamp(static_cast<double>(run.data / 20), 256., 65536.);
                          }},
            .sizes = true},
           head_width(o->hidden),
           {.name = "hidden-layers",
            .help = "Of the head",
            .value = &o->hidden_layers,
            .range = Range::between(0, 100),
            .sizes = true},
           {.name = "dim",
            .help = "Of embeddings: the head's bottleneck",
            .value = &o->dim,
            .range = Range::between(1, 1e7),
            .sizes = true},
           {.name = "head-bn", .help = "Batch norm in the head", .value = &o->head_bn, .sizes = true},
           {.name = "temperature", .help = "Of the student", .value = &o->temperature, .range = Range::above_zero()},
           {.name = "teacher-temperature",
            .help = "Of the teacher: at 0.04 it is sharp; up to 0.07 with a warm-up",
            .value = &o->teacher_temperature,
            .range = Range::above_zero()},
           {.name = "teacher-temperature-start",
            .help = "Where its warm-up begins",
            .value = &o->teacher_temperature_start,
            .range = Range::above_zero()},
           {.name = "teacher-warmup",
            .help = "Epochs of it",
            .value = &o->teacher_warmup_epochs,
            .range = Range::at_least(0)},
           {.name = "teacher-momentum",
            .help = "Of the teacher's weights at first: nearer to 1 is slower",
            .value = &o->momentum,
            .range = Range::between(0, 1),
            .otherwise = {"1 - 20 / iterations, from 0.9 to 0.996",
                          [](const RunFacts& run) {
                            return std::clamp(1. - 20. / static_cast<double>(run.iterations), 0.9, 0.996);
                          }}},
           {.name = "center-momentum",
            .help = "Of the mean that is taken off the teacher's outputs",
            .value = &o->center_momentum,
            .range = Range::between(0, 1)},
           {.name = "freeze",
            .help = "Iterations with a fixed last layer",
            .value = &o->freeze_iterations,
            .range = Range::at_least(0),
            .otherwise = {"1 epoch", [](const RunFacts& run) { return static_cast<double>(run.per_epoch); }}}},
      .crops = "1x96@0.14-1,blur=1+1x96@0.14-1,blur=0.1,solarize=0.2+4x48@0.05-0.14",
      .optimizer = "adamw",
      .weight_decay = 0.04f,
      .lr = {"0.0005 (larc: 0.6) x batch/256",
             [=](const RunFacts& run) {
               return larc(run) ? default_larc_lr(run.images) : default_dino_adamw_lr(run.images);
             }},
      .warmup = usual_warmup("a tenth, at most 10 epochs (larc, batch up to 512: 0)"),
      .summary = [o] { return fmt::format("{} outputs, teacher's momentum {:.4g}", o->outputs, o->momentum); },
      .make = [o](std::shared_ptr<nn::Trunk> trunk, const MakeTrunk& another,
                  uint64_t seed) { return std::make_unique<Dino>(std::move(trunk), another(), *o, seed); },
      .make_dearest =
          [o](std::shared_ptr<nn::Trunk> trunk, const MakeTrunk& another) {
            DinoOptions dearest = *o;
            dearest.freeze_iterations = 0;
            return std::make_unique<Dino>(std::move(trunk), another(), dearest);
          }};
}

}  // namespace saccade::ssl
