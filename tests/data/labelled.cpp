#include <fmt/format.h>
#include <gmock/gmock.h>
#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <map>

#include "data/folders.h"
#include "data/goldens.h"

namespace saccade::data {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
namespace fs = std::filesystem;

/// A folder with images in folders of its own: {"train/cat", 5}, ...
struct Photos : TemporaryFolder {
  explicit Photos(const std::vector<std::pair<std::string, int>>& folders) {
    for (const auto& [name, count] : folders) {
      for (int i = 0; i < count; ++i)
        write(fmt::format("{}{}{}.jpg", name, name.empty() ? "" : "/", i), golden::bytes("gray.jpg"));
    }
  }
  LabelledPair pair(const std::string& test = "") const { return labelled_pair(path.string(), test); }
  /// What is said, less the folder's own name.
  std::string said(const std::string& test = "") const { return without_path(pair(test).summary); }
  std::string refused(const std::string& test = "") const {
    try {
      pair(test);
    } catch (const Error& error) {
      return without_path(error.what());
    }
    return "";
  }
  std::string without_path(std::string_view text) const {
    std::string out;
    for (size_t at; (at = text.find(path.string())) != std::string_view::npos; out += '*') {
      out += text.substr(0, at);
      text.remove_prefix(at + path.string().size());
    }
    return out.append(text);
  }
};

/// "cat 4, dog 4"
std::string classes(const Source& source) {
  std::map<std::string, int> counts;
  for (int64_t i = 0; i < source.size(); ++i) ++counts[source.class_names.at(static_cast<size_t>(source.label(i)))];
  std::string words;
  for (const auto& [name, count] : counts) words += fmt::format("{}{} {}", words.empty() ? "" : ", ", name, count);
  return words;
}

TEST(Labelled, AFolderForEachClassOfWhichEveryFifthImageJudges) {
  const Photos photos({{"cat", 5}, {"dog", 5}});
  const LabelledPair pair = photos.pair();
  EXPECT_EQ(photos.without_path(pair.summary), "*: 10 images of 2 classes (cat 5, dog 5), every fifth to judge by");
  EXPECT_EQ(classes(pair.train), "cat 4, dog 4");
  EXPECT_EQ(classes(pair.test), "cat 1, dog 1");
  EXPECT_EQ(pair.test.key(0), (photos.path / "cat/4.jpg").string());
}

TEST(Labelled, HiddenAndSystemFoldersAreNoClasses) {
  const Photos photos({{"cat", 5},
                       {"dog", 5},
                       {".ipynb_checkpoints", 1},
                       {"cat/.ipynb_checkpoints", 1},
                       {"__MACOSX/cat", 3},
                       {"cat/@eaDir", 2},
                       {"$RECYCLE.BIN", 1}});
  EXPECT_EQ(
      photos.said(),
      "*: 10 images of 2 classes (cat 5, dog 5), every fifth to judge by; passed over: 2 hidden, 1 $RECYCLE.BIN, 1 "
      "@eaDir, 1 __MACOSX");
}

TEST(Labelled, SplitsAreSaidInALine) {
  const Photos photos({{"train/cat", 5}, {"train/dog", 4}, {"valid/cat", 3}, {"valid/dog", 2}});
  const LabelledPair pair = photos.pair();
  EXPECT_EQ(
      photos.without_path(pair.summary),
      "*: train/ has 9 images of 2 classes (cat 5, dog 4) to learn from; valid/ has 5 images of 2 classes (cat 3, "
      "dog 2) to judge by");
  EXPECT_EQ(classes(pair.train), "cat 5, dog 4");
  EXPECT_EQ(classes(pair.test), "cat 3, dog 2");
}

TEST(Labelled, OfTestAndValidationImagesThoseWithLabelsJudge) {
  for (const char* unlabelled : {"test", "test/unknown", "test/images/all"}) {
    const Photos photos({{"train/cat", 5}, {"train/dog", 5}, {"val/cat", 5}, {"val/dog", 5}, {unlabelled, 10}});
    EXPECT_EQ(
        photos.said(),
        "*: train/ has 10 images of 2 classes (cat 5, dog 5) to learn from; val/ has 10 images of 2 classes (cat 5, "
        "dog 5) to judge by; test/ has no labels")
        << unlabelled;
  }
  const Photos both({{"train/cat", 2}, {"train/dog", 2}, {"val/cat", 2}, {"val/dog", 2}, {"test/cat", 1}});
  EXPECT_EQ(both.said(),
            "*: train/ has 4 images of 2 classes (cat 2, dog 2) to learn from; test/ has 1 image of 1 class (cat 1) to "
            "judge by; val/ is left out");
}

TEST(Labelled, WithoutALabelledCounterpartEveryFifthImageJudges) {
  const Photos photos({{"train/cat", 5}, {"train/dog", 5}, {"test", 7}});
  EXPECT_EQ(photos.said(),
            "*: train/ has 10 images of 2 classes (cat 5, dog 5), every fifth to judge by; test/ has no labels");
  const Photos validation({{"train", 20}, {"val/cat", 5}, {"val/dog", 5}});
  EXPECT_EQ(validation.said(),
            "*: val/ has 10 images of 2 classes (cat 5, dog 5), every fifth to judge by; train/ has no labels");
  const Photos wrapped({{"train/cat", 5}, {"train/dog", 5}});
  EXPECT_EQ(wrapped.said(), "*: train/ has 10 images of 2 classes (cat 5, dog 5), every fifth to judge by");
}

TEST(Labelled, AFolderAroundTheClassesIsLookedThrough) {
  const Photos photos({{"animals/cat", 5}, {"animals/dog", 5}});
  EXPECT_EQ(photos.said(), "*: animals/ has 10 images of 2 classes (cat 5, dog 5), every fifth to judge by");
  const Photos beside({{"", 2}, {"animals/cat", 5}, {"animals/dog", 5}});
  EXPECT_EQ(
      beside.said(),
      "*: animals/ has 10 images of 2 classes (cat 5, dog 5), every fifth to judge by; images beside these: 2 in no "
      "folder");
  const Photos splits({{"v2/train/train/cat", 5}, {"v2/train/train/dog", 5}, {"v2/test/test/dog", 5}, {"__MACOSX", 1}});
  EXPECT_EQ(
      splits.said(),
      "*: v2/train/ has 10 images of 2 classes (cat 5, dog 5) to learn from; v2/test/ has 5 images of 1 class (dog 5) "
      "to judge by; passed over: 1 __MACOSX");
}

TEST(Labelled, ImagesWithoutAClassAreLeftOutAndCounted) {
  const Photos photos({{"train", 1}, {"train/cat", 5}, {"train/dog", 5}, {"val/cat", 5}, {"unlabeled", 30}, {"", 3}});
  const LabelledPair pair = photos.pair();
  EXPECT_EQ(
      photos.without_path(pair.summary),
      "*: train/ has 10 images of 2 classes (cat 5, dog 5; 1 image in no folder of a class) to learn from; val/ has "
      "5 images of 1 class (cat 5) to judge by; images beside these: 30 in unlabeled/, 3 in no folder");
  EXPECT_EQ(pair.train.size(), 10);
  // Those count where labels are not asked for.
  EXPECT_EQ(open_images(photos.path.string()).size(), 1 + 5 + 5 + 5 + 30 + 3);
}

TEST(Labelled, ASingleClassIsRefused) {
  EXPECT_THAT(Photos({{"cat", 5}}).refused(),
              StartsWith("*: all images that have a label are of one class, cat: there is nothing to tell apart"));
  EXPECT_THAT(Photos({{"train/cat", 5}, {"test/cat", 5}}).refused(), HasSubstr("are of one class, cat"));
  EXPECT_THAT(Photos({{"", 5}}).refused(), StartsWith("*: there are no labels to evaluate with"));
  EXPECT_THAT(Photos({{"train", 5}, {"test", 5}}).refused(), StartsWith("*: there are no labels in test/, train/"));
}

TEST(Labelled, ATableBesideImagesIsPointedAt) {
  const Photos photos({{"", 5}});
  photos.write("train.csv", {});
  EXPECT_THAT(photos.refused(), HasSubstr("or give the table of paths and labels: */train.csv"));
}

TEST(Labelled, ClassesOfTwoFoldersAreNumberedAlike) {
  const Photos train({{"ant", 2}, {"bee", 2}, {"cat", 2}}), test({{"bee", 2}, {"cat", 1}});
  const LabelledPair pair = train.pair(test.path.string());
  EXPECT_EQ(pair.train.class_names, pair.test.class_names);
  EXPECT_EQ(pair.test.labels, (std::vector<int>{1, 1, 2}));
  EXPECT_THAT(train.without_path(pair.summary),
              StartsWith("*: 6 images of 3 classes (ant 2, bee 2, cat 2) to learn from; "));
  EXPECT_THAT(test.without_path(pair.summary), HasSubstr("; *: 3 images of 2 classes (bee 2, cat 1) to judge by"));

  EXPECT_THAT(test.refused(train.path.string()), HasSubstr("class ant does not occur in *"));
  const Photos flat({{"", 3}});
  EXPECT_THAT(flat.without_path(train.refused(flat.path.string())), StartsWith("*: there are no labels"));
}

TEST(Labelled, ATestFolderOfOneClassWithFoldersInItIsThatClass) {
  const Photos photos({{"train/cat", 3}, {"train/dog", 3}, {"test/cat/2019", 1}, {"test/cat/2020", 1}});
  EXPECT_EQ(classes(photos.pair().test), "cat 2");
}

TEST(Labelled, WhatIsJudgedIsNotWhatIsLearnedFrom) {
  const Photos photos({{"a/cat", 3}, {"a/dog", 3}, {"b", 0}});
  const std::string other = (photos.path / "b").string();
  fs::create_directory_symlink(photos.path / "a", other);
  const std::string a = (photos.path / "a").string();
  for (const std::string& same : {a, a + "/", (photos.path / "a/../a").string(), other}) {
    try {
      labelled_pair(a, same);
      ADD_FAILURE() << same;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("all images to be judged by are among those to learn from")) << same;
    }
  }
  // Some of them only: it is said.
  photos.write("c/cat/new.jpg", golden::bytes("gray.jpg"));
  fs::create_symlink(photos.path / "a/dog/1.jpg", [&] {
    fs::create_directory(photos.path / "c/dog");
    return photos.path / "c/dog/old.jpg";
  }());
  EXPECT_THAT(labelled_pair(a, (photos.path / "c").string()).summary, HasSubstr("1 of which are among those to learn"));
}

