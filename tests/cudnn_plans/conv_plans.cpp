// What the real cuDNN says of every convolution of every trunk, for devices that are only described.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/kernels/cuda/conv_cudnn.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>

#include "described_devices.h"

namespace saccade::testing {
namespace {

using kernels::Conv2d;
using kernels::ConvPass;
using kernels::cuda::ConvPlan;
using kernels::cuda::ConvProblem;
using kernels::cuda::CudnnConvolutions;
using kernels::cuda::PlanTarget;

constexpr ConvPass kPasses[] = {ConvPass::forward, ConvPass::backward_data, ConvPass::backward_weight};

struct Case {
  std::string device;
  DType dtype;
};
std::string name_of_case(const ::testing::TestParamInfo<Case>& info) {
  return info.param.device + "_" + std::string(name_of(info.param.dtype));
}

class ConvPlans : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (const std::string why_not = refusal(GetParam().device); !why_not.empty()) GTEST_SKIP() << why_not;
  }

  /// Expects a plan for every convolution, pass and resolution of these networks, and sums up what they are like.
  void expect_plans(const std::vector<std::string>& names) {
    CudnnConvolutions convolutions(properties_of(GetParam().device));
    int plans = 0, tensor_cores = 0, nondeterministic = 0, reduced = 0, cut = 0;
    size_t largest = 0;
    for (const std::string& name : names)
      for (const auto& [conv, segments] : convolutions_of(name, GetParam().dtype))
        for (const ConvPass pass : kPasses) {
          std::vector<CudnnConvolutions::Part> parts;
          ASSERT_NO_THROW(parts = convolutions.parts(conv, segments, pass)) << name;
          cut += parts.size() > segments.size();
          for (const CudnnConvolutions::Part& part : parts) {
            const ConvPlan& plan = part.plans->front();
            ++plans;
            tensor_cores += plan.tensor_cores;
            nondeterministic += !plan.deterministic;
            reduced += plan.reduced_precision;
            // Beyond the limit only what cuDNN pads of the weights, or sums up in f32.
            const auto weights = static_cast<size_t>(conv.weight_elements()) * size_of(conv.dtype);
            if (conv.is_matmul()) continue;
            EXPECT_LE(plan.workspace, kernels::cuda::kConvWorkspaceLimit + weights * 9 / 4) << name;
            largest = std::max(largest, plan.workspace);
          }
        }
    EXPECT_GT(plans, 0);
    EXPECT_EQ(nondeterministic, 0);
    EXPECT_EQ(reduced, 0);
    // Volta is not among the architectures of cuDNN from 9.11 on: there it proposes generic engines only.
    if (GetParam().device != "v100" && GetParam().dtype != DType::f32) {
      EXPECT_GE(tensor_cores, plans * 97 / 100);
    }
    fmt::print("{} {}: {} plans, {} on tensor cores; {} calls in parts, at most {:.0f} MiB of workspace\n",
               GetParam().device, name_of(GetParam().dtype), plans, tensor_cores, cut,
               static_cast<double>(largest) / (1 << 20));
  }
};

/// Widths of 746, 1492, 4103 and 10444 channels, groups of 373 and 1010.
TEST_P(ConvPlans, RegNetsOfOddWidths) { expect_plans({"y_256gf", "y_10b"}); }

using ConvPlansLong = ConvPlans;
TEST_P(ConvPlansLong, EveryRegNet) { expect_plans(nn::regnet_names()); }
TEST_P(ConvPlansLong, EveryResNet) { expect_plans(nn::resnet_names()); }

const auto kCases = ::testing::Values(Case{"v100", DType::f16}, Case{"t4", DType::f16}, Case{"a100", DType::f16},
                                      Case{"h100", DType::f16}, Case{"a100", DType::bf16}, Case{"h100", DType::bf16},
                                      Case{"a100", DType::f32});
INSTANTIATE_TEST_SUITE_P(Devices, ConvPlans, kCases, name_of_case);
INSTANTIATE_TEST_SUITE_P(Devices, ConvPlansLong, kCases, name_of_case);

TEST(ConvPlansOfOther, Bf16IsRefusedForDevicesWithoutIt) {
  if (const std::string why_not = refusal("t4"); !why_not.empty()) GTEST_SKIP() << why_not;
  const PlanTarget t4(properties_of("t4"));
  const Conv2d conv{
      .in_channels = 64, .out_channels = 64, .kernel = 3, .padding = 1, .groups = 4, .dtype = DType::bf16};
  EXPECT_THROW(t4.plans({.conv = conv, .in = {8, 28, 28}}, 1), Error);
}

/// The stem's weight gradient: 3 channels, which cuDNN pads only where it may read whole vectors.
TEST(ConvPlansOfOther, TensorCoresWantTheAddressesPromised) {
  if (const std::string why_not = refusal("a100"); !why_not.empty()) GTEST_SKIP() << why_not;
  const PlanTarget a100(properties_of("a100"));
  ConvProblem stem{
      .conv = {.in_channels = 3, .out_channels = 32, .kernel = 3, .stride = 2, .padding = 1, .dtype = DType::f16},
      .in = {16, 224, 224},
      .pass = ConvPass::backward_weight};
  EXPECT_TRUE(a100.plans(stem, 1)[0].tensor_cores);
  stem.image_alignment = stem.output_alignment = 2;
  EXPECT_FALSE(a100.plans(stem, 1)[0].tensor_cores);
}

/// f32 stays f32: no plan that rounds to TF32, though cuDNN proposes them first.
TEST(ConvPlansOfOther, F32TakesNoTensorCores) {
  if (const std::string why_not = refusal("a100"); !why_not.empty()) GTEST_SKIP() << why_not;
  const PlanTarget a100(properties_of("a100"));
  for (const ConvPass pass : kPasses) {
    const Conv2d conv{.in_channels = 64, .out_channels = 64, .kernel = 3, .padding = 1, .groups = 4};
    for (const ConvPlan& plan : a100.plans({.conv = conv, .in = {8, 28, 28}, .pass = pass}, 5)) {
      EXPECT_FALSE(plan.tensor_cores);
      EXPECT_FALSE(plan.reduced_precision);
      EXPECT_TRUE(plan.deterministic);
    }
  }
}

}  // namespace
}  // namespace saccade::testing
