// Reading and writing safetensors: what is written comes back; every broken rule is refused with a sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/kernels/error.h>

#include <cstring>
#include <random>

#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;

std::string file_of(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
}

/// What parsing this header over that many bytes of data complains about.
std::string refusal(const std::string& header, uint64_t data_bytes) {
  return complaint<Error>([&] { parse_safetensors_header(header, data_bytes); });
}

Tensor counting(Shape shape, DType dtype) {
  Tensor tensor = Tensor::empty(std::move(shape), dtype);
  auto* bytes = static_cast<unsigned char*>(tensor.raw());
  for (size_t i = 0; i < tensor.bytes(); ++i) bytes[i] = static_cast<unsigned char>(i * 37 + 11);
  return tensor;
}

void expect_same(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.dtype(), b.dtype());
  EXPECT_EQ(a.shape(), b.shape());
  ASSERT_EQ(a.bytes(), b.bytes());
  EXPECT_TRUE(a.bytes() == 0 || std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

TEST(Safetensors, EveryTypeAndRankComesBack) {
  const TemporaryFolder folder;
  std::vector<NamedTensor> tensors;
  for (const DType dtype : {DType::u8, DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64}) {
    const std::string name(name_of(dtype));
    tensors.push_back({name + ".matrix", counting({3, 5}, dtype)});
    tensors.push_back({name + ".scalar", counting({}, dtype)});
    tensors.push_back({name + ".empty", counting({4, 0, 2}, dtype)});
    tensors.push_back({name + ".rank 5 \"\\\n\u00e9", counting({1, 2, 1, 3, 1}, dtype)});
  }
  const Metadata metadata = {{"format", "pt"}, {"", "empty key"}, {"quote \" and \u4e16", "line\nbreak"}};
  save_safetensors(folder / "all.safetensors", tensors, metadata);
  const Safetensors file = load_safetensors(folder / "all.safetensors");
  EXPECT_EQ(file.metadata, metadata);
  ASSERT_EQ(file.tensors.size(), tensors.size());
  for (const NamedTensor& each : tensors) {
    SCOPED_TRACE(each.name);
    expect_same(file[each.name], each.tensor);
  }
  EXPECT_THAT(folder.names(), ElementsAre("all.safetensors"));
}

TEST(Safetensors, WritesLargerTypesFirstThenByNameFromAMultipleOf64) {
  const TemporaryFolder folder;
  save_safetensors(folder / "f", std::vector<NamedTensor>{{"b", counting({1}, DType::u8)},
                                                          {"c", counting({2}, DType::f32)},
                                                          {"a", counting({3}, DType::f32)},
                                                          {"z", counting({1}, DType::i64)}});
  const SafetensorsHeader header = read_safetensors_header(folder / "f");
  std::vector<std::string> names;
  for (const SafetensorsEntry& each : header.entries) names.push_back(each.name);
  EXPECT_THAT(names, ElementsAre("z", "a", "c", "b"));
  EXPECT_EQ(header.data_offset % 64, 0u);
  EXPECT_EQ(std::filesystem::file_size(folder / "f"), header.data_offset + 8 + 12 + 8 + 1);
}

TEST(Safetensors, ReadsWhatThePythonLibraryWrites) {
  // safetensors 0.8 of {"w": float32 [[1, 2, 3], [4, 5, 6]], "n": int64 7}, metadata {"format": "pt"}
  const std::string header = R"({"__metadata__":{"format":"pt"},"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
                             R"("w":{"dtype":"F32","shape":[2,3],"data_offsets":[8,32]}}    )";
  ASSERT_EQ(header.size() % 8, 0u);
  std::string data("\x07\0\0\0\0\0\0\0", 8);
  for (const float value : {1.f, 2.f, 3.f, 4.f, 5.f, 6.f}) data.append(reinterpret_cast<const char*>(&value), 4);
  const TemporaryFolder folder;
  put(folder / "f", file_of(header, data));
  const Safetensors file = load_safetensors(folder / "f");
  EXPECT_EQ(file["n"].data<int64_t>()[0], 7);
  EXPECT_EQ(file["w"].shape(), (Shape{2, 3}));
  EXPECT_THAT(file["w"].data<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_EQ(file.metadata.at("format"), "pt");
}

TEST(Safetensors, UnderTheMetaDeviceOnlyShapesAreMade) {
  const TemporaryFolder folder;
  save_safetensors(folder / "f", std::vector<NamedTensor>{{"a", counting({3, 2}, DType::f16)}});
  const DeviceScope meta(Device::meta);
  const Safetensors file = load_safetensors(folder / "f");
  EXPECT_EQ(file["a"].device(), Device::meta);
  EXPECT_EQ(file["a"].shape(), (Shape{3, 2}));
}

TEST(Safetensors, NoTensorsAndLeadingWhiteSpaceAreLegal) {
  EXPECT_TRUE(parse_safetensors_header("{}", 0).entries.empty());
  EXPECT_TRUE(parse_safetensors_header(" \n\t{ }   ", 0).entries.empty());
  EXPECT_EQ(parse_safetensors_header(R"({"a":{"shape":[0,9],"data_offsets":[0,0],"dtype":"F32"}})", 0).entries.size(),
            1u);
}

TEST(Safetensors, RefusesWhatIsNotTheFormat) {
  const std::string u8 = R"("dtype":"U8",)";
  EXPECT_THAT(refusal("", 0), HasSubstr("does not begin with"));
  EXPECT_THAT(refusal("[]", 0), HasSubstr("does not begin with"));
  EXPECT_THAT(refusal("\xef\xbb\xbf{}", 0), HasSubstr("does not begin with"));
  EXPECT_THAT(refusal("{", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{} x", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal("{\"\xff\":{}}", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refusal(R"({"a":3})", 0), HasSubstr("has a number"));
  EXPECT_THAT(refusal(R"({"a":[]})", 0), HasSubstr("has an array"));
  EXPECT_THAT(refusal(R"({"a":{}})", 0), HasSubstr("lacks dtype, shape or data_offsets of tensor \"a\""));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","shape":[1]}})", 0), HasSubstr("lacks"));
  EXPECT_THAT(refusal(R"({"a":{"more":1}})", 0), HasSubstr("unknown key \"more\""));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("F8_E4M3"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("not supported"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":[-1],"data_offsets":[0,1]}})", 1), HasSubstr("negative"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":[1.0],"data_offsets":[0,1]}})", 1), HasSubstr("no whole number"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":["1"],"data_offsets":[0,1]}})", 1), HasSubstr("has a string"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":[[1]],"data_offsets":[0,1]}})", 1), HasSubstr("has an array"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":1,"data_offsets":[0,1]}})", 1), HasSubstr("has a number"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":[1],"data_offsets":[0]}})", 1), HasSubstr("1 data_offsets"));
  EXPECT_THAT(refusal("{\"a\":{" + u8 + R"("shape":[1],"data_offsets":[0,1,1]}})", 1), HasSubstr("more than 2"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":1}})", 0), HasSubstr("only strings"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"a":{}}})", 0), HasSubstr("only strings"));
  EXPECT_THAT(refusal(R"({"__metadata__":[]})", 0), HasSubstr("has an array"));
  EXPECT_THAT(refusal(R"({"__metadata__":null})", 0), HasSubstr("has null"));
  EXPECT_THAT(refusal("{\"a\":" + std::string(100'000, '['), 0), HasSubstr("has an array"));
  EXPECT_THAT(refusal("{\"a\":{\"shape\":" + std::string(100'000, '['), 0), HasSubstr("has an array"));
}

TEST(Safetensors, RefusesKeysGivenTwice) {
  const std::string a = R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  EXPECT_THAT(refusal("{" + a + "," + a + "}", 0), HasSubstr("the tensor \"a\" twice"));
  EXPECT_THAT(refusal(R"({"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}})", 0),
              HasSubstr("the key \"dtype\" twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{},"__metadata__":{}})", 0), HasSubstr("\"__metadata__\" twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"k":"1","k":"1"}})", 0), HasSubstr("\"k\" twice"));
  EXPECT_THAT(refusal(R"({"__metadata__":{"k":"1","\u006b":"1"}})", 0), HasSubstr("\"k\" twice"));
}

TEST(Safetensors, RefusesHolesOverlapsAndOverflows) {
  const auto two = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)") + first +
           R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}";
  };
  EXPECT_EQ(refusal(two("[0,4]", "[4,8]"), 8), "");
  EXPECT_EQ(refusal(two("[4,8]", "[0,4]"), 8), "");
  EXPECT_THAT(refusal(two("[0,4]", "[5,9]"), 9), HasSubstr("a hole"));
  EXPECT_THAT(refusal(two("[1,5]", "[5,9]"), 9), HasSubstr("a hole"));
  EXPECT_THAT(refusal(two("[0,4]", "[3,7]"), 7), HasSubstr("an overlap"));
  EXPECT_THAT(refusal(two("[0,4]", "[0,4]"), 4), HasSubstr("an overlap"));
  EXPECT_THAT(refusal(two("[0,4]", "[8,4]"), 8), HasSubstr("before it begins"));
  EXPECT_THAT(refusal(two("[0,4]", "[4,8]"), 9), HasSubstr("describes 8 bytes of data, but the file has 9"));
  EXPECT_THAT(refusal(two("[0,4]", "[4,8]"), 7), HasSubstr("describes 8 bytes"));
  EXPECT_THAT(refusal(two("[0,4]", "[4,9]"), 9), HasSubstr("but it has 4"));
  const auto shaped = [](const char* shape, const char* offsets) {
    return std::string(R"({"a":{"dtype":"F32","data_offsets":)") + offsets + ",\"shape\":" + shape + "}}";
  };
  EXPECT_THAT(refusal(shaped("[4611686018427387904]", "[0,0]"), 0), HasSubstr("can be counted"));
  EXPECT_THAT(refusal(shaped("[2147483648,2147483648,4]", "[0,0]"), 0), HasSubstr("can be counted"));
  EXPECT_THAT(refusal(shaped("[9223372036854775808]", "[0,0]"), 0), HasSubstr("the extent 9223372036854775808"));
  EXPECT_THAT(refusal(shaped("[18446744073709551616]", "[0,0]"), 0), HasSubstr("no whole number"));
  EXPECT_THAT(refusal(shaped("[1]", "[0,18446744073709551615]"), 4), HasSubstr("but it has 4"));
  EXPECT_THAT(refusal(shaped("[1]", "[18446744073709551612,0]"), 4), HasSubstr("before it begins"));
  std::string ones = "[1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  EXPECT_THAT(refusal(shaped((ones + "]").c_str(), "[0,4]"), 4), HasSubstr("more than 64 dimensions"));
}

TEST(Safetensors, RefusesATypeThatTensorsDoNotHaveByName) {
  const TemporaryFolder folder;
  put(folder / "f", file_of(R"({"a":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}})", std::string(8, '\0')));
  EXPECT_EQ(read_safetensors_header(folder / "f").entries[0].type, "F64");
  EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder / "f"); }), HasSubstr("tensor 'a' has the type F64"));
}