TEST(Labelled, LinkedFoldersAreSplitsOfTheirOwn) {
  const Photos store({{"cat", 4}, {"dog", 4}, {"later/cat", 2}, {"later/dog", 2}});
  const TemporaryFolder set;
  fs::create_directory(set.path / "train");
  fs::create_directory_symlink(store.path / "cat", set.path / "train/cat");
  fs::create_directory_symlink(store.path / "dog", set.path / "train/dog");
  fs::create_directory_symlink(store.path / "later", set.path / "test");
  const LabelledPair pair = labelled_pair(set.path.string(), "");
  EXPECT_EQ(classes(pair.train), "cat 4, dog 4");
  EXPECT_EQ(classes(pair.test), "cat 2, dog 2");
}

TEST(Labelled, ManyClassesAreSaidInALineOfBoundedLength) {
  std::vector<std::pair<std::string, int>> folders;
  for (int i = 0; i < 100; ++i) folders.emplace_back(fmt::format("n{}", 100 + i), 2);
  EXPECT_EQ(
      Photos(folders).said(),
      "*: 200 images of 100 classes (n100 2, n101 2, n102 2, n103 2, n104 2, n105 2, n106 2, n107 2 and 92 others), "
      "every fifth to judge by");
}

TEST(Labelled, TooFewImagesToHoldSomeOutAreRefused) {
  EXPECT_THAT(Photos({{"cat", 2}, {"dog", 2}}).refused(), HasSubstr("too few labelled images to hold some out"));
}

