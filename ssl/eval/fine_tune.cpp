#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/batch_upload.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/nn/init.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/schedule.h>
#include <saccade/ssl/eval/fine_tune.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

namespace saccade::ssl {

namespace {

/// The labels of a batch's images in the order of its crops.
Tensor labels_of_crops(const Batch& batch, int64_t classes) {
  const int64_t images = total_images(batch.images.segments());
  if (batch.labels.empty() || batch.labels.size() != batch.indices.size() || images % batch.size() != 0)
    fail(fmt::format("fine_tune: {} labels for {} images in {} crops; expected a label an image", batch.labels.size(),
                     batch.size(), images));
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < images; ++i) {
    const int label = batch.labels[static_cast<size_t>(i % batch.size())];
    if (label < 0 || label >= classes) fail(fmt::format("fine_tune: label {}, expected 0 to {}", label, classes - 1));
    labels.push_back(label);
  }
  return Tensor::from(labels, {images});
}

std::map<int, int64_t> samples_of_classes(std::span<const int> labels) {
  std::map<int, int64_t> samples;
  for (const int label : labels)
    if (label >= 0) ++samples[label];
  return samples;
}

/// So many samples of each class, in an order drawn by the seed.
std::vector<int64_t> choose(std::span<const int> labels, std::map<int, int64_t> wanted, uint64_t seed) {
  std::vector<int64_t> order(labels.size()), chosen;
  std::iota(order.begin(), order.end(), int64_t{0});
  Philox random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  for (const int64_t i : order) {
    const int label = labels[static_cast<size_t>(i)];
    if (label >= 0 && wanted[label]-- > 0) chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

std::vector<int64_t> choose_per_class(std::span<const int> labels, int64_t count, uint64_t seed) {
  std::map<int, int64_t> wanted = samples_of_classes(labels);
  if (wanted.empty()) fail("choose_per_class: no sample has a label");
  for (auto& [label, of_class] : wanted) of_class = count / std::ssize(wanted);
  return choose(labels, std::move(wanted), seed);
}

std::vector<int64_t> choose_share(std::span<const int> labels, double share, uint64_t seed) {
  const std::map<int, int64_t> there = samples_of_classes(labels);
  int64_t all = 0, least = 0;
  for (const auto& [label, of_class] : there) {
    if (of_class < 2) fail(fmt::format("one sample alone is of class {}, and two of each are the least", label));
    all += of_class;
    least += 2;
  }
  if (all == 0) fail("no sample has a label");
  if (!(share > 0) || (share >= 1 && share != std::floor(share)))
    fail(fmt::format("{:g} samples; expected a share between 0 and 1, or a whole number", share));
  if (share > static_cast<double>(all)) fail(fmt::format("{:g} samples of {} that have labels", share, all));
  if (share >= 1 && share < static_cast<double>(least))
    fail(fmt::format("{:g} samples of {} classes; two of each are the least", share, there.size()));
  const int64_t count = share >= 1
                            ? static_cast<int64_t>(share)
                            : std::max(least, static_cast<int64_t>(std::lround(share * static_cast<double>(all))));

  std::map<int, int64_t> wanted;
  for (const auto& [label, of_class] : there) wanted[label] = 2;
  // One after the other, by Sainte-Lague's rule: a class that divides without rest gets just its part.
  for (int64_t chosen = least; chosen < count; ++chosen) {
    int next = 0;
    double most = 0;
    for (const auto& [label, of_class] : there) {
      const int64_t has = wanted[label];
      const double claim = static_cast<double>(of_class) / static_cast<double>(2 * has + 1);
      if (has == of_class || claim <= most) continue;
      next = label;
      most = claim;
    }
    ++wanted[next];
  }
  return choose(labels, std::move(wanted), seed);
}

void copy_weights(const nn::Module& from, const nn::Module& to) {
  const auto source = from.named_tensors(), target = to.named_tensors();
  if (source.size() != target.size())
    fail(fmt::format("copy_weights: {} tensors into {}; expected the same architecture", source.size(), target.size()));
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i].name != target[i].name)
      fail(fmt::format("copy_weights: {} into {}; expected the same architecture", source[i].name, target[i].name));
    target[i].tensor.copy_from(source[i].tensor);
  }
}

Classifier fine_tune(std::shared_ptr<nn::Trunk> trunk, const std::function<Batch(int64_t)>& batches,
                     const FineTuneOptions& options) {
  const DeviceScope device(trunk->device());
  BatchUpload upload(trunk->device());
  const nn::Init init{.seed = options.seed, .path = "classifier"};
  Classifier result{.trunk = trunk,
                    .weight = init.normal("weight", {options.classes, trunk->out_channels()}, 0.01).requires_grad_(),
                    .bias = nn::Init::constant({options.classes}, 0.f).requires_grad_()};
  std::vector<optim::ParameterGroup> groups(2);
  groups[0].parameters = trunk->named_parameters();
  groups[1].parameters = {{"classifier.weight", result.weight}, {"classifier.bias", result.bias}};
  groups[1].lr_scale = options.head_lr / options.trunk_lr;
  optim::AdamW optimizer(std::move(groups), {.weight_decay = options.weight_decay, .decay_vectors = false});
  const optim::WarmupCosine schedule{
      .base = double{options.trunk_lr}, .warmup = options.warmup_iterations, .total = options.iterations};

  trunk->train();
  for (int64_t iteration = 0; iteration < options.iterations; ++iteration) {
    const Batch batch = [&] {
      const DeviceScope here(Device::cpu);
      return upload(batches(iteration));
    }();
    optimizer.zero_grad();
    const Tensor logits = linear(trunk->features(batch.images), result.weight, result.bias);
    cross_entropy(logits, labels_of_crops(batch, options.classes)).backward();
    optimizer.step(schedule(iteration));
  }
  optimizer.zero_grad();
  result.weight.requires_grad_(false);
  result.bias.requires_grad_(false);
  return result;
}

LinearProbe Classifier::linear() const { return {.weight = weight.to(Device::cpu), .bias = bias.to(Device::cpu)}; }

std::vector<int> Classifier::classify(const ImageRange& images, int64_t count, int64_t batch) const {
  return linear().classify(features(*trunk, images, count, batch));
}

}  // namespace saccade::ssl