TEST(Safetensors, RefusesEveryPrefixOfAFile) {
  const TemporaryFolder folder;
  save_safetensors(folder / "whole",
                   std::vector<NamedTensor>{{"a", counting({3}, DType::f32)}, {"b", counting({2}, DType::u8)}},
                   {{"k", "v"}});
  const std::string whole = content_of(folder / "whole");
  for (size_t length = 0; length < whole.size(); ++length) {
    put(folder / "cut", whole.substr(0, length));
    EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder / "cut"); }), HasSubstr("cut: ")) << length;
  }
  put(folder / "cut", whole + '\0');
  EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder / "cut"); }), HasSubstr("describes 14 bytes"));
}

TEST(Safetensors, ManglingTheHeaderNeverDoesMoreThanThrow) {
  const TemporaryFolder folder;
  save_safetensors(folder / "f",
                   std::vector<NamedTensor>{{"a", counting({3, 2}, DType::f32)}, {"b\n", counting({}, DType::i64)}},
                   {{"key", "value"}});
  const std::string whole = content_of(folder / "f");
  const size_t data = read_safetensors_header(folder / "f").data_offset;
  const std::string header = whole.substr(8, data - 8);
  std::mt19937 random(5);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string mangled = header;
    for (uint32_t n = random() % 3 + 1; n > 0; --n) {
      const size_t at = random() % mangled.size();
      switch (random() % 4) {
        case 0:
          mangled[at] = static_cast<char>(mangled[at] ^ (1 << random() % 8));
          break;
        case 1:
          mangled.erase(at, random() % 8);
          break;
        case 2:
          mangled.insert(at, 1, "{}[],:\"0919-.e \\"[random() % 15]);
          break;
        default:
          mangled.insert(at, mangled.substr(random() % mangled.size(), random() % 40));
      }
    }
    refused += !refusal(mangled, whole.size() - data).empty();
  }
  EXPECT_GT(refused, 10'000);
  EXPECT_LT(refused, 20'000);  // flips inside names and metadata are no errors

  for (size_t bit = 0; bit < header.size() * 8; ++bit) {
    std::string flipped = header;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    refusal(flipped, whole.size() - data);
  }
  for (size_t bit = 0; bit < 64; ++bit) {
    std::string flipped = whole;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    put(folder / "flipped", flipped);
    EXPECT_NE(complaint<Error>([&] { load_safetensors(folder / "flipped"); }), "") << bit;
  }
}

TEST(Safetensors, RefusesAHeaderOver100MegabytesUnread) {
  const TemporaryFolder folder;
  const uint64_t length = 100'000'001;
  put(folder / "f", std::string(reinterpret_cast<const char*>(&length), 8));
  std::filesystem::resize_file(folder / "f", 8 + length);  // sparse
  EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder / "f"); }),
              HasSubstr("100000001 bytes, at most 100000000"));
}

