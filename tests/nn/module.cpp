#include <gtest/gtest.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/regnet.h>

#include <cmath>
#include <cstring>
#include <set>

namespace saccade::nn {
namespace {

class Doubling : public Module {
 public:
  Doubling() { factor = add_parameter("factor", Tensor::full({1}, 2.f)); }
  Tensor factor;
  std::string seen;
  using Module::add_buffer;
  using Module::add_child;
  using Module::add_parameter;

 protected:
  Tensor forward(const Tensor& x) override {
    seen = LayerScope::current();
    for (const auto& [name, child] : children()) (*child)(x);
    return scale(x, factor.item());
  }
};

std::vector<std::string> names_of(const std::vector<NamedTensor>& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  return names;
}

TEST(Module, NamesArePathsInTheOrderOfRegistrationOwnTensorsFirst) {
  Doubling root;
  const auto inner = root.add_child("left", std::make_shared<Doubling>());
  inner->add_child("deep.0", std::make_shared<BatchNorm>(4));
  root.add_buffer("count", Tensor::zeros({1}));
  EXPECT_EQ(names_of(root.named_parameters()),
            (std::vector<std::string>{"factor", "left.factor", "left.deep.0.weight", "left.deep.0.bias"}));
  EXPECT_EQ(names_of(root.named_buffers()),
            (std::vector<std::string>{"count", "left.deep.0.running_mean", "left.deep.0.running_var"}));
  EXPECT_EQ(names_of(root.named_tensors()),
            (std::vector<std::string>{"factor", "count", "left.factor", "left.deep.0.weight", "left.deep.0.bias",
                                      "left.deep.0.running_mean", "left.deep.0.running_var"}));
  EXPECT_EQ(root.parameter_count(), 1 + 1 + 4 + 4);
  std::vector<std::string> paths;
  root.visit([&](const std::string& path, Module&) { paths.push_back(path); });
  EXPECT_EQ(paths, (std::vector<std::string>{"", "left", "left.deep.0"}));
}

TEST(OutputHook, SeesEachResultOnceThoughItIsRecomputed) {
  Linear layer(2, 2);
  Tensor x = Tensor::full({1, 2}, 1.f);
  int seen = 0;
  {
    const OutputHook hook([&](const std::string&, const Tensor&) { ++seen; });
    const auto fn = [&](const std::vector<Tensor>& in) { return layer(in[0]); };
    sum(checkpoint(fn, {x})).backward();
    EXPECT_EQ(seen, 1);
    EXPECT_THROW(OutputHook([](const std::string&, const Tensor&) {}), Error);
  }
  layer(x);
  EXPECT_EQ(seen, 1);
}

TEST(Module, ForwardRunsUnderTheLayersName) {
  Doubling root;
  const auto left = root.add_child("left", std::make_shared<Doubling>());
  const auto deep = left->add_child("deep", std::make_shared<Doubling>());
  const Tensor y = root(Tensor::full({2}, 3.f));
  EXPECT_EQ(y.data<float>()[1], 6.f);
  EXPECT_EQ(root.seen, "");
  EXPECT_EQ(left->seen, "left");
  EXPECT_EQ(deep->seen, "left.deep");
}

TEST(Module, ErrorsNameTheLayer) {
  const DeviceScope meta(Device::meta);
  const auto network = regnet("y_400mf");
  try {
    (*network)(Tensor::images({{1, 64, 64}}, 4));
    FAIL() << "four channels were taken for three";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("layer stem.0"), std::string::npos) << error.what();
  }
}

TEST(Module, ATakenNameIsRefused) {
  Doubling root;
  EXPECT_THROW(root.add_parameter("factor", Tensor::zeros({1})), Error);
  EXPECT_THROW(root.add_child("factor", std::make_shared<Doubling>()), Error);
  EXPECT_THROW(root.add_child("", std::make_shared<Doubling>()), Error);
  const auto child = root.add_child("a", std::make_shared<Doubling>());
  EXPECT_THROW(root.add_child("b", child), Error);
}

TEST(Module, TrainingModeAndGradientsAreSwitchedForTheWholeTree) {
  const DeviceScope meta(Device::meta);
  const auto network = regnet("y_400mf");
  const auto all = [&](bool training, bool wanted) {
    network->visit([&](const std::string& path, Module& m) { EXPECT_EQ(m.is_training(), training) << path; });
    for (const NamedTensor& p : network->named_parameters()) EXPECT_EQ(p.tensor.requires_grad(), wanted) << p.name;
  };
  all(true, true);
  network->train(false);
  network->requires_grad(false);
  all(false, false);
  network->train();
  network->requires_grad(true);
  all(true, true);
  for (const NamedTensor& b : network->named_buffers()) EXPECT_FALSE(b.tensor.requires_grad()) << b.name;
}

TEST(BatchNorm, TrainingUsesTheBatchAndEvaluationTheRunningStatistics) {
  BatchNorm norm(1, true);
  const Tensor x = Tensor::from(std::vector<float>{1, 3, 5, 7}, {4, 1});  // mean 4, variance 5 (20/3 unbiased)
  const Tensor trained = norm(x);
  EXPECT_NEAR(trained.data<float>()[3], 3 / std::sqrt(5 + 1e-5), 1e-5);
  EXPECT_EQ(trained.data<float>()[0], 0.f);  // ReLU
  EXPECT_NEAR(norm.running_mean.item(), 0.4, 1e-6);
  EXPECT_NEAR(norm.running_var.item(), 0.9 + 0.1 * 20 / 3, 1e-5);
  norm.train(false);
  norm.requires_grad(false);
  const Tensor residual = Tensor::full({4, 1}, 10.f);
  EXPECT_NEAR(norm(x, residual).data<float>()[0], 10 + (1 - 0.4) / std::sqrt(0.9 + 2.0 / 3 + 1e-5), 1e-4);
  EXPECT_NEAR(norm.running_mean.item(), 0.4, 1e-6);
}

struct Moments {
  double mean = 0, std = 0, largest = 0;
};
Moments moments(const Tensor& t) {
  Moments m;
  for (const float v : t.data<float>()) {
    m.mean += v;
    m.std += static_cast<double>(v) * v;
    m.largest = std::max(m.largest, std::abs(static_cast<double>(v)));
  }
  const auto n = static_cast<double>(t.numel());
  m.mean /= n;
  m.std = std::sqrt(m.std / n - m.mean * m.mean);
  return m;
}

TEST(Init, ConvolutionsAreNormalByFanOut) {
  const Moments m = moments(Conv2d(64, 96, {.kernel = 3, .groups = 2}).weight);  // 27,648 values
  const double std = std::sqrt(2.0 / (9 * 96));
  EXPECT_NEAR(m.mean, 0.0, 4 * std / std::sqrt(27648.0));
  EXPECT_NEAR(m.std, std, 4 * std / std::sqrt(2 * 27648.0));
  EXPECT_GT(m.largest, 3 * std);  // not uniform
}

TEST(Init, LinearIsPyTorchsDefaultUnlessAStandardDeviationIsGiven) {
  const Linear head(400, 300);
  for (const Tensor& t : {head.weight, head.bias}) {
    const Moments m = moments(t);
    EXPECT_LE(m.largest, 0.05);
    EXPECT_GT(m.largest, 0.049);
    EXPECT_NEAR(m.std, 0.05 / std::sqrt(3.0), 0.05 * 3 / std::sqrt(static_cast<double>(t.numel())));
  }
  const Linear classifier(400, 300, {.weight_std = 0.01});
  EXPECT_NEAR(moments(classifier.weight).std, 0.01, 0.0002);
  EXPECT_EQ(moments(classifier.bias).largest, 0.0);
  EXPECT_FALSE(Linear(4, 4, {.bias = false}).bias.defined());
}

TEST(Init, AllOfARegNet) {
  const auto network = regnet("y_400mf", 1);
  for (const NamedTensor& t : network->named_tensors()) {
    const Moments m = moments(t.tensor);
    const auto n = static_cast<double>(t.tensor.numel());
    if (t.name.find(".se.") != std::string::npos && t.name.ends_with("bias")) {
      EXPECT_LE(m.largest, 1 / std::sqrt(8.0)) << t.name;
      EXPECT_GT(m.largest, 0.0) << t.name;
    } else if (t.tensor.rank() == 1) {
      const bool one = t.name.ends_with("weight") || t.name.ends_with("var");
      EXPECT_EQ(m.mean, one ? 1.0 : 0.0) << t.name;
      EXPECT_EQ(m.largest, one ? 1.0 : 0.0) << t.name;
    } else {
      const double fan_out =
          static_cast<double>(t.tensor.dim(0) * (t.tensor.rank() == 4 ? t.tensor.dim(1) * t.tensor.dim(1) : 1));
      EXPECT_NEAR(m.std / std::sqrt(2 / fan_out), 1.0, 5 / std::sqrt(2 * n)) << t.name;
    }
  }
}

bool same_bits(const Tensor& a, const Tensor& b) { return std::memcmp(a.raw(), b.raw(), a.bytes()) == 0; }

TEST(Init, ValuesDependOnSeedAndPathAlone) {
  const auto a = regnet("y_200mf", 1);
  const Linear between(10, 10);  // something built in between
  const auto b = regnet("y_200mf", 1), c = regnet("y_200mf", 2), longer = regnet("y_200mf:in=4", 1);
  const auto first = a->named_parameters(), second = b->named_parameters(), other = c->named_parameters(),
             changed = longer->named_parameters();
  std::set<float> leading;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_TRUE(same_bits(first[i].tensor, second[i].tensor)) << first[i].name;
    if (i > 0) {  // all but the stem's convolution keep their shape
      EXPECT_TRUE(same_bits(first[i].tensor, changed[i].tensor)) << first[i].name;
    }
    if (first[i].tensor.rank() < 2) continue;
    EXPECT_FALSE(same_bits(first[i].tensor, other[i].tensor)) << first[i].name;
    EXPECT_TRUE(leading.insert(first[i].tensor.data<float>()[0]).second) << first[i].name;
  }
}

