// Devices as described: what files say, and what calls would take there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/error.h>

#include <fstream>

#include "support/given.h"
#include "support/temporary_folder.h"

namespace saccade::plan {
namespace {

using kernels::Call;
using test::given;

TEST(PlanDevice, TheLibraryKnowsSomeCards) {
  EXPECT_THAT(device_names(), testing::UnorderedElementsAre("a100-40gb", "a100-80gb", "cpu", "h100-80gb", "v100-32gb"));
  for (const std::string& name : device_names()) EXPECT_GT(device_description(name).usable_bytes(), 0) << name;
  const DeviceDescription v100 = device_description("v100-32gb");
  EXPECT_NEAR(static_cast<double>(v100.memory_bytes) / (1 << 30), 31.75, 0.005);
  EXPECT_NEAR(static_cast<double>(v100.reserved_bytes) / (1 << 30), 1.7, 0.01);
  EXPECT_EQ(v100.f16_flops, 125e12);
}

TEST(PlanDevice, ACallTakesTheLongerOfArithmeticAndTraffic) {
  DeviceDescription device{.name = "toy"};
  device.f32_flops = 1e9;
  device.f16_flops = 8e9;
  device.bf16_flops = 4e9;
  device.bytes_per_second = 1e9;
  device.call_seconds = 1e-3;
  device.convolution = 0.5;
  device.grouped_convolution = 0.25;
  device.matmul = 0.8;
  device.batch_norm = 0.5;
  device.memory = 0.9;
  DescribedDevice toy(device);
  const auto seconds = [&toy](Call call) { return toy.seconds(call) - 1e-3; };
  // 8e8 operations; 1e9 where nothing else is said.
  const auto product = [](DType dtype) {
    return kernels::MatrixProduct{{.m = 1000, .n = 1000, .k = 400, .dtype = dtype}};
  };
  EXPECT_NEAR(seconds(product(DType::f32)), 1, 1e-12);
  EXPECT_NEAR(seconds(product(DType::f16)), 0.125, 1e-12);
  const auto of_traffic = given(kernels::MatrixProduct{{.m = 1500000, .n = 1, .k = 1}});  // 12e6 bytes and 8 more
  EXPECT_NEAR(seconds(of_traffic), 12000008 / 0.9e9, 1e-9);
  const Segments pixels = {{1, 1, 100000}};
  const auto conv = [](int64_t kernel, int64_t groups) {
    return kernels::Conv2d{100, 50, kernel, 1, kernel / 2, groups};
  };
  EXPECT_NEAR(seconds(kernels::Conv2dForward{conv(3, 1), pixels}), 2 * 9, 1e-9);
  EXPECT_NEAR(seconds(kernels::Conv2dBackwardWeight{conv(3, 10), pixels}), 4 * .9, 1e-9);
  EXPECT_NEAR(seconds(kernels::Conv2dBackwardData{conv(1, 1), pixels}), 1.25, 1e-9);
  const kernels::BatchNormApply norm{{{.channels = 100, .dtype = DType::bf16}, pixels}};
  // x and y, and four numbers a channel
  EXPECT_NEAR(seconds(norm), (4e7 + 4 * 400) / 0.5e9, 1e-9);
  EXPECT_NEAR(seconds(kernels::Copy{900000}), 2e-3, 1e-9);
  EXPECT_EQ(toy.seconds(given(kernels::BatchNormMoments{{{.channels = 100}, pixels}})), 0) << "a part of what follows";
}

TEST(PlanDevice, AClockAddsWhatARehearsalTakes) {
  struct Counter final : TimeModel {
    double seconds(const Call& call) override { return std::holds_alternative<kernels::MatrixProduct>(call) ? 10 : 1; }
  } model;
  Clock clock(model);
  kernels::Backend& meta = kernels::backend(Device::meta);
  const auto add = given(kernels::Combine{kernels::Binary::add, DType::f32, 8});
  {
    const kernels::MetaListenScope scope(clock);
    meta.run(kernels::MatrixProduct{{.m = 2, .n = 2, .k = 2}});
    meta.run(add);
    meta.run(add);
  }
  meta.run(add);
  EXPECT_EQ(clock.seconds(), 12);
  EXPECT_EQ(clock.by_name().at("combine"), 2);
}

TEST(PlanDevice, AFileOfOnesOwnIsReadAndItsMistakesAreNamed) {
  const test::TemporaryFolder folder;
  const auto path = (folder / "mine.json").string();
  const auto write = [&path](const std::string& text) { std::ofstream(path) << text; };
  const std::string good = R"({"name": "mine", "memory_bytes": 1000, "reserved_bytes": 100, "f32_flops": 1,
    "f16_flops": 2, "bf16_flops": 3, "bytes_per_second": 4, "call_seconds": 5, "convolution": 0.1,
    "grouped_convolution": 0.2, "matmul": 0.3, "batch_norm": 0.4, "memory": 0.5})";
  write(good);
  const DeviceDescription mine = device_description(path);
  EXPECT_EQ(mine.name, "mine");
  EXPECT_EQ(mine.usable_bytes(), 900);
  EXPECT_EQ(mine.bf16_flops, 3);
  EXPECT_EQ(mine.grouped_convolution, 0.2);

  const auto complaint = [](const std::string& name) -> std::string {
    try {
      device_description(name);
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  const auto with = [&good](std::string from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  write(with("\"matmul\": 0.3", "\"matmul\": 1.3"));
  EXPECT_THAT(complaint(path), testing::HasSubstr("\"matmul\" is a share of the peak, got 1.3"));
  write(with("\"f32_flops\": 1", "\"f32_flops\": \"many\""));
  EXPECT_THAT(complaint(path), testing::HasSubstr("expected a positive number \"f32_flops\""));
  write(with("\"reserved_bytes\": 100", "\"reserved_bytes\": 2000"));
  EXPECT_THAT(complaint(path), testing::HasSubstr("2000 bytes are reserved of 1000"));
  write("{");
  EXPECT_THAT(complaint(path), testing::HasSubstr("not JSON"));
  EXPECT_THAT(complaint("v100"), testing::HasSubstr("a100-40gb, a100-80gb, cpu, h100-80gb, v100-32gb"));
  EXPECT_THAT(complaint("nowhere/x.json"), testing::HasSubstr("cannot read nowhere/x.json"));
}

}  // namespace
}  // namespace saccade::plan
