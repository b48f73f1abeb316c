// Measuring this machine: the calls that are timed are the calls that were asked for, and what is known is kept.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/plan/calibration.h>
#include <saccade/core/plan/call_timer.h>
#include <saccade/kernels/backend.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "support/temporary_folder.h"

namespace saccade::plan {
namespace {

using kernels::Backend;
using kernels::backend;
using kernels::Call;
using kernels::CallKind;

/// The last call heard, with its segments kept.
struct Ear final : kernels::MetaListener {
  void on_call(const Call& heard) override {
    segments.assign(heard.segments.begin(), heard.segments.end());
    call = heard;
    call.segments = segments;
    ++calls;
  }
  Call call;
  Segments segments;
  int calls = 0;
};

/// A call of every kind, as the meta backend reports it.
void for_each_kind(const std::function<void(const Ear&)>& visit) {
  const Segments in = {{2, 8, 8}, {4, 4, 4}};
  const kernels::Conv2d grouped{16, 16, 3, 2, 1, 2, DType::bf16}, pointwise{16, 8, 1, 1, 0, 1, DType::f32};
  float one;
  const kernels::ParameterSlot slot{&one, &one, &one, nullptr, 1000};
  const std::vector<std::function<void(Backend&)>> calls = {
      [&](Backend& b) { b.conv2d_forward(grouped, in, nullptr, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.conv2d_forward(pointwise, in, nullptr, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.conv2d_backward_data(grouped, in, nullptr, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.conv2d_backward_weight(grouped, in, nullptr, nullptr, nullptr, nullptr); },
      [&](Backend& b) {
        b.matmul({.m = 30, .n = 20, .k = 50, .transpose_b = true, .dtype = DType::bf16, .out_dtype = DType::f32},
                 nullptr, nullptr, nullptr, nullptr, nullptr);
      },
      [&](Backend& b) {
        b.batch_norm_forward({.channels = 8, .relu = true}, in, nullptr, &one, nullptr, nullptr, nullptr, nullptr, &one,
                             nullptr, nullptr, nullptr);
      },
      [&](Backend& b) {
        b.batch_norm_apply({.channels = 8, .dtype = DType::f16}, in, nullptr, nullptr, nullptr, nullptr, nullptr,
                           nullptr);
      },
      [&](Backend& b) {
        b.batch_norm_backward({.channels = 8, .relu = true}, in, nullptr, &one, nullptr, nullptr, nullptr, nullptr,
                              nullptr, nullptr, &one, nullptr, nullptr, nullptr);
      },
      [&](Backend& b) { b.global_avg_pool_forward(in, 8, DType::bf16, nullptr, nullptr); },
      [&](Backend& b) { b.global_avg_pool_backward(in, 8, DType::f32, nullptr, nullptr); },
      [&](Backend& b) { b.channel_scale_forward(in, 8, DType::f32, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.channel_scale_backward_scale(in, 8, DType::f32, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.channel_scale_backward_input(in, 8, DType::f32, nullptr, nullptr, &one, nullptr); },
      [&](Backend& b) {
        b.sinkhorn_potentials({12, 30, 0.05f, 3}, nullptr, nullptr, nullptr);
      },
      [&](Backend& b) {
        b.swapped_prediction({4, 6, 2, 30}, nullptr, nullptr, nullptr, nullptr);
      },
      [&](Backend& b) { b.add(DType::bf16, 1000, nullptr, nullptr, nullptr); },
      [&](Backend& b) { b.copy(1000, nullptr, nullptr); },
      [&](Backend& b) { b.cast(DType::f32, DType::bf16, 1000, nullptr, nullptr); },
      [&](Backend& b) { b.sum(DType::f32, 1000, nullptr, nullptr); },
      [&](Backend& b) {
        b.sgd({}, {&slot, 1});
      },
      [&](Backend& b) {
        b.sgd({.trust = 0.001f, .momentum_dtype = DType::bf16}, {&slot, 1});
      },
      [&](Backend& b) {
        b.adamw({}, {&slot, 1});
      }};
  std::set<CallKind> kinds;
  for (const auto& call : calls) {
    Ear ear;
    {
      const kernels::MetaListenScope scope(ear);
      call(backend(Device::meta));
    }
    ASSERT_EQ(ear.calls, 1);
    kinds.insert(ear.call.kind);
    visit(ear);
  }
  EXPECT_EQ(kinds.size(), kernels::kCallKinds);
}

/// What the meta backend hears when a prepared call runs.
Ear run_on_meta(const Prepared& prepared) {
  static float nothing;
  const std::vector<void*> addresses(prepared.operands.size(), &nothing);
  Ear ear;
  const kernels::MetaListenScope scope(ear);
  prepared.run(addresses);
  return ear;
}

void expect_same(const Call& heard, const Call& asked) {
  EXPECT_EQ(heard.kind, asked.kind);
  EXPECT_EQ(heard.dtype, asked.dtype);
  EXPECT_EQ(heard.flops, asked.flops);
  EXPECT_NEAR(heard.bytes, asked.bytes, 4 + 0.001 * asked.bytes) << kernels::name_of(asked.kind);
  EXPECT_EQ(heard.residual, asked.residual);
  EXPECT_EQ(Segments(heard.segments.begin(), heard.segments.end()),
            Segments(asked.segments.begin(), asked.segments.end()));
}

TEST(PlanCalibration, WhatIsTimedIsWhatWasAsked) {
  for_each_kind([](const Ear& asked) {
    const Ear heard = run_on_meta(prepare(backend(Device::meta), asked.call));
    ASSERT_EQ(heard.calls, 1);
    expect_same(heard.call, asked.call);
  });
}

TEST(PlanCalibration, ACallMadeSmallerIsTheSameOnLess) {
  for_each_kind([](const Ear& asked) {
    Call call = asked.call;
    Segments segments = asked.segments;
    call.segments = segments;
    for (int halvings = 0; halvings < 4; ++halvings) {
      const Call before = call;
      if (!halve(call, segments)) break;
      EXPECT_LT(call.flops + call.bytes, before.flops + before.bytes) << kernels::name_of(call.kind);
      const Ear heard = run_on_meta(prepare(backend(Device::meta), call));
      EXPECT_EQ(heard.call.kind, call.kind);
      EXPECT_EQ(heard.call.flops, call.flops);
      EXPECT_EQ(heard.segments, segments);
    }
  });
}

TEST(PlanCalibration, EveryKindRunsInTheMemoryItMayUse) {
  Calibration machine({.memory = 8 << 20});
  for_each_kind([&machine](const Ear& asked) {
    const double seconds = machine.seconds(asked.call);
    EXPECT_GT(seconds, 0) << kernels::name_of(asked.call.kind);
    EXPECT_LT(seconds, 1) << kernels::name_of(asked.call.kind);
  });
  const int64_t before = machine.measurements();
  EXPECT_GT(before, 20);
  // 64 MiB of maps and more: measured on less.
  const Segments large = {{16, 128, 128}};
  const Call norm{.kind = CallKind::batch_norm_forward,
                  .bytes = 2. * 4 * 32 * 16 * 128 * 128,
                  .norm = {.channels = 32},
                  .segments = large};
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
  const Call product{.kind = CallKind::matmul, .flops = 2. * 64 * 64 * 64, .matmul = {.m = 64, .n = 64, .k = 64}};
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
  json["seconds"]["elementwise f32 8192"] = 1.0;
  json["seconds"]["elementwise f32 16384"] = 3.0;
  std::ofstream(options.cache) << json;
  {
    Calibration edited(options);  // between sizes, in proportion
    EXPECT_EQ(edited.seconds({.kind = CallKind::elementwise, .bytes = 8192}), 1);
    EXPECT_EQ(edited.seconds({.kind = CallKind::elementwise, .bytes = 12288}), 2);
    EXPECT_EQ(edited.measurements(), 0);
  }
  json["machine"] = "another";
  std::ofstream(options.cache) << json;
  Calibration elsewhere(options);
  EXPECT_LT(elsewhere.seconds({.kind = CallKind::elementwise, .bytes = 8192}), 0.5);
  EXPECT_GT(elsewhere.measurements(), 0);
  std::ofstream(options.cache) << "not JSON";
  EXPECT_NO_THROW(Calibration{options});

  Calibration nowhere({.cache = options.cache / "below a file" / "machine.json", .memory = 8 << 20});
  nowhere.seconds(product);
  EXPECT_FALSE(nowhere.save());
}

}  // namespace
}  // namespace saccade::plan
