// Full iterations of SimCLR and DINO against PyTorch's (tests/goldens/methods.py), on the same weights and images.
#include <gtest/gtest.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>
#include <saccade/ssl/methods/dino.h>
#include <saccade/ssl/methods/simclr.h>
#include <support/golden.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace saccade {
namespace {

const golden::File& file() {
  static const golden::File methods(SACCADE_GOLDENS "/methods.safetensors");
  return methods;
}

std::shared_ptr<nn::Trunk> golden_trunk(const std::string& name) {
  if (name == "regnet") return nn::regnet("y:d=6,w0=16,wa=8,wm=2,g=8");
  return std::make_shared<nn::ResNet>(nn::ResNetSpec{.depths = {1, 1}, .width = 8});
}

/// Tensors below a prefix, under the golden file's names: torchvision's for the trunk.
std::vector<NamedTensor> below(const std::vector<NamedTensor>& tensors, const std::string& prefix) {
  std::vector<NamedTensor> found;
  for (const auto& [name, tensor] : tensors)
    for (const std::string_view part : {"trunk.", "head."})
      if (name.starts_with(prefix) && std::string_view(name).substr(prefix.size()).starts_with(part))
        found.push_back({name.substr(prefix.size() + (part == "trunk." ? part.size() : 0)), tensor});
  return found;
}

Batch batch_of_crops(const std::string& of, std::initializer_list<const char*> resolutions) {
  const auto size = static_cast<int64_t>(file().setting(of.substr(0, of.find('.')), "batch"));
  std::vector<Tensor> parts;
  for (const char* resolution : resolutions) {
    const auto crops = static_cast<int64_t>(file().setting(resolution, "crops"));
    const auto side = static_cast<int64_t>(file().setting(resolution, "size"));
    parts.push_back(golden::image_input(std::string("input.") + resolution + "." + file().text(of + ".salt"),
                                        {crops * size, side, side}));
  }
  Batch batch;
  batch.images = golden::ragged(parts);
  for (int64_t i = 0; i < size; ++i) batch.indices.push_back(i);
  return batch;
}

/// Compares every tensor of a ledger with ours of that name.
void expect_ledger(const std::string& name, const std::vector<NamedTensor>& ours, double tolerance) {
  const golden::Ledger ledger(file(), name, name + ".names");
  for (const std::string& wanted : ledger.names()) {
    const auto found = std::ranges::find(ours, wanted, &NamedTensor::name);
    ASSERT_NE(found, ours.end()) << name << " " << wanted;
    EXPECT_LE(ledger.error(wanted, golden::torch_order(found->tensor)), tolerance) << name << " " << wanted;
  }
  EXPECT_LE(ours.size(), ledger.names().size() + 4) << name;  // shifts that batch norm takes off again
}

/// One iteration: loss, what was seen, gradients, update.
void expect_iteration(ssl::Objective& model, optim::Optimizer& optimizer, float lr, const std::vector<Batch>& batches,
                      const std::string& of, const ssl::Progress& progress) {
  const std::string at = of + "." + std::to_string(progress.iteration + 1) + ".";
  const auto parameters = below(model.named_parameters(), "");
  model.begin(batches, progress);
  const Tensor loss = model.loss(batches, 0, progress);
  EXPECT_LE(golden::relative_error(loss, file()[at + "loss"]), 5e-6) << at;
  for (const NamedTensor& seen : model.seen())
    EXPECT_LE(golden::relative_error(seen.tensor, file()[at + seen.name]), 1e-5) << at << seen.name;
  model.release();
  loss.backward();
  std::vector<NamedTensor> gradients, changes;
  for (const auto& [name, parameter] : parameters)
    if (parameter.grad().defined()) gradients.push_back({name, parameter.grad()});
  expect_ledger(at + "gradients", gradients, 3e-4);

  std::vector<Tensor> before;
  for (const NamedTensor& p : parameters) before.push_back(p.tensor.clone());
  optimizer.step(lr);
  optimizer.zero_grad();
  model.updated(progress);
  expect_ledger(at + "parameters", parameters, 1e-5);
  for (size_t i = 0; i < parameters.size(); ++i) {
    Tensor change = parameters[i].tensor.clone();
    const auto old = before[i].data<float>();
    for (size_t j = 0; j < old.size(); ++j) change.data<float>()[j] -= old[j];
    changes.push_back({parameters[i].name, change});
  }
  expect_ledger(at + "updates", changes, 1e-3);
  expect_ledger(at + "buffers", below(model.named_buffers(), ""), 1e-4);
}

class GoldenMethod : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenMethod, TwoIterationsOfSimclr) {
  const std::string of = std::string("simclr.") + GetParam();
  const auto number = [](const char* key) { return static_cast<float>(file().setting("simclr", key)); };
  ssl::Simclr model(golden_trunk(GetParam()), {.hidden = static_cast<int64_t>(number("hidden")),
                                               .dim = static_cast<int64_t>(number("dim")),
                                               .temperature = number("temperature")});
  golden::fill(below(model.named_tensors(), ""));
  const auto optimizer = optim::larc_sgd({.momentum = number("momentum"),
                                          .weight_decay = number("decay"),
                                          .trust = number("trust"),
                                          .larc_eps = number("larc_eps")})
                             .build(model.named_parameters());
  const std::vector<Batch> batches{batch_of_crops(of, {"large"})};
  for (int64_t i = 0; i < 2; ++i) expect_iteration(model, *optimizer, number("lr"), batches, of, {.iteration = i});
}

TEST_P(GoldenMethod, TwoIterationsOfDino) {
  const std::string of = std::string("dino.") + GetParam();
  const auto number = [](const char* key) { return static_cast<float>(file().setting("dino", key)); };
  const auto count = [](const char* key) { return static_cast<int64_t>(file().setting("dino", key)); };
  ssl::Dino model(golden_trunk(GetParam()), golden_trunk(GetParam()),
                  {.outputs = count("outputs"),
                   .hidden = count("hidden"),
                   .dim = count("dim"),
                   .temperature = number("temperature"),
                   .teacher_temperature = number("teacher_temperature"),
                   .teacher_temperature_start = number("teacher_temperature_start"),
                   .teacher_warmup_epochs = 2,
                   .momentum = number("teacher_momentum"),
                   .center_momentum = number("center_momentum"),
                   .freeze_iterations = 1});
  golden::fill(below(model.named_tensors(), ""));
  model.teach_from_student();
  const auto optimizer =
      optim::sgd({.momentum = number("momentum"), .weight_decay = number("decay")}).build(model.trained_parameters());
  const std::vector<Batch> batches{batch_of_crops(of, {"large", "small"})};
  for (int64_t i = 0; i < 2; ++i) {
    expect_iteration(model, *optimizer, number("lr"), batches, of,
                     {.iteration = i, .iterations = count("iterations"), .per_epoch = 1});
    const std::string at = of + "." + std::to_string(i + 1) + ".";
    EXPECT_LE(golden::relative_error(model.center(), file()[at + "center"]), 1e-5) << at;
    expect_ledger(at + "teacher", below(model.named_parameters(), "teacher."), 1e-5);
    expect_ledger(at + "teacher_buffers", below(model.named_buffers(), "teacher."), 1e-4);
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, GoldenMethod, ::testing::Values("regnet", "resnet"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace saccade
