#include <gtest/gtest.h>
#include <saccade/data/fingerprint.h>
#include <saccade/kernels/error.h>

#include <filesystem>

#include "support/temporary_folder.h"

namespace saccade::data {
namespace {

namespace fs = std::filesystem;
using test::complaint, test::put, test::TemporaryFolder;

const std::string kPixel = "P6 1 1 255\nabc";

std::vector<std::string> names_of(const Fingerprint& found) {
  std::vector<std::string> names;
  for (const StoredFile& file : found.files) names.push_back(file.name + " " + std::to_string(file.bytes));
  return names;
}

TEST(Fingerprint, IsTheNamesBelowTheFolderAndTheSizes) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "a" / "sub");
  put(folder / "a" / "2.ppm", kPixel);
  put(folder / "a" / "sub" / "1\n.ppm", kPixel + "12");
  put(folder / "a" / "notes.txt", "no image");
  const std::string path = folder / "a";
  const Fingerprint found = fingerprint(open_images(path), path + "/./");
  EXPECT_EQ(found.path, path);
  EXPECT_EQ(found.images, 2);
  EXPECT_EQ(names_of(found), (std::vector<std::string>{"2.ppm 14", "sub/1\n.ppm 16"}));
  fs::rename(folder / "a", folder / "b");
  const std::string moved = folder / "b";
  EXPECT_EQ(fingerprint(open_images(moved + "/"), moved).hash(), found.hash());
  fs::rename(folder / "b" / "2.ppm", folder / "b" / "3.ppm");
  EXPECT_NE(fingerprint(open_images(moved), moved).hash(), found.hash());
}

TEST(Fingerprint, OfATableIsThatOfItsImagesInTheirOrder) {
  const TemporaryFolder folder;
  put(folder / "1.ppm", kPixel);
  put(folder / "2.ppm", kPixel);
  const std::string path = folder / "list.csv";
  put(path, "path,label\n2.ppm,a\n1.ppm,b\n");
  const Fingerprint found = fingerprint(open_images(path), path);
  EXPECT_EQ(names_of(found), (std::vector<std::string>{"2.ppm 14", "1.ppm 14"}));
  put(path, "path,label\n1.ppm,a\n2.ppm,b\n");
  const Changes change = changes(found, fingerprint(open_images(path), path));
  EXPECT_TRUE(change.reordered);
  EXPECT_EQ(change.words(), "the same files in another order");
}

TEST(Fingerprint, OfIdxFilesIsThatOfTheFile) {
  const TemporaryFolder folder;
  put(folder / "train-images-idx3-ubyte", std::string("\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x01uv", 18));
  const std::string path = folder.path();
  const Fingerprint found = fingerprint(open_images(path), path);
  EXPECT_EQ(found.images, 2);
  EXPECT_EQ(names_of(found), (std::vector<std::string>{"train-images-idx3-ubyte 18"}));
  const std::string file = folder / "train-images-idx3-ubyte";
  EXPECT_EQ(fingerprint(open_images(file), file).hash(), found.hash());
}

TEST(Fingerprint, ChangesAreNamed) {
  const Fingerprint before{.path = "/a", .images = 5, .files = {{"5", 1}, {"1", 1}, {"2", 1}, {"3", 1}, {"4", 1}}};
  EXPECT_FALSE(changes(before, before).any());
  const Changes found = changes(before, {.path = "/b", .images = 4, .files = {{"0", 1}, {"2", 9}, {"a", 1}, {"3", 1}}});
  EXPECT_EQ(found.added, (std::vector<std::string>{"0", "a"}));
  EXPECT_EQ(found.removed, (std::vector<std::string>{"1", "4", "5"}));
  EXPECT_EQ(found.replaced, (std::vector<std::string>{"2"}));
  EXPECT_EQ(found.words(), "2 added (0, a), 3 removed (1, 4, 5), 1 replaced (2)");
  EXPECT_EQ(changes(before, {.path = "/b", .files = {}}).words(), "5 removed (1, 2, 3, ...)");
}

TEST(Fingerprint, ComesBackFromItsText) {
  Fingerprint before{.path = "/a\\n\nb", .images = 3, .was_changed = true, .files = {}};
  for (const std::string name : {"plain.jpg", "\\", "\\n", "a\nb", "tab\tin", "\xff\xfe", " ", "sub/a,b\"c", "\r"})
    before.files.push_back({name, static_cast<int64_t>(before.files.size()) << 40});
  const std::string text = to_text(before, "# start");
  const Fingerprint back = parse_fingerprint(text, "data.tsv");
  EXPECT_EQ(back.path, before.path);
  EXPECT_EQ(back.images, 3);
  EXPECT_TRUE(back.was_changed);
  EXPECT_EQ(names_of(back), names_of(before));
  EXPECT_EQ(back.hash(), before.hash());
  for (size_t cut = 0; cut < text.size(); ++cut)
    EXPECT_NE(complaint<Error>([&] { parse_fingerprint(text.substr(0, cut), "data.tsv"); }), "") << cut;
  for (size_t at = text.find("xxh3"); at < text.size(); ++at) {
    std::string other = text;
    other[at] = static_cast<char>(other[at] ^ 1);
    EXPECT_NE(complaint<Error>([&] { parse_fingerprint(other, "data.tsv"); }).find("data.tsv: "), std::string::npos)
        << at;
  }
}

TEST(Fingerprint, PathsAreAbsoluteHoweverTheyAreSpelled) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "d" / "e");
  fs::create_directories(folder / "other" / "x");
  fs::create_directory_symlink(folder / "other" / "x", folder / "d" / "link");
  const std::string d = folder / "d";
  for (const std::string& spelled : {d, d + "/", d + "//", d + "/.", d + "/e/..", folder.path().string() + "/./d/"})
    EXPECT_EQ(absolute_path(spelled), d) << spelled;
  EXPECT_EQ(absolute_path(d + "/link"), d + "/link");
  EXPECT_EQ(absolute_path(d + "/link/.."), fs::canonical(folder / "other").string());
  EXPECT_EQ(absolute_path("d/"), fs::current_path().string() + "/d");
  EXPECT_EQ(absolute_path("/"), "/");
}

}  // namespace
}  // namespace saccade::data
