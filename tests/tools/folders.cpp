#include <fmt/format.h>
#include <gmock/gmock.h>
#include <saccade/core/io/npy.h>
#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "programs.h"

/// @file
/// The programs on folders as people have them: what each makes of its files, and the line in which it says so.
namespace saccade::test {
namespace {

using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

void put_photo(const fs::path& path, const std::string& photo = "base.jpg") {
  fs::create_directories(path.parent_path());
  put(path, content_of(fs::path(SACCADE_GOLDENS) / "augment" / photo));
}

class Folders : public testing::Test {
 protected:
  /// A trained network, made once.
  static void SetUpTestSuite() {
    shared = std::make_unique<TemporaryFolder>();
    make_photos(*shared / "photos", 4);
    ASSERT_EQ(train(*shared / "photos", *shared / "run").status, 0);
  }
  static void TearDownTestSuite() { shared.reset(); }

  static Outcome train(const fs::path& data, const fs::path& to, const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags{"--data", data, "--run", to, "--trunk", "y:d=2,w0=8,wa=8,wm=2,g=8,stem_width=8"};
    for (const char* flag : {"--crops", "2x24", "--batch", "4", "--epochs", "1", "--hidden", "16", "--dim", "8"})
      flags.emplace_back(flag);
    flags.insert(flags.end(), more.begin(), more.end());
    return run("pretrain", flags);
  }
  /// Photos of a cat and a dog, five of each, in folders of those names below `within`.
  void five_cats_five_dogs(const fs::path& within) const {
    for (int i = 0; i < 5; ++i) {
      put_photo(data() / within / "cat" / fmt::format("{}.jpg", i));
      put_photo(data() / within / "dog" / fmt::format("{}.jpg", i), "progressive.jpg");
    }
  }
  fs::path data() const { return folder / "data"; }
  /// saccade-eval succeeds and says `words` of this data.
  void expect_judged(const fs::path& labelled, const std::string& words) const {
    const Outcome judged = run("eval", {"--weights", *shared / "run", "--train", labelled, "--knn", "3,0.07"});
    EXPECT_EQ(judged.status, 0) << judged.err;
    EXPECT_THAT(judged.out, HasSubstr(fmt::format("{}: {}\n", labelled.string(), words)));
    EXPECT_THAT(judged.out, HasSubstr("kNN, k = 3"));
    // The same is said by a training that is watched by this data.
    const Outcome watched = train(*shared / "photos", folder / "watched", {"--knn-data", labelled, "--knn-every", "1"});
    EXPECT_EQ(watched.status, 0) << watched.err;
    EXPECT_THAT(watched.out, HasSubstr(fmt::format("kNN: {}: {}\n", labelled.string(), words)));
    fs::remove_all(folder / "watched");
  }
  void expect_refused(const fs::path& labelled, const std::string& words) const {
    const Outcome judged = run("eval", {"--weights", *shared / "run", "--train", labelled});
    EXPECT_EQ(judged.status, 1) << judged.out;
    EXPECT_THAT(judged.err, HasSubstr(words));
    const Outcome watched = train(*shared / "photos", folder / "watched", {"--knn-data", labelled});
    EXPECT_EQ(watched.status, 1) << watched.out;
    EXPECT_THAT(watched.err, HasSubstr(words));
    EXPECT_FALSE(fs::exists(folder / "watched")) << "nothing is made of a run that cannot be";
  }
  /// saccade-pretrain and saccade-embed take that many images and say `words` of them.
  Tensor expect_taken(const fs::path& images, int64_t count, const std::string& words) const {
    const Outcome trained = train(images, folder / "trained");
    EXPECT_EQ(trained.status, 0) << trained.err;
    EXPECT_THAT(trained.out, HasSubstr(fmt::format("{}: {}\n", images.string(), words)));
    EXPECT_THAT(trained.out, HasSubstr(fmt::format("\n{} images, ", count)));
    EXPECT_TRUE(fs::exists(folder / "trained" / "trunk.safetensors"));
    fs::remove_all(folder / "trained");
    return expect_embedded(images, count, words);
  }
  Tensor expect_embedded(const fs::path& images, int64_t count, const std::string& words) const {
    const Outcome embedded = run("embed", {"--weights", *shared / "run", "--data", images, "--out", folder / "f.npy"});
    EXPECT_EQ(embedded.status, 0) << embedded.err;
    EXPECT_THAT(embedded.out, HasSubstr(fmt::format("{}: {}\n", images.string(), words)));
    if (embedded.status != 0) return {};
    const std::string rows = content_of(folder / "f.csv");
    EXPECT_EQ(std::count(rows.begin(), rows.end(), '\n'), count + 1);
    const Tensor features = io::read_npy(folder / "f.npy");
    EXPECT_EQ(features.dim(0), count);
    fs::remove(folder / "f.npy");
    fs::rename(folder / "f.csv", folder / "last.csv");
    return features;
  }

