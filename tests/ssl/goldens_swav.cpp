// Full SwAV iterations and their parts against PyTorch's (tests/goldens/swav.py), on the same weights and images.
#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/schedule.h>
#include <saccade/ssl/methods/swav.h>
#include <support/golden.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace saccade {
namespace {

const golden::File& file() {
  static const golden::File swav(SACCADE_GOLDENS "/swav.safetensors");
  return swav;
}

float number(const char* key) { return static_cast<float>(file().setting("settings", key)); }
int64_t count(const char* key) { return static_cast<int64_t>(file().setting("settings", key)); }

/// The model's tensors under the golden file's names: torchvision's for the trunk, the authors' for the head.
std::vector<NamedTensor> under_golden_names(std::vector<NamedTensor> tensors) {
  for (auto& [name, tensor] : tensors) {
    if (name.starts_with("trunk.")) name = name.substr(6);
    if (name.starts_with("head.")) name = "projection_" + name;
  }
  return tensors;
}

/// The bias in front of batch norm is not in the golden file: its gradient is zero but for rounding.
bool in_ledger(const std::string& name) { return name != "projection_head.0.bias"; }

Batch batch_of_crops() {
  const int64_t size = count("batch");
  std::vector<Tensor> parts;
  for (const char* resolution : {"large", "small"}) {
    const auto crops = static_cast<int64_t>(file().setting(resolution, "crops"));
    const auto side = static_cast<int64_t>(file().setting(resolution, "size"));
    parts.push_back(golden::image_input(std::string("input.") + resolution + "." + file().text("salt"),
                                        {crops * size, side, side}));
  }
  Batch batch;
  batch.images = golden::ragged(parts);
  for (int64_t i = 0; i < size; ++i) batch.indices.push_back(i);
  return batch;
}

void fill_queues(const ssl::SwAV& model) {
  for (const auto& [name, rows] : model.named_buffers())
    if (name.starts_with("queue")) {
      const auto values = golden::signed_values("queue." + name.substr(5), rows.numel());
      rows.copy_from(l2_normalize(Tensor::from(values, rows.shape())));
    }
}

/// Compares every tensor of a list with a ledger, which may have `more` that the list lacks.
void expect_ledger(const std::string& prefix, const std::string& names, const std::vector<NamedTensor>& ours,
                   double tolerance, size_t more = 0) {
  const golden::Ledger ledger(file(), prefix, names);
  size_t compared = 0;
  for (const auto& [name, tensor] : ours)
    if (in_ledger(name)) {
      ++compared;
      EXPECT_LE(ledger.error(name, golden::torch_order(tensor)), tolerance) << prefix << " " << name;
    }
  EXPECT_EQ(compared + more, ledger.names().size()) << prefix;
}

std::vector<NamedTensor> copies(const std::vector<NamedTensor>& tensors) {
  std::vector<NamedTensor> all;
  for (const auto& [name, tensor] : tensors) all.push_back({name, tensor.clone()});
  return all;
}

class GoldenIteration : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenIteration, LossAssignmentsGradientsAndLarcStepsArePyTorchs) {
  const std::string variant = GetParam();
  ssl::SwAVOptions options{.prototypes = count("prototypes"), .hidden = count("hidden"), .dim = count("dim")};
  options.temperature = number("temperature");
  options.eps = number("epsilon");
  options.sinkhorn_iterations = static_cast<int>(count("sinkhorn_iterations"));
  options.queue_length = variant == "queue" ? count("queue") : 0;
  options.freeze_prototypes_iterations = variant == "frozen" ? 1 : 0;
  ssl::SwAV model(nn::regnet("y:d=6,w0=16,wa=8,wm=2,g=8"), options);
  golden::fill(under_golden_names(model.named_tensors()));
  fill_queues(model);
  const auto parameters = under_golden_names(model.named_parameters());
  const auto optimizer = optim::larc_sgd({.momentum = number("momentum"),
                                          .weight_decay = number("decay"),
                                          .trust = number("trust"),
                                          .larc_eps = number("larc_eps")})
                             .build(parameters);
  const Batch batch = batch_of_crops();

