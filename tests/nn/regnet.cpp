#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <saccade/kernels/backend.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/regnet.h>

#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "support/temporary_folder.h"

namespace saccade::nn {
namespace {

using test::complaint;

/// One line of goldens/regnet_table.csv: what timm and torchvision build.
struct Row {
  std::string name, flavour;
  std::vector<int64_t> depths, widths, group_widths;
  int64_t trunk = 0, with_classifier = 0;
};

std::vector<int64_t> numbers(const std::string& text) {
  std::istringstream in(text);
  return {std::istream_iterator<int64_t>(in), {}};
}

std::vector<Row> table() {
  std::ifstream file(std::string(SACCADE_GOLDENS) + "/regnet_table.csv");
  std::vector<Row> rows;
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::vector<std::string> cells;
    std::istringstream in(line);
    for (std::string cell; std::getline(in, cell, ',');) cells.push_back(cell);
    rows.push_back({cells.at(0), cells.at(1), numbers(cells.at(7)), numbers(cells.at(8)), numbers(cells.at(9)),
                    std::stoll(cells.at(10)), std::stoll(cells.at(11))});
  }
  return rows;
}

/// Descriptions under which the row must be found.
std::vector<std::string> descriptions(const Row& row) {
  if (row.flavour == "tv") return {row.name + "_tv", row.name + ":rounding=tv"};
  if (row.flavour == "pycls") return {row.name};
  return {row.name, row.name + "_tv"};
}

TEST(RegNet, StagesAndParameterCountsAreThoseOfTimmAndTorchvision) {
  const DeviceScope meta(Device::meta);
  const std::vector<Row> rows = table();
  ASSERT_EQ(rows.size(), 34U);
  for (const Row& row : rows)
    for (const std::string& description : descriptions(row)) {
      SCOPED_TRACE(description);
      std::vector<int64_t> depths, widths, group_widths;
      for (const RegNetStage& stage : stages(regnet_spec(description))) {
        depths.push_back(stage.depth);
        widths.push_back(stage.width);
        group_widths.push_back(stage.group_width);
        EXPECT_EQ(stage.groups * stage.group_width, stage.width);
      }
      EXPECT_EQ(depths, row.depths);
      EXPECT_EQ(widths, row.widths);
      EXPECT_EQ(group_widths, row.group_widths);
      const auto network = regnet(description);
      EXPECT_EQ(network->parameter_count(), row.trunk);
      EXPECT_EQ(network->out_channels(), row.widths.back());
      const Linear classifier(network->out_channels(), 1000);
      EXPECT_EQ(network->parameter_count() + classifier.parameter_count(), row.with_classifier);
    }
}

TEST(RegNet, EveryNameIsInTheTable) {
  std::set<std::string> listed;
  for (const Row& row : table()) {
    std::string name = row.name;
    if (const size_t zero = name.find("_0gf"); zero != std::string::npos) name.erase(zero, 2);
    listed.insert(name);
  }
  const std::vector<std::string> names = regnet_names();
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), listed);
}

/// Multiply-accumulates of an image through the trunk and a 1000-way classifier.
double gmacs(const std::string& description, int64_t size) {
  const DeviceScope meta(Device::meta);
  const NoGradScope no_grad;
  const auto network = regnet(description);
  network->train(false);
  Linear classifier(network->out_channels(), 1000);
  const double before = kernels::meta_cost().flops;
  classifier(network->features(Tensor::images({{1, size, size}}, 3)));
  return (kernels::meta_cost().flops - before) / 2e9;
}

TEST(RegNet, MultiplyAccumulatesAreThePublishedOnes) {
  struct Published {
    const char* name;
    double at224, at160, at96;
  };
  for (const Published& p : std::initializer_list<Published>{{"x_200mf", 0.199, 0.102, 0.037},
                                                             {"x_400mf", 0.398, 0.203, 0.073},
                                                             {"x_600mf", 0.601, 0.307, 0.111},
                                                             {"x_800mf", 0.800, 0.408, 0.147},
                                                             {"x_1.6gf", 1.603, 0.818, 0.295},
                                                             {"x_3.2gf", 3.177, 1.621, 0.584},
                                                             {"x_4.0gf", 3.964, 2.023, 0.729},
                                                             {"x_6.4gf", 6.460, 3.297, 1.188},
                                                             {"x_8.0gf", 7.995, 4.080, 1.470},
                                                             {"x_12gf", 12.087, 6.168, 2.222},
                                                             {"x_16gf", 15.941, 8.134, 2.930},
                                                             {"x_32gf", 31.736, 16.193, 5.831},
                                                             {"y_200mf", 0.200, 0.102, 0.037},
                                                             {"y_400mf", 0.402, 0.206, 0.075},
                                                             {"y_600mf", 0.601, 0.307, 0.112},
                                                             {"y_800mf", 0.797, 0.407, 0.148},
                                                             {"y_1.6gf", 1.612, 0.824, 0.298},
                                                             {"y_3.2gf", 3.176, 1.623, 0.587},
                                                             {"y_4.0gf", 3.973, 2.029, 0.733},
                                                             {"y_6.4gf", 6.355, 3.245, 1.171},
                                                             {"y_8.0gf", 7.963, 4.066, 1.468},
                                                             {"y_12gf", 12.092, 6.173, 2.228},
                                                             {"y_16gf", 15.912, 8.125, 2.933},
                                                             {"y_32gf", 32.280, 16.478, 5.944},
                                                             {"y_64gf", 64.070, 32.706, 11.796},
                                                             {"y_128gf", 127.518, 65.105, 23.496},
                                                             {"y_256gf", 254.385, 129.875, 46.868},
                                                             {"y_256gf_classy", 256.898, 131.105, 47.244},
                                                             {"y_10b", 1863.313, 951.282, 343.262},
                                                             {"x_400mf_tv", 0.414, 0, 0},
                                                             {"y_800mf_tv", 0.834, 0, 0},
                                                             {"y_8gf_tv", 8.473, 0, 0},
                                                             {"x_4gf_tv", 4.188, 0, 0},
                                                             {"y_4gf_tv", 4.458, 0, 0}}) {
    SCOPED_TRACE(p.name);
    // The table prints three decimals; beyond that, 0.1 %.
    EXPECT_NEAR(gmacs(p.name, 224), p.at224, std::max(0.0005, 1e-4 * p.at224));
    if (p.at160 == 0) continue;
    EXPECT_NEAR(gmacs(p.name, 160), p.at160, std::max(0.0005, 1e-4 * p.at160));
    EXPECT_NEAR(gmacs(p.name, 96), p.at96, std::max(0.0005, 1e-4 * p.at96));
  }
}

