#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/backend.h>
#include <saccade/nn/resnet.h>

#include <map>

#include "support/temporary_folder.h"

namespace saccade::nn {
namespace {

using test::complaint;

TEST(ResNet, ParameterCountsAreTorchvisions) {
  const DeviceScope meta(Device::meta);
  const std::map<std::string, int64_t> published = {{"resnet18", 11689512},
                                                    {"resnet34", 21797672},
                                                    {"resnet50", 25557032},
                                                    {"resnet101", 44549160},
                                                    {"resnet152", 60192808}};
  for (const auto& [name, parameters] : published) {
    const auto network = resnet(name);
    const int64_t width = name == "resnet18" || name == "resnet34" ? 512 : 2048;
    EXPECT_EQ(network->out_channels(), width);
    EXPECT_EQ(network->parameter_count() + width * 1000 + 1000, parameters) << name;
  }
}

TEST(ResNet, NineLayersHavePagesParameters) {
  const DeviceScope meta(Device::meta);
  EXPECT_EQ(resnet("resnet9")->parameter_count() + 512 * 10, 6573120);  // with the classifier of ten classes, no bias
  EXPECT_EQ(resnet("resnet9:width=32")->out_channels(), 256);
}

/// Multiply-accumulates of one image, and the maps' heights.
std::pair<double, std::vector<int64_t>> cost_and_maps(const std::string& description, int64_t size, int64_t channels) {
  const DeviceScope meta(Device::meta);
  const NoGradScope no_grad;
  const auto network = trunk(description);
  network->train(false);
  const double before = kernels::meta_cost().flops;
  std::vector<int64_t> heights;
  for (const Tensor& map : network->forward_stages(Tensor::images({{1, size, size}}, channels)))
    heights.push_back(map.segments().front().h);
  return {(kernels::meta_cost().flops - before) / 2, heights};
}

TEST(ResNet, MultiplyAccumulatesAndMapsAreThoseOfVersionOneAndAHalf) {
  // torchvision's figures are with the classifier: 0.0005 and 0.002.
  for (const auto& [name, published] :
       {std::pair{"resnet18", 1.814 - 0.0005}, {"resnet34", 3.664 - 0.0005}, {"resnet50", 4.089 - 0.002}}) {
    const auto [operations, heights] = cost_and_maps(name, 224, 3);
    EXPECT_NEAR(operations / 1e9, published, 0.001) << name;
    EXPECT_EQ(heights, (std::vector<int64_t>{56, 56, 28, 14, 7})) << name;  // the first behind the pooling
  }
}

TEST(ResNet, StemsSuitTheImages) {
  EXPECT_EQ(cost_and_maps("resnet18:stem=cifar", 32, 3).second, (std::vector<int64_t>{32, 32, 16, 8, 4}));
  EXPECT_EQ(cost_and_maps("resnet50:stem=simple,in=4", 64, 4).second, (std::vector<int64_t>{32, 32, 16, 8, 4}));
  EXPECT_EQ(cost_and_maps("resnet9", 32, 3).second, (std::vector<int64_t>{32, 16, 8, 4}));
  EXPECT_EQ(cost_and_maps("resnet9:in=1", 28, 1).second, (std::vector<int64_t>{28, 14, 7, 3}));
  EXPECT_EQ(cost_and_maps("resnet9:stem=resnet", 96, 3).second, (std::vector<int64_t>{24, 12, 6, 3}));
}

TEST(ResNet, DescriptionsSayWidthAndChannels) {
  const ResNetSpec spec = resnet_spec("resnet34w2:stem=cifar,in=1");
  EXPECT_EQ(spec.width, 128);
  EXPECT_EQ(spec.in_channels, 1);
  EXPECT_EQ(spec.stem, Stem::cifar);
  EXPECT_EQ(spec.depths, (std::vector<int64_t>{3, 4, 6, 3}));
  EXPECT_EQ(resnet_spec("resnet9:width=24").width, 24);
  EXPECT_EQ(input_channels("resnet18"), 3);
  EXPECT_EQ(input_channels("resnet18:in=1"), 1);
  EXPECT_EQ(input_channels("y_400mf:in=4"), 4);
}

TEST(ResNet, MistakesAreAnsweredWithWhatIsThere) {
  for (const char* name : {"resnet51", "resnet9x", "resnet18w", "resnet50w0", "resnet"})
    EXPECT_NE(complaint([&] { trunk(name); }).find("there are resnet9, resnet18, resnet34, resnet50"),
              std::string::npos)
        << name;
  EXPECT_NE(complaint([] { trunk("ResNet18"); }).find("the nearest names are resnet18"), std::string::npos);
  EXPECT_NE(complaint([] { trunk("resnet18:stem=imagenet"); }).find("simple, cifar, resnet"), std::string::npos);
  EXPECT_NE(complaint([] { trunk("resnet18:depth=3"); }).find("unknown key \"depth\", expected one of stem, width, in"),
            std::string::npos);
  EXPECT_NE(complaint([] { trunk("resnet18:width=1.5"); }).find("not a whole number"), std::string::npos);
  EXPECT_NE(complaint([] { trunk("resnet18:width=0"); }).find("width from 1 to 16384"), std::string::npos);
  EXPECT_NE(complaint([] { trunk("resnet18:cifar"); }).find("key=value"), std::string::npos);
}

}  // namespace
}  // namespace saccade::nn
