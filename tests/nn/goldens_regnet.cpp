// RegNetY-400MF and ResNets against torchvision's (tests/goldens/networks.py): the same weights, two resolutions in one
// ragged batch, forward, all gradients, running statistics, evaluation mode.
#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/nn/trunk.h>
#include <support/golden.h>

#include <algorithm>
#include <string>

namespace saccade {
namespace {

struct Network {
  const char *file, *description;
};

class GoldenNetwork : public ::testing::TestWithParam<Network> {};

TEST_P(GoldenNetwork, ForwardAndAllGradientsArePyTorchsAtTwoResolutions) {
  const golden::File file(std::string(SACCADE_GOLDENS) + "/" + GetParam().file + ".safetensors");
  const auto trunk = nn::trunk(GetParam().description);
  golden::fill(trunk->named_tensors());

  const Tensor large = golden::image_input("input.large." + file.text("salt"), file.segment("sizes_large"));
  const Tensor small = golden::image_input("input.small." + file.text("salt"), file.segment("sizes_small"));
  Tensor images = golden::ragged({large, small});
  images.requires_grad_();
  const int64_t n_large = large.segments()[0].n, n_small = small.segments()[0].n, width = trunk->out_channels();

  const Tensor features = trunk->features(images);
  EXPECT_LE(golden::relative_error(features.slice(0, n_large), file["features.large"]), 1e-5);
  EXPECT_LE(golden::relative_error(features.slice(n_large, n_large + n_small), file["features.small"]), 1e-5);

  golden::Values functional = golden::signed_values("loss.large", n_large * width);
  const golden::Values functional_small = golden::signed_values("loss.small", n_small * width);
  functional.insert(functional.end(), functional_small.begin(), functional_small.end());
  const Tensor loss = inner_product(features, Tensor::from(functional, {n_large + n_small, width}));
  EXPECT_LE(golden::relative_error(loss, file["loss"]), 1e-5);
  loss.backward();

  const golden::Ledger gradients(file, "gradients", "gradients.names");
  const auto parameters = trunk->named_parameters();
  EXPECT_EQ(parameters.size(), gradients.names().size());
  for (const auto& [name, parameter] : parameters) {
    ASSERT_TRUE(parameter.grad().defined()) << name;
    EXPECT_LE(gradients.error(name, golden::torch_order(parameter.grad())), 1e-4) << name;
  }
  const golden::Ledger input_gradients(file, "input_gradients", "input_gradients.names");
  const Tensor input_gradient =
      images.grad().is_images() ? images.grad() : images.grad().with_segments(images.segments());
  EXPECT_LE(input_gradients.error("large", golden::torch_order(golden::segment_of(input_gradient, 0))), 1e-4);
  EXPECT_LE(input_gradients.error("small", golden::torch_order(golden::segment_of(input_gradient, 1))), 1e-4);

  const golden::Ledger buffers(file, "buffers", "buffers.names");
  const auto statistics = trunk->named_buffers();
  EXPECT_EQ(statistics.size(), buffers.names().size());
  for (const auto& [name, buffer] : statistics)
    EXPECT_LE(buffers.error(name, golden::torch_order(buffer)), 1e-5) << name;

  const NoGradScope no_grad;
  trunk->train(false);
  EXPECT_LE(golden::relative_error(trunk->features(large), file["eval.large"]), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Goldens, GoldenNetwork,
                         ::testing::Values(Network{"regnet_y_400mf", "y_400mf_tv"}, Network{"resnet18", "resnet18"},
                                           Network{"resnet18_cifar", "resnet18:stem=cifar"},
                                           Network{"resnet34", "resnet34"}, Network{"resnet50", "resnet50"},
                                           Network{"resnet9", "resnet9"}),
                         [](const auto& info) { return std::string(info.param.file); });

}  // namespace
}  // namespace saccade
