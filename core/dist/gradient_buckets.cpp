#include <fmt/format.h>
#include <saccade/core/dist/gradient_buckets.h>
#include <saccade/core/layer.h>

#include <algorithm>
#include <utility>

namespace saccade::dist {

/// Buckets whose exchange goes on at a time: what an optimiser within backward saves is memory, which they hold.
constexpr size_t kUnderWay = 2;

GradientBuckets::GradientBuckets(std::vector<Tensor> parameters, Communicator& ranks, int64_t bytes)
    : parameters_(std::move(parameters)), ranks_(ranks), bucket_of_(parameters_.size()), reached_(parameters_.size()) {
  for (size_t i = parameters_.size(); i-- > 0;) {
    const int64_t elements = parameters_[i].numel();
    if (buckets_.empty() || (buckets_.back().elements + elements) * 4 > bytes) buckets_.emplace_back();
    Bucket& bucket = buckets_.back();
    bucket.parameters.push_back(i);
    bucket.elements += elements;
    bucket_of_[i] = buckets_.size() - 1;
  }
  for (size_t i = 0; i < parameters_.size(); ++i)
    hooks_.push_back(parameters_[i].on_gradient_ready(
        autograd::HookStage::reduce, [this, i](autograd::GradientReady& ready) { on_ready(i, ready); }));
}

void GradientBuckets::on_ready(size_t parameter, autograd::GradientReady& ready) {
  reached_[parameter] = true;
  if (!ready.last) return;
  if (!std::exchange(ends_, true)) ready.at_end([this] { finish(); });
  Bucket& bucket = buckets_[bucket_of_[parameter]];
  bucket.resume.push_back(ready.postpone());
  if (++bucket.ready == std::ssize(bucket.parameters)) send(bucket);
}

void GradientBuckets::send(Bucket& bucket) {
  int64_t elements = 0;
  for (const size_t i : bucket.parameters)
    if (reached_[i]) elements += parameters_[i].numel();
  {
    const NoGradScope no_grad;
    const DeviceScope device(ranks_.device() == Device::cpu ? parameters_[bucket.parameters.front()].device()
                                                            : ranks_.device());
    const TagScope tag(Tag::gradients);
    bucket.memory = Tensor::empty({elements});
    int64_t first = 0;
    for (const size_t i : bucket.parameters) {
      if (!reached_[i]) continue;
      reached_[i] = false;
      const Tensor& parameter = parameters_[i];
      const Tensor gradient = parameter.grad();
      if (gradient.dtype() != DType::f32)
        fail(fmt::format("a gradient of {}; expected f32, to be summed over processes", name_of(gradient.dtype())));
      const Tensor place = bucket.memory.slice(first, first + gradient.numel());
      place.copy_from(gradient);
      parameter.set_grad(place.reshape(parameter.shape()));
      first += gradient.numel();
    }
  }
  bucket.sums = ranks_.start_all_reduce(bucket.memory);
  bucket.ready = 0;
  under_way_.push_back(static_cast<size_t>(&bucket - buckets_.data()));
  while (under_way_.size() > kUnderWay) receive();
}

void GradientBuckets::receive() {
  Bucket& bucket = buckets_[under_way_.front()];
  under_way_.pop_front();
  bucket.sums.wait();
  bucket.memory = {};  // the gradients hold it
  for (const auto& resume : std::exchange(bucket.resume, {})) resume();
}

/// Also of parameters that only an earlier backward has reached, and of buckets of which some got no gradient.
void GradientBuckets::finish() {
  for (Bucket& bucket : buckets_)
    if (std::ranges::any_of(bucket.parameters, [this](size_t i) { return reached_[i]; })) send(bucket);
  while (!under_way_.empty()) receive();
  ends_ = false;
}

}  // namespace saccade::dist
