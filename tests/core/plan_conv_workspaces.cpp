#include <gtest/gtest.h>
#include <saccade/core/ops.h>
#include <saccade/core/plan/conv_workspaces.h>
#include <saccade/core/tensor.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/cuda/workspace.h>
#include <saccade/kernels/error.h>
#include <saccade/kernels/rehearsal.h>

namespace saccade::plan {
namespace {

using kernels::Conv2d;
using kernels::ConvPass;

/// Of SEER's trunk: 1492 channels in groups of 373.
const Conv2d kOdd{
    .in_channels = 1492, .out_channels = 1492, .kernel = 3, .padding = 1, .groups = 4, .dtype = DType::f16};

TEST(PlanConvWorkspaces, EveryDeviceWithATableHasTheConvolutionsOfSeer) {
  for (const char* name : {"v100", "a100", "h100"})
    EXPECT_TRUE(ConvWorkspaces(name).rows().contains(ConvWorkspaces::key_of(kOdd))) << name;
  EXPECT_THROW(ConvWorkspaces("a1000"), Error);
}

TEST(PlanConvWorkspaces, OddGroupsTakeCopiesOfImagesAndOutputsUpToTheLimit) {
  const ConvWorkspaces a100("a100");
  const Segment few{16, 28, 28};
  const auto copies = static_cast<size_t>(2 * few.rows() * 1492) * 2;
  const size_t of_few = a100(kOdd, {{few}}, ConvPass::forward);
  EXPECT_GE(of_few, copies);
  EXPECT_LE(of_few, copies + copies / 4 + static_cast<size_t>(kOdd.weight_elements()) * 3);
  // Many images go in parts.
  for (const int64_t n : {128, 512, 4096})
    EXPECT_LE(a100(kOdd, {{{n, 28, 28}}}, ConvPass::forward), kernels::cuda::kConvWorkspaceLimit) << n;
}

TEST(PlanConvWorkspaces, WeightGradientsAreSummedUpInF32BehindThePlans) {
  const ConvWorkspaces a100("a100");
  const auto elements = static_cast<size_t>(kOdd.weight_elements());
  const Segment one{8, 28, 28};
  const size_t once = a100(kOdd, {{one}}, ConvPass::backward_weight);
  const size_t twice = a100(kOdd, std::vector<Segment>{one, one}, ConvPass::backward_weight);
  EXPECT_GE(once, 2 * elements);
  EXPECT_NEAR(static_cast<double>(twice - once), static_cast<double>(4 * elements), 256);
}

TEST(PlanConvWorkspaces, TheRehearsalAsksForThem) {
  const DeviceScope meta(Device::meta);
  const auto asked = [] {
    return kernels::backend(Device::meta).workspace(kernels::Conv2dForward{kOdd, {{16, 28, 28}}});
  };
  const size_t cpu = asked();
  kernels::rehearse(ConvWorkspaces("a100"));
  EXPECT_EQ(asked(), ConvWorkspaces("a100")(kOdd, {{{16, 28, 28}}}, ConvPass::forward));
  kernels::rehearse(Device::cpu);
  EXPECT_EQ(asked(), cpu);
}

}  // namespace
}  // namespace saccade::plan