TEST(Init, MetaModulesHaveShapesAndNoMemory) {
  const DeviceScope meta(Device::meta);
  const auto before = allocator(Device::cpu).stats().total.live;
  const auto network = regnet("y_10b");
  EXPECT_EQ(allocator(Device::cpu).stats().total.live, before);
  EXPECT_EQ(network->named_parameters().front().tensor.device(), Device::meta);
  EXPECT_GE(allocator(Device::meta).stats()[Tag::parameters].live, 4 * network->parameter_count());
}

TEST(ProjectionHead, ChildrenStandWhereVisslPutsThem) {
  const DeviceScope meta(Device::meta);
  const ProjectionHead with({440, 440, 128}), without({7392, 8192, 8192, 256}, false);
  EXPECT_EQ(names_of(with.named_parameters()),
            (std::vector<std::string>{"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}));
  EXPECT_EQ(names_of(without.named_parameters()),
            (std::vector<std::string>{"0.weight", "0.bias", "2.weight", "2.bias", "4.weight", "4.bias"}));
  EXPECT_EQ(without.out_channels(), 256);
  EXPECT_EQ(without.named_parameters().back().tensor.shape(), Shape{256});
}

TEST(ProjectionHead, HasReluBetweenItsLayersAndNoneBehind) {
  ProjectionHead head({1, 1, 1}, false);
  const auto parameters = head.parameters();  // w0 b0 w1 b1
  for (size_t i = 0; i < 4; ++i) parameters[i].fill(i == 2 ? -1.f : i == 0 ? 1.f : 0.f);
  const Tensor y = head(Tensor::from(std::vector<float>{2, -2}, {2, 1}));
  EXPECT_EQ(y.data<float>()[0], -2.f);
  EXPECT_EQ(y.data<float>()[1], 0.f);
}

TEST(Prototypes, NormalizeBringsEachToLengthOneOffTheTape) {
  Prototypes prototypes(5, 16);
  EXPECT_NEAR(moments(prototypes.weight).largest, 0.25, 0.02);
  const Tensor before = prototypes.weight.clone();
  prototypes.normalize();
  EXPECT_TRUE(prototypes.weight.is_leaf());
  const auto rows = prototypes.weight.data<float>(), old = before.data<float>();
  for (size_t k = 0; k < 5; ++k) {
    double norm = 0, was = 0;
    for (size_t d = 0; d < 16; ++d) {
      norm += rows[k * 16 + d] * rows[k * 16 + d];
      was += old[k * 16 + d] * old[k * 16 + d];
    }
    EXPECT_NEAR(norm, 1.0, 1e-5);
    EXPECT_NEAR(rows[k * 16 + 3] * std::sqrt(was), old[k * 16 + 3], 1e-6);
  }
  EXPECT_EQ(prototypes(Tensor::zeros({3, 16})).shape(), (Shape{3, 5}));
}

}  // namespace
}  // namespace saccade::nn
