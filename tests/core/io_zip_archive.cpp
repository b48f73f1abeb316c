// Zip archives: what PyTorch and Python write is read, and what programs would read differently is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/weight_file.h>
#include <saccade/core/io/zip_archive.h>
#include <saccade/kernels/error.h>

#include <random>

#include "support/pickles.h"
#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using namespace std::string_literals;
using test::bytes_of;
using test::complaint;
using test::zip;
using testing::ElementsAre;
using testing::HasSubstr;

ByteSource source_of(const std::string& bytes) { return ByteSource(std::span<const char>(bytes.data(), bytes.size())); }

std::vector<ZipEntry> entries_of(const std::string& bytes) {
  const ByteSource source = source_of(bytes);
  MemoryBudget budget(bytes.size());
  std::vector<ZipEntry> entries = read_zip_directory(source, budget);
  locate_zip_entries(source, entries);
  return entries;
}

std::string refusal(const std::string& bytes) {
  return complaint<Error>([&] { entries_of(bytes); });
}

TEST(ZipArchive, EntriesAreFoundByTheirNames) {
  for (const bool zip64 : {false, true}) {
    const std::string file = zip({{"b/x", "second"}, {"a", ""}, {"b/data", "first"}}, {.zip64 = zip64});
    const std::vector<ZipEntry> entries = entries_of(file);
    std::vector<std::string> names;
    for (const ZipEntry& entry : entries) names.push_back(entry.name);
    EXPECT_THAT(names, ElementsAre("a", "b/data", "b/x"));
    const ZipEntry* entry = find_zip_entry(entries, "b/x");
    ASSERT_TRUE(entry);
    EXPECT_EQ(file.substr(entry->offset, entry->size), "second");
    EXPECT_TRUE(zip_checksum_agrees(source_of(file), *entry));
    EXPECT_FALSE(find_zip_entry(entries, "b"));
  }
}

TEST(ZipArchive, ACommentIsNoHarm) { EXPECT_EQ(refusal(zip({{"a", "x"}}, {.comment = "made by hand"})), ""); }

TEST(ZipArchive, AChecksumThatDiffersIsTold) {
  const std::string file = zip({{"a", "x", 0, 0, {}, 12345}});
  EXPECT_FALSE(zip_checksum_agrees(source_of(file), entries_of(file)[0]));
}

TEST(ZipArchive, RefusesWhatProgramsWouldReadDifferently) {
  EXPECT_THAT(refusal(""), HasSubstr("has no end"));
  EXPECT_THAT(refusal("PK\3\4"), HasSubstr("has no end"));
  EXPECT_THAT(refusal(zip({{"a", "x"}, {"a", "y"}})), HasSubstr("entry \"a\" twice"));
  for (const std::string& name : {"../a"s, "a/../../b"s, ".."s, "a/.."s, "/etc/passwd"s, "a\\b"s, "a\0b"s, ""s})
    EXPECT_THAT(refusal(zip({{name, "x"}})), HasSubstr("a name that leads elsewhere")) << name;
  EXPECT_THAT(refusal(zip({{"a", "x", 8}})), HasSubstr("entry \"a\" of its zip archive is compressed"));
  EXPECT_THAT(refusal(zip({{"a", "x", 0, 1}})), HasSubstr("is encrypted"));
  EXPECT_THAT(refusal(zip({{"a", "x", 0, 0, "b"}})), HasSubstr("has another name in its own header"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .local_size = 2}})), HasSubstr("has another size in its own"));
  EXPECT_EQ(refusal(zip({{.name = "a", .bytes = "x", .flags = 8, .local_size = 0}})), "");
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .size = 2}})), HasSubstr("size"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "xyz", .size = 2, .local_size = 0}, {"b", ""}})), "");
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .size = 2, .local_size = 0}})), HasSubstr("beyond the entries"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .size = 0xfffffff0, .local_size = 0}})),
              HasSubstr("has 4294967280 bytes, beyond"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .size = 2, .local_size = 0}, {"b", "y"}})),
              HasSubstr("entries \"a\" and \"b\" of its zip archive overlap"));
  EXPECT_THAT(refusal(zip({{"a", "x"}, {.name = "b", .bytes = "y", .local_name = "a", .header = 0}})),
              HasSubstr("another name"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .header = 1}})), HasSubstr("has no header where"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .header = 30}})), HasSubstr("lies outside the entries"));
  EXPECT_THAT(refusal(zip({{.name = "a", .bytes = "x", .header = 1'000'000}})), HasSubstr("outside the entries"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}, {.prefix = "before"})), HasSubstr("bytes stand before the archive"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}, {.directory = 0})), HasSubstr("elsewhere than it says"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}, {.directory = 0xfffffff0})), HasSubstr("elsewhere than it says"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}, {.zip64 = true, .directory = uint64_t{1} << 63})), HasSubstr("elsewhere than"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}, {.comment = zip({})})), HasSubstr("two ends"));
  EXPECT_THAT(refusal(zip({{"a", "x"}}) + "behind"), HasSubstr("has no end"));
}