TEST(Safetensors, RefusesToWriteWhatItCouldNotRead) {
  const TemporaryFolder folder;
  const Tensor one = counting({1}, DType::f32);
  const auto saving = [&](std::vector<NamedTensor> tensors) {
    return complaint<Error>([&] { save_safetensors(folder / "f", tensors); });
  };
  EXPECT_THAT(saving({{"a", one}, {"a", one}}), HasSubstr("the tensor \"a\" twice"));
  EXPECT_THAT(saving({{"__metadata__", one}}), HasSubstr("in the metadata"));
  EXPECT_THAT(saving({{"a", {}}}), HasSubstr("no data"));
  EXPECT_THAT(saving({{"a", one.to(Device::meta)}}), HasSubstr("no data"));
  EXPECT_THAT(saving({{"\xff", one}}), HasSubstr("UTF-8"));
  EXPECT_THAT(saving({{std::string((4 << 20) + 1, 'a'), one}}), HasSubstr("more than 4 MiB"));
  EXPECT_EQ(saving({{std::string(4 << 20, 'a'), one}}), "");
  std::filesystem::remove(folder / "f");
  EXPECT_TRUE(folder.names().empty());
}

TEST(Safetensors, FilesThatAreNoFilesAreRefused) {
  const TemporaryFolder folder;
  EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder / "none"); }), HasSubstr("No such file"));
  EXPECT_THAT(complaint<Error>([&] { load_safetensors(folder.path()); }), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace saccade::io
