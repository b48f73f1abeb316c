// Weights in the files of others: what PyTorch, NumPy and Hugging Face write is read as they mean it, and what is
// something else is told what it is.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/kernels/error.h>

#include <cstring>

#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

const std::filesystem::path kGoldens = std::filesystem::path(SACCADE_GOLDENS) / "weights";

void expect_as_expected(const std::string& file, const std::string& expected) {
  SCOPED_TRACE(file);
  const WeightFile read = load_weights(kGoldens / file);
  const Safetensors sought = load_safetensors(kGoldens / (expected + ".expected.safetensors"));
  EXPECT_EQ(read.metadata, sought.metadata);
  EXPECT_EQ(read.tensors.size(), sought.tensors.size());
  for (const NamedTensor& each : read.tensors) {
    SCOPED_TRACE(each.name);
    const Tensor& other = sought[each.name];
    EXPECT_EQ(each.tensor.dtype(), other.dtype());
    EXPECT_EQ(each.tensor.shape(), other.shape());
    ASSERT_EQ(each.tensor.bytes(), other.bytes());
    EXPECT_TRUE(other.bytes() == 0 || std::memcmp(each.tensor.raw(), other.raw(), other.bytes()) == 0);
  }
}

TEST(WeightFile, PyTorchsFilesGiveTheTensorsThatPyTorchSaved) {
  for (const char* file : {"zip.pth", "legacy.pth", "protocol4.pth"}) expect_as_expected(file, "zip");
}

TEST(WeightFile, WhatLiesBesideTheTensorsOfACheckpointIsMetadata) {
  expect_as_expected("checkpoint.pth", "checkpoint");
}

TEST(WeightFile, PicklesOfNumPyArraysAreWeightsToo) {
  for (const char* file : {"numpy2.pkl", "numpy5.pkl"}) expect_as_expected(file, "numpy");
}

TEST(WeightFile, SaysWhatWasCast) {
  EXPECT_THAT(
      load_weights(kGoldens / "zip.pth").words,
      ElementsAre("2 F64 tensors were cast to f32", "1 I16 tensor was cast to i32", "1 I8 tensor was cast to i32",
                  "1 U16 tensor was cast to i32", "1 BOOL tensor was cast to u8"));
}

TEST(WeightFile, UnderTheMetaDeviceOnlyShapesAreMade) {
  const DeviceScope meta(Device::meta);
  const WeightFile file = load_weights(kGoldens / "zip.pth");
  ASSERT_EQ(file.tensors.size(), 23u);
  EXPECT_EQ(file.tensors[0].tensor.device(), Device::meta);
  EXPECT_EQ(file.tensors[0].tensor.shape(), (Shape{4, 3, 2, 5}));
}

TEST(WeightFile, TheNameOfAFileDoesNotMatter) {
  const TemporaryFolder folder;
  std::filesystem::copy(kGoldens / "zip.pth", folder / "model.safetensors");
  EXPECT_EQ(load_weights(folder / "model.safetensors").tensors.size(), 23u);
  EXPECT_EQ(load_weights(folder.path()).tensors.size(), 23u);
}

WeightFile read(const std::string& bytes) {
  return read_weights(ByteSource(std::span<const char>(bytes.data(), bytes.size())), "bytes.pth");
}

TEST(WeightFile, RefusesEveryPrefixOfAFile) {
  for (const char* file : {"zip.pth", "legacy.pth", "numpy5.pkl"}) {
    const std::string whole = content_of(kGoldens / file);
    for (size_t length = 0; length < whole.size(); ++length)
      EXPECT_NE(complaint<Error>([&] { read(whole.substr(0, length)); }), "") << file << " " << length;
  }
}

}  // namespace
}  // namespace saccade::io