TEST(ZipArchive, TheTwoEndsOfAZip64ArchiveMustAgree) {
  std::string file = zip({{"a", "x"}}, {.zip64 = true});
  const size_t end = file.size() - 22;
  ASSERT_EQ(refusal(file), "");
  std::string other = file;
  other.replace(end + 8, 4, bytes_of(uint16_t{2}) + bytes_of(uint16_t{2}));
  EXPECT_THAT(refusal(other), HasSubstr("in two ways that differ"));
  other = file;
  other.replace(end - 20 + 8, 8, bytes_of(uint64_t{1} << 62));
  EXPECT_THAT(refusal(other), HasSubstr("ends elsewhere than it says"));
  other = file;
  other.replace(end - 20 - 56 + 32, 8, bytes_of(uint64_t{1} << 60));  // entries
  EXPECT_NE(refusal(other), "");
}

TEST(ZipArchive, ADirectoryOfManyEntriesIsRefusedBeforeItTakesMemory) {
  std::string file = zip({{"a", "x"}});
  file.replace(file.size() - 22 + 8, 4, bytes_of(uint16_t{65535}) + bytes_of(uint16_t{65535}));
  EXPECT_THAT(refusal(file), HasSubstr("lists 65535 entries in 47 bytes"));
}

TEST(ZipArchive, ArchivesOfPyTorchsHaveOnePickle) {
  using namespace test::pickled;
  const auto why = [](const std::string& bytes) {
    return complaint<Error>([&] { read_weights(source_of(bytes), "bytes.pth"); });
  };
  const std::string pickle = file(dictionary({text("w"), tensor({})})), floats(24, '\0');
  EXPECT_EQ(why(zip({{"data.pkl", pickle}, {"data/0", floats}})), "");
  EXPECT_EQ(why(zip({{"any name/data.pkl", pickle}, {"any name/data/0", floats}}, {.zip64 = true})), "");
  EXPECT_THAT(why(zip({{"a/data.pkl", pickle}, {"a/data/0", floats}, {"b/data.pkl", pickle}})),
              HasSubstr("two data.pkl"));
  EXPECT_THAT(why(zip({{"a/data.pkl", pickle, 8}, {"a/data/0", floats}})), HasSubstr("compressed"));
  EXPECT_THAT(why(zip({{"a/data.pkl", pickle}, {"a/data/0", floats}, {"a/byteorder", "big"}})),
              HasSubstr("big-endian"));
  EXPECT_THAT(why(zip({{"a/data.pkl", pickle}, {"b/data/0", floats}})), HasSubstr("storage \"0\" is not in the file"));
  const WeightFile damaged =
      read_weights(source_of(zip({{"a/data.pkl", pickle}, {.name = "a/data/0", .bytes = floats, .crc = 1}})), "a.pth");
  EXPECT_THAT(damaged.words, ElementsAre(HasSubstr("the checksum of 1 entry differs")));
}

TEST(ZipArchive, FilesOfMoreThan4GiBAreReadToTheirEnd) {
  using namespace test::pickled;
  const test::TemporaryFolder folder;
  constexpr uint64_t base = uint64_t{5} << 30;
  std::string floats;
  for (const float value : {1.f, 2.f, 3.f, 4.f, 5.f, 6.f}) floats += bytes_of(value);
  test::put(folder / "f", "PK\3\4");
  std::filesystem::resize_file(folder / "f", base);  // sparse
  const std::string pickle = file(dictionary({text("w"), tensor({})}));
  std::ofstream(folder / "f", std::ios::binary | std::ios::app)
      << zip({{"a/data.pkl", pickle}, {"a/data/0", floats}}, {.zip64 = true, .base = base});
  EXPECT_THAT(load_weights(folder / "f").tensors[0].tensor.data<float>(), ElementsAre(1, 2, 3, 4, 5, 6));
}

TEST(ZipArchive, ManglingAFileNeverDoesMoreThanThrow) {
  const auto path = std::filesystem::path(SACCADE_GOLDENS) / "weights" / "checkpoint.pth";
  const std::string whole = test::content_of(path);
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string mangled = whole;
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
          mangled[at] = static_cast<char>(random());
          break;
        default:
          mangled.insert(at, mangled.substr(random() % mangled.size(), random() % 40));
      }
    }
    refused += !complaint<Error>([&] { read_weights(source_of(mangled), "bytes.pth"); }).empty();
  }
  EXPECT_GT(refused, 1500);
  EXPECT_LT(refused, 3000);
}

}  // namespace
}  // namespace saccade::io
