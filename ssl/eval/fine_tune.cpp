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
#include <saccade/ssl/eval/linear_probe.h>

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

}  // namespace

std::vector<int64_t> choose_per_class(std::span<const int> labels, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(labels.size()), chosen;
  std::iota(order.begin(), order.end(), int64_t{0});
  Philox random(seed);
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  std::map<int, int64_t> taken;
  for (const int label : labels)
    if (label >= 0) taken[label] = 0;
  if (taken.empty()) fail("choose_per_class: no sample has a label");
  const int64_t each = count / static_cast<int64_t>(taken.size());
  for (const int64_t i : order) {
    const int label = labels[static_cast<size_t>(i)];
    if (label >= 0 && taken[label]++ < each) chosen.push_back(i);
  }
  return chosen;
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

std::vector<int> Classifier::classify(const ImageRange& images, int64_t count, int64_t batch) const {
  return LinearProbe{.weight = weight.to(Device::cpu), .bias = bias.to(Device::cpu)}.classify(
      features(*trunk, images, count, batch));
}

}  // namespace saccade::ssl