  static std::unique_ptr<TemporaryFolder> shared;
  TemporaryFolder folder;
};
std::unique_ptr<TemporaryFolder> Folders::shared;

const std::string kTwoClasses = "10 images of 2 classes (cat 5, dog 5)";

TEST_F(Folders, OfNotebooksHaveHiddenCopiesThatArePassedOver) {
  five_cats_five_dogs(".");
  put_photo(data() / ".ipynb_checkpoints" / "1-checkpoint.jpg");
  put_photo(data() / "cat" / ".ipynb_checkpoints" / "2-checkpoint.jpg");
  expect_judged(data(), kTwoClasses + ", every fifth to judge by; passed over: 2 hidden");
  expect_taken(data(), 10, "10 images (10 .jpg); passed over: 2 hidden");
}

TEST_F(Folders, FromAMacHaveShadowsThatArePassedOver) {
  for (int i = 0; i < 12; ++i) {
    put_photo(data() / "photos" / fmt::format("{}.jpg", i));
    fs::create_directories(data() / "__MACOSX" / "photos");
    const std::string shadow = std::string("\0\5\x16\7\0\2\0\0Mac OS X        ", 24) + std::string(60, '\0');
    for (int j = 0; j < 10; ++j) put(data() / "__MACOSX" / "photos" / fmt::format("._{}.jpg", 10 * i + j), shadow);
    put(data() / "photos" / fmt::format("._{}.jpg", i), shadow);
  }
  expect_taken(data(), 12, "12 images (12 .jpg); passed over: 12 hidden, 1 __MACOSX");
}

TEST_F(Folders, OfSplitsAreSplitsAndAllImagesToThoseWhoAskForNoLabels) {
  five_cats_five_dogs("train");
  five_cats_five_dogs("valid");
  const std::string judged = "train/ has " + kTwoClasses + " to learn from; valid/ has " + kTwoClasses + " to judge by";
  expect_judged(data(), judged);
  expect_taken(data(), 20, "20 images (20 .jpg)");

  for (int i = 0; i < 30; ++i) put_photo(data() / "unlabeled" / fmt::format("{}.jpg", i));
  expect_judged(data(), judged + "; images beside these: 30 in unlabeled/");
  expect_taken(data(), 50, "50 images (50 .jpg)");
  const std::string rows = content_of(folder / "last.csv");
  EXPECT_THAT(rows, HasSubstr(",cat\n"));
  EXPECT_THAT(rows, HasSubstr("unlabeled/0.jpg,\n"));
  EXPECT_THAT(rows, Not(HasSubstr(",train\n")));
}

TEST_F(Folders, WhoseTestImagesHaveNoLabelsAreJudgedByTheValidationImages) {
  five_cats_five_dogs("Train");
  five_cats_five_dogs("Validation");
  for (int i = 0; i < 10; ++i) put_photo(data() / "Test" / fmt::format("{}.jpg", i));
  expect_judged(data(), "Train/ has " + kTwoClasses + " to learn from; Validation/ has " + kTwoClasses +
                            " to judge by; Test/ has no labels");
  expect_taken(data(), 30, "30 images (30 .jpg)");
}

TEST_F(Folders, AroundOthersAreLookedThrough) {
  five_cats_five_dogs("animals");
  expect_judged(data(), "animals/ has " + kTwoClasses + ", every fifth to judge by");
  expect_judged(data() / "animals", kTwoClasses + ", every fifth to judge by");
  expect_taken(data(), 10, "10 images (10 .jpg)");
}

TEST_F(Folders, OfASingleClassAreRefused) {
  for (int i = 0; i < 10; ++i) put_photo(data() / "cat" / fmt::format("{}.jpg", i));
  expect_refused(data(), "are of one class, cat: there is nothing to tell apart");
  expect_refused(data() / "cat", "there are no labels to evaluate with");
  expect_taken(data(), 10, "10 images (10 .jpg)");
}

TEST_F(Folders, OfFilesWithAnyExtensionsGiveTheirImagesAndTheirCounts) {
  for (const char* name : {"a.jpg", "b.jfif", "c.jpe", "noextension", "d.JPG_large"}) put_photo(data() / name);
  put_photo(data() / "e.dib", "gray.bmp");
  put_photo(data() / "f.pnm", "gray.pgm");
  put(data() / "g.nef", std::string("II*\0\x08\0\0\0", 8) + std::string(40, '\0'));
  put(data() / "h.avif", std::string("\0\0\0\x1c", 4) + "ftypavif" + std::string(40, '\0'));
  for (const char* name : {"1.mov", "2.mov", "notes.txt", ".DS_Store", "Thumbs.db"}) put(data() / name, "content");
  expect_taken(
      data(), 7,
      "7 images (1 .dib, 1 .jfif, 1 .jpe, 1 .jpg, 1 .jpg_large (JPEG), 1 .pnm, 1 JPEG); passed over: 2 "
      ".mov, 1 .txt, 1 Thumbs.db, 1 hidden; of formats that are not read (convert them to JPEG or PNG): 1 .avif "
      "(AVIF), 1 .nef (camera raw)");
}

TEST_F(Folders, OfOddNamesAreTakenByThem) {
  for (const char* name : {"#1 best/a.jpg", "it's/\"b\".jpg", "new\nline/c.jpg", "caf\xe9/d.jpg", "e,f.jpg"})
    put_photo(data() / name);
  expect_taken(data(), 5, "5 images (5 .jpg)");
  const std::string rows = content_of(folder / "last.csv");
  EXPECT_THAT(rows, HasSubstr("caf\\xe9/d.jpg"));
  EXPECT_THAT(rows, HasSubstr("new\\x0aline/c.jpg"));
  EXPECT_THAT(rows, HasSubstr("e,f.jpg\""));
}

std::string idx(int count, const std::vector<int>& extents, const std::function<int(int)>& value) {
  std::string bytes("\0\0\x08", 3);
  bytes += static_cast<char>(1 + extents.size());
  bytes += std::string(3, '\0') + static_cast<char>(count);
  int size = count;
  for (const int extent : extents) {
    bytes += std::string(3, '\0') + static_cast<char>(extent);
    size *= extent;
  }
  for (int i = 0; i < size; ++i) bytes += static_cast<char>(value(i));
  return bytes;
}

TEST_F(Folders, OfIdxFilesAreReadWhateverTheirNamesByColourNetworksToo) {
  fs::create_directories(data());
  for (const char* split : {"train", "t10k"}) {
    put(data() / fmt::format("{}-images.idx3-ubyte", split), idx(20, {8, 8}, [](int i) { return i * 7 % 251; }));
    put(data() / fmt::format("{}-labels.idx1-ubyte", split), idx(20, {}, [](int i) { return i % 2; }));
  }
  const std::string classes = "20 images of 2 classes (0 10, 1 10)";
  expect_judged(data(), "train-images.idx3-ubyte has " + classes + " to learn from; t10k-images.idx3-ubyte has " +
                            classes + " to judge by; gray images as three equal channels");
  const std::string left_out =
      "; left out: the 20 of t10k-images.idx3-ubyte, which are to judge by (give that file to take them)";
  const Outcome embedded = run("embed", {"--weights", *shared / "run", "--data", data(), "--out", folder / "f.npy"});
  EXPECT_EQ(embedded.status, 0) << embedded.err;
  EXPECT_THAT(embedded.out, HasSubstr("20 gray images of 8 x 8 pixels, as three equal channels" + left_out));
  EXPECT_EQ(io::read_npy(folder / "f.npy").dim(0), 20);
  const Outcome trained = train(data(), folder / "gray");
  EXPECT_EQ(trained.status, 0) << trained.err;
  EXPECT_THAT(trained.out, HasSubstr("20 gray images of 8 x 8 pixels" + left_out));
  EXPECT_THAT(content_of(folder / "gray" / "config.toml"), HasSubstr("in=1")) << "a network of one channel";
}

TEST_F(Folders, ListedInATableHaveItsLabels) {
  std::string table = "file;kind\n";
  for (int i = 0; i < 10; ++i) {
    put_photo(data() / "all" / fmt::format("{}.jpg", i), i % 2 == 0 ? "base.jpg" : "progressive.jpg");
    table += fmt::format("all/{}.jpg;{}\n", i, i % 2 == 0 ? "cat" : "dog");
  }
  put(data() / "labels.csv", table);
  const std::string columns = "paths from column 1, file, classes from column 2, kind";
  expect_judged(data() / "labels.csv", kTwoClasses + ", every fifth to judge by; " + columns);
  expect_taken(data() / "labels.csv", 10, "10 images, " + columns);
  expect_refused(data(), "give the table of paths and labels: " + (data() / "labels.csv").string());
  put(data() / "labels.csv", table + "all/gone.jpg;dog\n");
  expect_refused(data() / "labels.csv", "labels.csv, line 12: there is no file all/gone.jpg");
}

TEST_F(Folders, WithOnesThatMayNotBeListedStillGiveTheRest) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can be another user";
  five_cats_five_dogs(".");
  put_photo(data() / "closed" / "1.jpg");
  const auto permit = [](const fs::path& path, int mode) { fs::permissions(path, static_cast<fs::perms>(mode)); };
  permit(folder.path(), 0777);
  permit(data() / "closed", 0);
  for (const fs::path& path : {shared->path(), *shared / "run"}) permit(path, 0755);
  ASSERT_EQ(seteuid(65534), 0);
  if (access(SACCADE_BIN, X_OK) != 0 || run("embed", {"--help"}).status != 0) {
    ASSERT_EQ(seteuid(0), 0);
    GTEST_SKIP() << "another user may not run the programs";
  }
  expect_taken(data(), 10, "10 images (10 .jpg); folders that cannot be listed: closed (Permission denied)");
  expect_judged(data(), kTwoClasses +
                            ", every fifth to judge by; folders that cannot be listed: closed (Permission "
                            "denied)");
  ASSERT_EQ(seteuid(0), 0);
  permit(data() / "closed", 0700);
}

}  // namespace
}  // namespace saccade::test