  for (int64_t iteration = 0; iteration < 2; ++iteration) {
    const std::string at = variant + "." + std::to_string(iteration + 1) + ".";
    ssl::StepTensors step;
    const Tensor loss = model.loss(batch, iteration, &step);
    EXPECT_LE(golden::relative_error(loss, file()[at + "loss"]), 1e-6) << at;
    EXPECT_LE(golden::relative_error(model.prototypes(), file()[at + "prototypes"]), 1e-6) << at;
    EXPECT_LE(golden::relative_error(step.embeddings, file()[at + "embeddings"]), 1e-5) << at;
    EXPECT_LE(golden::relative_error(step.scores, file()[at + "scores"]), 1e-5) << at;
    EXPECT_LE(golden::relative_error(step.assignments, file()[at + "assignments"]), 3e-5) << at;

    optimizer->zero_grad();
    loss.backward();
    const bool frozen = variant == "frozen" && iteration == 0;
    std::vector<NamedTensor> gradients, queues;
    for (const auto& [name, parameter] : parameters) {
      ASSERT_NE(parameter.grad().defined(), frozen && name == "prototypes.weight") << name;
      if (parameter.grad().defined()) gradients.push_back({name, parameter.grad()});
    }
    expect_ledger(at + "gradients", "names.gradients", gradients, 1e-4, frozen ? 1 : 0);
    if (!frozen) {
      EXPECT_LE(golden::relative_error(model.prototypes().grad(), file()[at + "prototypes_grad"]), 1e-5) << at;
    }

    const auto before = copies(parameters);
    optimizer->step(number("lr"));
    expect_ledger(at + "parameters", "names.parameters", parameters, 1e-6);
    for (size_t i = 0; i < parameters.size(); ++i) {
      // A step changes a parameter by less than a thousandth, so f32 keeps only about four digits of the change.
      Tensor change = parameters[i].tensor.clone();
      const auto old = before[i].tensor.data<float>();
      for (size_t j = 0; j < old.size(); ++j) change.data<float>()[j] -= old[j];
      if (!in_ledger(parameters[i].name)) continue;
      if (frozen && parameters[i].name == "prototypes.weight") {
        for (const float d : change.data<float>()) ASSERT_EQ(d, 0.f);
        continue;
      }
      const golden::Ledger updates(file(), at + "updates", "names.updates");
      EXPECT_LE(updates.error(parameters[i].name, golden::torch_order(change)), 5e-4) << at << parameters[i].name;
    }

    std::vector<NamedTensor> statistics;
    for (const auto& named : under_golden_names(model.named_buffers()))
      (named.name.starts_with("queue") ? queues : statistics).push_back(named);
    expect_ledger(at + "buffers", "names.buffers", statistics, 1e-4);
    if (variant == "queue") {
      ASSERT_EQ(queues.size(), 2U);
      golden::Values rows = golden::torch_order(queues[0].tensor), second = golden::torch_order(queues[1].tensor);
      rows.insert(rows.end(), second.begin(), second.end());
      EXPECT_LE(golden::relative_error(rows, golden::torch_order(file()[at + "queue"])), 1e-5) << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, GoldenIteration, ::testing::Values("plain", "queue", "frozen"),
                         [](const auto& info) { return std::string(info.param); });

TEST(GoldenSinkhorn, AssignmentsAreTheAuthors) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{32, 16}, {12, 40}})
    for (const char* eps : {"0.05", "0.03"})
      for (const int iterations : {3, 10}) {
        const std::string size = std::to_string(n) + "x" + std::to_string(k);
        const auto scores = golden::signed_values("sinkhorn.scores." + size, n * k);
        const Tensor q = sinkhorn(Tensor::from(scores, {n, k}), std::stof(eps), iterations);
        const std::string name = "sinkhorn." + size + ".eps" + eps + ".iter" + std::to_string(iterations);
        EXPECT_LE(golden::relative_error(q, file()[name]), 1e-5) << name;
      }
}

/// Steps three times from the golden start with the golden gradients, and compares after each.
template <class Build>
void expect_three_steps(const std::map<std::string, Shape>& cases, const std::string& start, const std::string& prefix,
                        float lr, Build build) {
  std::vector<NamedTensor> leaves;
  for (const auto& [name, shape] : cases) {
    Tensor leaf =
        name == "zero_parameter" ? Tensor::zeros(shape) : golden::parameter(start + "." + name + ".weight", shape);
    leaf.requires_grad_();
    leaves.push_back({name, leaf});
  }
  const auto optimizer = build(leaves);
  for (int k = 1; k <= 3; ++k) {
    for (const auto& [name, leaf] : leaves) {
      const auto g = golden::signed_values(start + "." + name + ".grad." + std::to_string(k), leaf.numel());
      leaf.set_grad(Tensor::from(g, leaf.shape()));
      if (k == 2 && name == "zero_gradient") leaf.set_grad(Tensor::zeros(leaf.shape()));
      if (k == 2 && name == "no_gradient") leaf.set_grad({});
    }
    optimizer->step(lr);
    for (const auto& [name, leaf] : leaves)
      EXPECT_LE(golden::relative_error(leaf, file()[prefix + "." + name + "." + std::to_string(k)]), 1e-6)
          << prefix << " " << name << " after step " << k;
  }
}

TEST(GoldenLarc, ZeroNormsAndMissingGradientsToo) {
  expect_three_steps(
      {{"ordinary", {6, 5}}, {"vector", {7}}, {"zero_parameter", {5}}, {"zero_gradient", {5}}, {"no_gradient", {5}}},
      "larc", "larc", 0.6f,
      [](const auto& leaves) { return optim::larc_sgd({.weight_decay = 0.1f, .trust = 0.001f}).build(leaves); });
}

TEST(GoldenAdamW, ThreeSteps) {
  const auto setting = [](const char* key) { return static_cast<float>(file().setting("adamw_step", key)); };
  expect_three_steps({{"matrix", {6, 5}}, {"vector", {7}}}, "adamw", "adamw_step", setting("lr"),
                     [&](const auto& leaves) {
                       return optim::adamw({.eps = setting("eps"), .weight_decay = setting("decay")}).build(leaves);
                     });
}

TEST(GoldenSchedule, WarmUpAndCosineAreTheAuthors) {
  for (const std::string name : {"schedule.warmup", "schedule.no_warmup"}) {
    const auto setting = [&](const char* key) { return file().setting(name, key); };
    const optim::WarmupCosine schedule{.base = setting("base"),
                                       .start = setting("start"),
                                       .final = setting("final"),
                                       .warmup = static_cast<int64_t>(setting("warmup")),
                                       .total = static_cast<int64_t>(setting("total"))};
    const auto golden = file()[name].data<float>();
    ASSERT_EQ(static_cast<int64_t>(golden.size()), schedule.total);
    for (int64_t i = 0; i < schedule.total; ++i)
      EXPECT_NEAR(schedule(i), golden[static_cast<size_t>(i)], 1e-6f * golden[static_cast<size_t>(i)])
          << name << " " << i;
  }
}

}  // namespace
}  // namespace saccade
