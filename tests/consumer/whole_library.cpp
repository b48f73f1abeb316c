// What a user of the library reaches through its one header: every op, forward and backward, in half precision and
// recomputed, on each device that is there. Prints the loss on each that computes.
#include <saccade/saccade.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

using namespace saccade;

namespace {

std::vector<Tensor> parameters;

Tensor parameter(Shape shape) {
  const TagScope tag(Tag::parameters);
  parameters.push_back(Tensor::full(std::move(shape), 0.1f).requires_grad_());
  return parameters.back();
}

/// A network that uses each op, and its loss on two crops of two images.
Tensor loss() {
  const int64_t c = 8;
  const Tensor filter = parameter({c, 3, 3, 4}), gamma = parameter({c}), beta = parameter({c}), w1 = parameter({2, c}),
               b1 = parameter({2}), w2 = parameter({c, 2}), b2 = parameter({c}), head = parameter({c, c}),
               bias = parameter({c}), prototypes = parameter({6, c}), mean = Tensor::zeros({c}),
               variance = Tensor::full({c}, 1.f);
  Tensor images = Tensor::images({{2, 8, 8}, {2, 6, 6}}, 4);
  if (images.device() == Device::cpu) {
    Philox random(1);
    for (float& pixel : images.data<float>()) pixel = random.normal();
  } else {
    images.fill(1.f);
  }
  // By value: it runs again in backward.
  const auto trunk = [=](const std::vector<Tensor>& in) {
    const LayerScope layer("trunk");
    const Tensor x = batch_norm(conv2d(in[0], filter, {.padding = 1}), gamma, beta, mean, variance, {.relu = true});
    return squeeze_excite(max_pool2d(relu(x), {}), w1, b1, w2, b2);
  };
  const Tensor rows = cast(global_avg_pool(checkpoint(trunk, {images})), DType::f32);
  const Tensor hidden = cast(linear(rows, head, bias), DType::f32);
  const Tensor embeddings = l2_normalize(add(gelu(hidden), sigmoid(scale(rows, 2.f))));
  const Tensor scores = cast(linear(embeddings, prototypes), DType::f32);
  const DeviceScope here(Device::cpu);
  const std::vector<int32_t> classes = {0, 1, 2, 3};
  const Tensor labels = Tensor::from(classes, {4});
  const Device device = scores.device();
  const Tensor first = scores.slice(0, 2);
  const Tensor targets = scale(add(sinkhorn(first, 0.05f, 3), softmax(first, 0.1f, mean_rows(scores))), 0.5f);
  const Tensor parts[] = {swapped_prediction(scores, targets, 2, 0.1f),
                          cross_entropy(scores, device == Device::cpu ? labels : labels.to(device)),
                          add(sum(rows), sum(logsumexp(scores))), inner_product(rows, rows)};
  return add(add(parts[0], parts[1]), add(parts[2], parts[3]));
}

bool learns(Device device) {
  parameters.clear();
  const DeviceScope where(device);
  const AutocastScope precision(DType::bf16);
  const KeepScope keep(Keep::lean);
  const Tensor value = loss();
  value.backward();
  for (const Tensor& p : parameters)
    if (!p.grad().defined()) return false;
  if (device == Device::meta) return true;
  std::printf("%s: a loss of %.3f\n", std::string(name_of(device)).c_str(), double{value.item()});
  return std::isfinite(value.item());
}

}  // namespace

int main() {
  std::vector<Device> devices = {Device::cpu, Device::meta};
  if (kernels::cuda_status().devices > 0) devices.push_back(Device::cuda);
  for (const Device device : devices)
    if (!learns(device)) return std::printf("%s: no\n", std::string(name_of(device)).c_str()), 1;
  return 0;
}