TEST(OpenImages, AllImagesBelowCountWhateverTheFoldersAreCalled) {
  const Photos photos({{"train/cat", 5}, {"train/dog", 5}, {"val/cat", 5}, {"val/dog", 5}, {"unlabeled", 30}});
  const Source source = open_images(photos.path.string());
  EXPECT_EQ(source.size(), 50);
  EXPECT_EQ(photos.without_path(source.summary), "*: 50 images (50 .jpg)");
  EXPECT_EQ(source.class_names, (std::vector<std::string>{"cat", "dog"}));
  EXPECT_EQ(std::count(source.labels.begin(), source.labels.end(), -1), 30);
}

TEST(OpenImages, AFileThatIsNoSourceIsASentence) {
  const Photos photos({{"", 1}});
  const auto refused = [&](const std::string& name) {
    try {
      open_images((photos.path / name).string());
    } catch (const Error& error) {
      return photos.without_path(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refused("none"), "*/none: there is no such folder or file");
  EXPECT_EQ(refused("0.jpg"), "*/0.jpg: is a single image: give the folder it lies in");
  const std::string zip = "PK\3\4 and what is in it";
  photos.write("photos.zip", {reinterpret_cast<const uint8_t*>(zip.data()), zip.size()});
  EXPECT_EQ(refused("photos.zip"), "*/photos.zip: is an archive or compressed file, which is not read: unpack it");
  photos.write("empty", {});
  EXPECT_THAT(refused("empty"), testing::EndsWith("is empty"));
}

}  // namespace
}  // namespace saccade::data
