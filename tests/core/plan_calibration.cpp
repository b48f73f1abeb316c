// Measuring this machine: the calls that are timed are the calls that were asked for, and what is known is kept.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/core/plan/call_timer.h>
#include <saccade/kernels/backend.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "support/given.h"
#include "support/temporary_folder.h"

namespace saccade::plan {
namespace {

using kernels::backend;
using kernels::Call;
using test::given;

/// Of every call, one small enough to run at once.
std::vector<Call> calls() {
  using namespace kernels;
  const Segments in = {{2, 8, 8}, {4, 4, 4}};
  const Conv2d grouped{16, 16, 3, 2, 1, 2, DType::bf16}, pointwise{16, 8, 1, 1, 0, 1, DType::f32};
  const Conv2d window{16, 16, 3, 2, 1, 16};
  const BatchNorm norm{.channels = 8, .relu = true};
  const ParameterSlot slot{.elements = 1000};
  const Sinkhorn sinkhorn{12, 30, 0.05f, 3};
  return {given(Fill{DType::bf16, 1000}),
          given(Copy{1000}),
          given(Cast{DType::f32, DType::bf16, 1000}),
          given(Map{Unary::sigmoid, DType::f16, 1000}),
          given(MapGradient{Unary::relu, DType::f32, 1000}),
          given(Combine{Binary::add, DType::bf16, 1000}),
          given(Scale{DType::f32, 1000}),
          given(ColumnSum{DType::bf16, 100, 13}),
          given(Sum{DType::f32, 1000}),
          given(L2Normalize{DType::f32, 10, 37}),
          given(L2NormalizeGradient{DType::f32, 10, 37}),
          given(LogSumExp{DType::f32, 10, 37}),
          given(LogSumExpGradient{DType::bf16, 10, 37}),
          given(Conv2dForward{grouped, in}),
          given(Conv2dForward{pointwise, in}),
          given(Conv2dBackwardData{grouped, in}),
          given(Conv2dBackwardWeight{grouped, in}),
          given(MatrixProduct{
              {.m = 30, .n = 20, .k = 50, .transpose_b = true, .dtype = DType::bf16, .out_dtype = DType::f32}}),
          given(BatchNormMoments{norm, in}),
          given(BatchNormMerge{norm, in}),
          given(BatchNormApply{norm, in}),
          given(BatchNormInference{norm, 100}),
          given(BatchNormBackwardSums{norm, in}),
          given(BatchNormBackwardMap{norm, in}),
          given(GlobalAvgPool{in, 8, DType::bf16}),
          given(GlobalAvgPoolGradient{in, 8, DType::f32}),
          given(ChannelScale{in, 8, DType::f32}),
          given(ChannelScaleFactorGradient{in, 8, DType::f32}),
          given(ChannelScaleInputGradient{in, 8, DType::f32}),
          given(MaxPool{window, in}),
          given(MaxPoolGradient{window, in}),
          given(SinkhornRows{sinkhorn, 1}),
          given(SinkhornColumns{sinkhorn, 1}),
          given(SinkhornAssign{sinkhorn}),
          given(SwappedPredictionLoss{{4, 6, 2, 30}}),
          given(CrossEntropy{9, 30}),
          given(SgdUpdate{{}, {slot}}),
          given(SgdUpdate{{.trust = 0.001f, .momentum_dtype = DType::bf16}, {slot, slot}}),
          given(AdamWUpdate{{}, {slot}}),
          given(Unscale{0.5f, {{nullptr, 1000}}}),
          given(MovingAverage{0.9f, {{nullptr, nullptr, 1000}}}),
          given(CropsToBatch{in, 3})};
}

/// What the meta backend hears when a prepared call runs.
Call run_on_meta(const Prepared& prepared) {
  struct Ear final : kernels::MetaListener {
    void on_call(const Call& heard) override { call = heard; }
    Call call;
  } ear;
  static std::byte somewhere[64];
  std::vector<void*> addresses;
  for (size_t i = 0; i < prepared.operands.size(); ++i) addresses.push_back(somewhere + i);
  const kernels::MetaListenScope scope(ear);
  prepared.run(addresses);
  return ear.call;
}

void expect_same(const Call& heard, const Call& asked) {
  EXPECT_EQ(key_of(heard), key_of(asked));
  EXPECT_EQ(cost_of(heard).flops, cost_of(asked).flops) << key_of(asked);
  EXPECT_EQ(cost_of(heard).bytes_moved, cost_of(asked).bytes_moved) << key_of(asked);
}

TEST(PlanCalibration, EveryCallIsTried) {
  std::set<size_t> tried;
  for (const Call& call : calls()) tried.insert(call.index());
  EXPECT_EQ(tried.size(), std::variant_size_v<Call>);
}

TEST(PlanCalibration, WhatIsTimedIsWhatWasAsked) {
  for (const Call& asked : calls()) expect_same(run_on_meta(prepare(backend(Device::meta), asked)), asked);
}

TEST(PlanCalibration, ResultsOverWhatWasReadAndOperandsThatAreNotGivenStaySo) {
  float x, y;
  const kernels::MapGradient over{kernels::Unary::relu, DType::f32, 1000, &x, &y, &y};
  EXPECT_EQ(prepare(backend(Device::cpu), over).operands.size(), 2u);
  auto without = given(kernels::BatchNormApply{{{.channels = 8}, {{2, 8, 8}}}});
  const std::string with = key_of(without);
  without.residual = nullptr;
  EXPECT_NE(key_of(without), with);
  EXPECT_EQ(prepare(backend(Device::cpu), without).operands.size(), 6u);
}

TEST(PlanCalibration, ACallMadeSmallerIsTheSameOnLess) {
  for (Call call : calls())
    for (int halvings = 0; halvings < 4; ++halvings) {
      const auto bytes = [](const Call& c) {
        // Scratch aside: oneDNN may take another kernel for less, which wants more (bf16 with AMX).
        int64_t sum = 0;
        std::visit([&](const auto& of) { of.operands(of, [&](const auto&, int64_t n, kernels::Use) { sum += n; }); },
                   c);
        return sum;
      };
      const Call before = call;
      if (!halve(call)) break;
      EXPECT_LE(bytes(call), bytes(before)) << key_of(before);
      EXPECT_NE(key_of(call), key_of(before));
      EXPECT_EQ(call.index(), before.index());
      expect_same(run_on_meta(prepare(backend(Device::meta), call)), call);
    }
}

TEST(PlanCalibration, EveryCallRunsInTheMemoryItMayUse) {
  Calibration machine({.memory = 8 << 20});
  for (const Call& call : calls()) {
    const double seconds = machine.seconds(call);
    EXPECT_GT(seconds, 0) << key_of(call);
    EXPECT_LT(seconds, 1) << key_of(call);
  }
  const int64_t before = machine.measurements();
  EXPECT_GT(before, 20);
  // 64 MiB of maps and more: measured on less.
  const auto norm = given(kernels::BatchNormApply{{{.channels = 32}, {{16, 128, 128}}}});
  const double once = machine.seconds(norm);
  EXPECT_GT(once, 64e-6);
  EXPECT_EQ(machine.measurements(), before + 1);
  EXPECT_EQ(machine.seconds(norm), once);  // known now
  EXPECT_EQ(machine.measurements(), before + 1);
  EXPECT_GT(machine.measuring_seconds(), 0);
  EXPECT_LE(machine.scratch_bytes(), 8 << 20);
}

TEST(PlanCalibration, WhatIsKnownOfThisMachineIsKept) {
  const test::TemporaryFolder folder;
  const CalibrationOptions options{.cache = folder / "new" / "machine.json", .memory = 8 << 20};
  const auto product = given(kernels::MatrixProduct{{.m = 64, .n = 64, .k = 64}});
  const auto sum_of = [](int64_t n) { return given(kernels::Combine{kernels::Binary::add, DType::f32, n}); };
  double seconds;
  {
    Calibration machine(options);
    seconds = machine.seconds(product);
    EXPECT_FALSE(std::filesystem::exists(options.cache));
    EXPECT_TRUE(machine.save());
  }
  {
    Calibration again(options);
    EXPECT_EQ(again.seconds(product), seconds);
    EXPECT_EQ(again.measurements(), 0);
  }
  nlohmann::json json = nlohmann::json::parse(std::ifstream(options.cache));
  json["seconds"][key_of(sum_of(8192))] = 1.0;
  json["seconds"][key_of(sum_of(16384))] = 3.0;
  std::ofstream(options.cache) << json;
  {
    Calibration edited(options);  // between sizes, in proportion
    EXPECT_EQ(edited.seconds(sum_of(8192)), 1);
    EXPECT_EQ(edited.seconds(sum_of(12288)), 2);
    EXPECT_EQ(edited.measurements(), 0);
  }
  json["machine"] = "another";
  std::ofstream(options.cache) << json;
  Calibration elsewhere(options);
  EXPECT_LT(elsewhere.seconds(sum_of(8192)), 0.5);
  EXPECT_GT(elsewhere.measurements(), 0);
  std::ofstream(options.cache) << "not JSON";
  EXPECT_NO_THROW(Calibration{options});

  Calibration nowhere({.cache = options.cache / "below a file" / "machine.json", .memory = 8 << 20});
  nowhere.seconds(product);
  EXPECT_FALSE(nowhere.save());
}

}  // namespace
}  // namespace saccade::plan