TEST(RegNet, StageOutputsHalveTheResolutionAndKeepTheSegmentsApart) {
  const DeviceScope meta(Device::meta);
  const auto network = regnet("y_400mf");
  const auto maps = network->forward_stages(Tensor::images({{2, 224, 224}, {6, 96, 96}}, 3));
  ASSERT_EQ(maps.size(), 5U);
  const std::vector<int64_t> widths = {32, 48, 104, 208, 440}, large = {112, 56, 28, 14, 7}, small = {48, 24, 12, 6, 3};
  for (size_t i = 0; i < maps.size(); ++i) {
    EXPECT_EQ(maps[i].dim(1), widths[i]);
    EXPECT_EQ(maps[i].segments(), (Segments{{2, large[i], large[i]}, {6, small[i], small[i]}}));
  }
  EXPECT_EQ(network->features(Tensor::images({{2, 224, 224}, {6, 96, 96}}, 3)).shape(), (Shape{8, 440}));
}

TEST(RegNet, StemsSuitTheImages) {
  const DeviceScope meta(Device::meta);
  const auto side = [](const std::string& description, int64_t channels) {
    return regnet(description)->forward_stages(Tensor::images({{2, 32, 32}}, channels)).front().segments().front().h;
  };
  EXPECT_EQ(side("y_400mf", 3), 16);
  EXPECT_EQ(side("y_400mf:stem=cifar", 3), 32);
  EXPECT_EQ(side("y_400mf:stem=resnet,in=4", 4), 8);
  EXPECT_EQ(side("y:d=6,w0=16,wa=8,wm=2,g=8,in=1,stem=cifar,stem_width=16", 1), 32);
}

TEST(RegNet, SmallNetworksAreDescribedByTheirNumbers) {
  const RegNetSpec spec = regnet_spec("y:d=6,w0=16,wa=8,wm=2,g=8,se=0.5,stem=cifar,stem_width=16,in=1");
  EXPECT_EQ(spec.depth, 6);
  EXPECT_EQ(spec.se_ratio, 0.5);
  EXPECT_EQ(spec.stem, Stem::cifar);
  EXPECT_EQ(spec.stem_width, 16);
  EXPECT_EQ(spec.in_channels, 1);
  // u = 16 24 32 40 48 56; s = round_half_even(log2(u / 16)) = 0 1 1 1 2 2; widths 16 32 32 32 64 64.
  const std::vector<RegNetStage> expected = {{16, 1, 16, 8, 2}, {32, 3, 32, 8, 4}, {64, 2, 64, 8, 8}};
  EXPECT_EQ(stages(spec), expected);
  EXPECT_EQ(regnet_spec("x:d=6,w0=16,wa=8,wm=2,g=8").se_ratio, 0.0);
}

TEST(RegNet, MistakesAreAnsweredWithWhatIsThere) {
  EXPECT_NE(complaint([] { regnet_spec("y_40mf"); }).find("y_400mf"), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y_10gb"); }).find("y_10b"), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y_400mf:stem=big"); }).find("simple, cifar, resnet"), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y_400mf:depth=3"); }).find("unknown key \"depth\""), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y_400mf:d=3.5"); }).find("not a whole number"), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y:d=6,w0=15,wa=8,wm=2,g=8"); }).find("multiple of 8"), std::string::npos);
  EXPECT_NE(complaint([] { regnet_spec("y_400mf:stem"); }).find("key=value"), std::string::npos);
}

TEST(RegNet, SpellingsOfANameAreOne) {
  for (const char* name : {"y_8_0gf", "y_8.0gf", "Y_8GF", "regnet_y_8gf", "regnety_8gf"})
    EXPECT_EQ(stages(regnet_spec(name)), stages(regnet_spec("y_8gf"))) << name;
}

TEST(RegNet, ATrainingStepOnTheCpuGivesEveryParameterAGradient) {
  const auto network = regnet("y:d=4,w0=16,wa=16,wm=2,g=8,se=1,in=1,stem=cifar,stem_width=8", 3);
  Tensor images = Tensor::images({{3, 16, 16}, {4, 8, 8}}, 1);
  Philox random(5);
  for (float& pixel : images.data<float>()) pixel = random.normal();
  const Tensor features = network->features(images);
  const Tensor weights = Init{7}.normal("weights", features.shape(), 1.0);
  inner_product(features, weights).backward();
  for (const NamedTensor& p : network->named_parameters()) {
    ASSERT_TRUE(p.tensor.grad().defined()) << p.name;
    double norm = 0;
    const Tensor gradient = p.tensor.grad();
    for (const float g : gradient.data<float>()) norm += g * g;
    EXPECT_GT(norm, 0.0) << p.name;
  }
  for (const NamedTensor& b : network->named_buffers()) EXPECT_GT(b.tensor.version(), 0U) << b.name;
}

}  // namespace
}  // namespace saccade::nn
