// Weights in the files of others: what PyTorch, NumPy and Hugging Face write is read as they mean it, and what is
// something else is told what it is.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/kernels/error.h>

#include <cstdlib>
#include <cstring>

#include "support/pickles.h"
#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using namespace std::string_literals;
using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

const std::filesystem::path kGoldens = std::filesystem::path(SACCADE_GOLDENS) / "weights";

void expect_same(const WeightFile& read, const Safetensors& sought) {
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

void expect_as_expected(const std::string& file, const std::string& expected) {
  SCOPED_TRACE(file);
  const WeightFile read = load_weights(kGoldens / file);
  const Safetensors sought = load_safetensors(kGoldens / (expected + ".expected.safetensors"));
  EXPECT_EQ(read.metadata, sought.metadata);
  expect_same(read, sought);
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

TEST(WeightFile, HuggingFacesFoldersAreReadWithAllTheirShards) {
  const TemporaryFolder folder;
  const auto save = [&](const char* name, std::vector<NamedTensor> tensors) {
    save_safetensors(folder / name, tensors);
  };
  const Tensor one = Tensor::full({2}, 1.f), two = Tensor::full({3}, 2.f);
  const auto refusal = [&] { return complaint<Error>([&] { load_weights(folder.path()); }); };
  EXPECT_THAT(refusal(), HasSubstr("the folder has none of model.safetensors, model.safetensors.index.json, "));
  put(folder / "resnet.pth", "x");
  EXPECT_THAT(refusal(), HasSubstr("give the file of weights in it, such as " + (folder / "resnet.pth").string()));
  const auto index = [&](const std::string& map) {
    put(folder / "model.safetensors.index.json", R"({"metadata": {"total_size": 20}, "weight_map": )" + map + "}");
  };
  index(R"({"a": "x-1.safetensors", "b": "x-2.safetensors"})");
  EXPECT_THAT(refusal(), HasSubstr("index.json: 2 of the 2 files it names are missing, x-1.safetensors, ...: fetch"));
  save("x-1.safetensors", {{"a", one}});
  EXPECT_THAT(refusal(), HasSubstr("1 of the 2 files it names is missing, x-2.safetensors: fetch or copy it again"));
  save("x-2.safetensors", {{"b", two}});
  for (const auto& path : {folder.path(), folder / "model.safetensors.index.json"}) {
    const WeightFile file = load_weights(path);
    ASSERT_EQ(file.tensors.size(), 2u);
    EXPECT_EQ(file.tensors[1].name, "b");
    EXPECT_THAT(file.tensors[1].tensor.data<float>(), ElementsAre(2, 2, 2));
  }
  save("x-2.safetensors", {{"a", one}, {"b", two}});
  EXPECT_THAT(refusal(), HasSubstr("tensor \"a\" is there twice, in x-1.safetensors and in x-2.safetensors"));
  save("x-2.safetensors", {{"c", two}});
  EXPECT_THAT(refusal(), HasSubstr("tensor \"b\" is in x-2.safetensors, where it is not"));
  for (const char* name : {"../x", "/etc/passwd", "..", "", "a/b", "a\\\\b"}) {
    index(R"({"a": ")" + std::string(name) + "\"}");
    EXPECT_THAT(refusal(), HasSubstr("which is no file beside it")) << name;
  }
  index(R"({"a": 3})");
  EXPECT_THAT(refusal(), HasSubstr("which is no file beside it"));
  index(R"({"a": "model.safetensors.index.json"})");
  EXPECT_THAT(refusal(), HasSubstr("it is JSON"));
  for (const char* map : {"{}", "[]", "3"}) {
    index(map);
    EXPECT_THAT(refusal(), HasSubstr("it has no \"weight_map\"")) << map;
  }
  index("{");
  EXPECT_THAT(refusal(), HasSubstr("not valid JSON"));
  index(std::string(1000, '[') + std::string(1000, ']'));
  EXPECT_THAT(refusal(), HasSubstr("nests more than"));
  save("model.safetensors", {{"whole", one}});
  EXPECT_EQ(load_weights(folder.path()).tensors[0].name, "whole");
}

TEST(WeightFile, ShardsOfPyTorchsAreReadToo) {
  const TemporaryFolder folder;
  std::filesystem::copy(kGoldens / "zip.pth", folder / "pytorch_model-1.bin");
  std::filesystem::copy(kGoldens / "numpy5.pkl", folder / "pytorch_model-2.bin");
  put(folder / "pytorch_model.bin.index.json",
      R"({"weight_map": {"scalar": "pytorch_model-1.bin", "model.w": "pytorch_model-2.bin"}})");
  const WeightFile file = load_weights(folder.path());
  EXPECT_EQ(file.tensors.size(), 25u);
  EXPECT_EQ(file.words[0], "pytorch_model-1.bin: 2 F64 tensors were cast to f32");
}

TEST(WeightFile, WhatIsSomethingElseIsToldWhatItIsAndWhatToDo) {
  const auto told = [](const std::string& bytes, const char* path = "weights.pth") {
    return complaint<Error>([&] { read_weights(ByteSource(std::span<const char>(bytes.data(), bytes.size())), path); });
  };
  using test::zip;
  EXPECT_THAT(told(""), HasSubstr("it is empty: fetch or copy it again"));
  EXPECT_THAT(told("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n"), HasSubstr("git lfs pull"));
  for (const char* page : {"<!DOCTYPE html><html>", "\n <html lang=en>", "\xef\xbb\xbf<!doctype HTML>"})
    EXPECT_THAT(told(page), HasSubstr("a web page: the download went wrong")) << page;
  EXPECT_THAT(told("<?xml version=\"1.0\"?><Error><Code>AccessDenied"), HasSubstr("a server's message"));
  EXPECT_THAT(told("{\"architectures\": [\"RegNet\"]}"), HasSubstr("JSON, which describes weights at most"));
  EXPECT_THAT(told("Not Found\n"), HasSubstr("text, not weights"));
  EXPECT_THAT(told("\x93NUMPY\1\0v\0{'descr'"s), HasSubstr("one NumPy array without a name"));
  EXPECT_THAT(told(zip({{"a.npy", "x"}, {"b.npy", "y", 8}})), HasSubstr("safetensors.numpy.save_file(dict(numpy.load"));
  EXPECT_THAT(told("\x08\x07\x12\x07pytorch\x1a\x05"
                   "2.1.0:\x80"),
              HasSubstr("an ONNX model"));
  EXPECT_THAT(told("\x08\x07\x3a\x07pytorch"), HasSubstr("an ONNX model"));
  EXPECT_THAT(told("\x89HDF\r\n\x1a\n"), HasSubstr("an HDF5 file"));
  EXPECT_THAT(told("\x1f\x8b\x08"), HasSubstr("gunzip"));
  EXPECT_THAT(told("GGUF\3\0\0\0"s), HasSubstr("a GGUF file"));
  EXPECT_THAT(told("\x80\x93\x01\x02", "model.ckpt.data-00000-of-00001"), HasSubstr("part of a TensorFlow model"));
  EXPECT_THAT(told(std::string(5000, '\0')), HasSubstr("nothing but zeros where it begins"));
  EXPECT_THAT(told(std::string("\x01\xfe\x03\x05 something", 14)), HasSubstr("neither safetensors nor what PyTorch"));
  EXPECT_THAT(told(zip({{"photo.jpg", "x"}})), HasSubstr("a zip archive without PyTorch's data.pkl: unpack it"));
  EXPECT_THAT(told(zip({})), HasSubstr("a zip archive without"));
  for (const char* entry : {"m/constants.pkl", "m/code/__torch__.py"})
    EXPECT_THAT(told(zip({{"m/data.pkl", "\x80\2N."}, {entry, "x"}})), HasSubstr("torch.jit.load(FILE).state_dict()"));
  EXPECT_THAT(told(zip({{"m/data.pkl", "\x80\2N."}}), "__0_0.distcp"), HasSubstr("format_utils dcp_to_torch"));
  EXPECT_THAT(told("\x80\2N."), HasSubstr("it holds no tensor"));
}

/// A tar archive of empty files.
std::string tar_of(const std::vector<std::string>& names) {
  std::string archive;
  for (const std::string& name : names) {
    std::string header(512, '\0');
    header.replace(0, name.size(), name);
    header.replace(124, 11, "00000000000");
    header.replace(257, 5, "ustar");
    archive += header;
  }
  return archive + std::string(1024, '\0');
}

TEST(WeightFile, TarArchivesAreToldFromThoseOfTheFirstPyTorch) {
  // CVE-2025-32434: such files went round the restricted unpickler
  const auto told = [](const std::string& bytes) {
    return complaint<Error>([&] { read_weights(ByteSource(std::span<const char>(bytes.data(), bytes.size())), "a"); });
  };
  EXPECT_THAT(told(tar_of({"./", "storages", "tensors", "pickle"})), HasSubstr("as PyTorch 0.1 saved it"));
  EXPECT_THAT(told(tar_of({"sys_info"})), HasSubstr("as PyTorch 0.1 saved it"));
  EXPECT_THAT(told(tar_of({"model.pth"})), HasSubstr("a tar archive: unpack it"));
}

TEST(WeightFile, FoldersOfOtherKindsAreToldWhatTheyAre) {
  const TemporaryFolder folder;
  const auto told = [&] { return complaint<Error>([&] { load_weights(folder.path()); }); };
  put(folder / "data.pkl", "x");
  EXPECT_THAT(told(), HasSubstr("what a PyTorch file has in it, unpacked"));
  put(folder / "saved_model.pb", "x");
  put(folder / "__0_0.distcp", "x");
  EXPECT_THAT(told(), HasSubstr("dcp_to_torch " + folder.path().string() + " weights.pth"));
  EXPECT_THAT(complaint<Error>([&] { load_weights(folder / "none"); }), HasSubstr("No such file"));
}

TEST(WeightFile, ACheckpointOfARunIsNotTakenForWeights) {
  const TemporaryFolder folder;
  const auto saved = save_checkpoint(folder.path(), 1, std::vector<NamedTensor>{{"w", Tensor::zeros({2})}}, "{}", 1);
  EXPECT_THAT(complaint<Error>([&] { load_weights(saved.path); }), HasSubstr("a checkpoint of a run"));
}

TEST(WeightFilePython, AThousandRandomFilesAreBitEqualToPyTorchs) {
  const char* python = std::getenv("SACCADE_PYTHON");
  if (!python) GTEST_SKIP() << "ctest -L python runs this with the Python of SACCADE_PYTHON";
  if (std::system(fmt::format("{} -c 'import torch, safetensors, numpy'", python).c_str()) != 0)
    GTEST_SKIP() << python << " has no torch, safetensors or numpy: configure with -DSACCADE_PYTHON=<one that has>";
  const TemporaryFolder folder;
  const int count = 1000;
  ASSERT_EQ(std::system(
                fmt::format("{} -B {}/random_weights.py {} {}", python, SACCADE_GOLDENS, folder.path().string(), count)
                    .c_str()),
            0);
  for (int i = 0; i < count; ++i) {
    SCOPED_TRACE(i);
    expect_same(load_weights(folder / fmt::format("{}.pth", i)),
                load_safetensors(folder / fmt::format("{}.safetensors", i)));
  }
}

}  // namespace
}  // namespace saccade::io
