#include <fmt/format.h>
#include <gmock/gmock.h>
#include <saccade/data/layout.h>

#include <algorithm>

namespace saccade::data {
namespace {

using testing::ElementsAre;

TEST(SplitName, OfAnyCaseIsItsRole) {
  for (const auto& [role, names] : std::vector<std::pair<Role, std::vector<const char*>>>{
           {Role::train, {"train", "training", "Train", "TRAINING"}},
           {Role::val, {"val", "valid", "validation", "dev", "Val", "VALID", "Validation", "Dev"}},
           {Role::test, {"test", "testing", "Test", "TESTING"}}}) {
    for (const char* name : names) {
      const auto split = split_name(name);
      ASSERT_TRUE(split) << name;
      EXPECT_EQ(split->role, role) << name;
      EXPECT_TRUE(split->exact) << name;
    }
  }
}

TEST(SplitName, MayBeAWordOfALongerName) {
  for (const auto& [name, role, rest] : {std::tuple{"training_set", Role::train, "*_set"},
                                         {"Test-Images", Role::test, "*-images"},
                                         {"val2017", Role::val, "*2017"},
                                         {"seg_train", Role::train, "seg_*"},
                                         {"train (1)", Role::train, "* (1)"}}) {
    const auto split = split_name(name);
    ASSERT_TRUE(split) << name;
    EXPECT_EQ(split->role, role) << name;
    EXPECT_FALSE(split->exact) << name;
    EXPECT_EQ(split->rest, rest);
  }
  for (const char* name : {"", "cat", "trains", "strain", "value", "valley", "devil", "contest", "tester", "latest"})
    EXPECT_FALSE(split_name(name)) << name;
}

/// Folders with an image in each, as a listing would have them.
struct Tree {
  explicit Tree(std::vector<std::string> folders) {
    std::sort(folders.begin(), folders.end());
    listing.folders = folders;
    for (size_t i = 0; i < folders.size(); ++i)
      listing.images.push_back(
          {.folder = static_cast<int32_t>(i), .kind = 0, .linked = false, .dev = 0, .ino = i, .name = "1.jpg"});
  }
  Layout layout() const { return layout_of(tree()); }
  FolderTree tree() const { return {listing, listing.images}; }
  /// "train: 1, val: 2" with the folders' numbers of images, and what is beside them.
  std::string words() const {
    const Layout found = layout();
    std::string words;
    for (const auto& part : found.parts) {
      const char* role = part.role == Role::train  ? "train"
                         : part.role == Role::val  ? "val"
                         : part.role == Role::test ? "test"
                                                   : "whole";
      words += fmt::format("{}{}={}", words.empty() ? "" : " ", role, class_folder(tree(), part.folder));
    }
    for (const std::string& folder : found.others) words += " beside=" + folder;
    return words;
  }
  Listing listing;
};

std::string layout(std::vector<std::string> folders) { return Tree(std::move(folders)).words(); }

TEST(Layout, FoldersOfSplitNamesAreSplits) {
  EXPECT_EQ(layout({"train/cat", "train/dog", "valid/cat", "valid/dog"}), "train=train val=valid");
  EXPECT_EQ(layout({"Train/cat", "TEST/cat", "Train/dog"}), "test=TEST train=Train");
  EXPECT_EQ(layout({"dev/a", "dev/b", "training/a", "training/b", "testing/b"}), "val=dev test=testing train=training");
  EXPECT_EQ(layout({"train/cat", "train/dog", "test"}), "test=test train=train") << "one may be without labels";
  EXPECT_EQ(layout({"train", "val/cat", "val/dog"}), "train=train val=val");
  EXPECT_EQ(layout({"val/cat", "val/dog", "test/cat"}), "test=test val=val") << "none to train with";
  EXPECT_EQ(layout({"", "train/cat", "train/dog", "val/cat"}), "train=train val=val") << "an image beside them";
}

TEST(Layout, SplitsOfOneMannerBelongTogether) {
  EXPECT_EQ(layout({"training_set/cats", "training_set/dogs", "test_set/cats"}), "test=test_set train=training_set");
  EXPECT_EQ(layout({"train2017", "val2017"}), "train=train2017 val=val2017");
  EXPECT_EQ(layout({"seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_pred/seg_pred"}),
            "test=seg_test/seg_test train=seg_train/seg_train beside=seg_pred");
  EXPECT_EQ(layout({"training_set/a", "training_set/b", "validation"}), "train=training_set val=validation");
  EXPECT_EQ(layout({"train_station", "test_tube"}), "whole=") << "these are classes";
  EXPECT_EQ(layout({"steam train", "bus", "model train"}), "whole=");
}

TEST(Layout, WhatIsBesideSplitsIsNamed) {
  EXPECT_EQ(layout({"train/a", "train/b", "unlabeled", "val/a"}), "train=train val=val beside=unlabeled");
  EXPECT_EQ(layout({"train/a", "train/b", "unlabeled"}), "train=train beside=unlabeled");
  EXPECT_EQ(layout({"train/a", "train/b", "unlabeled/1", "unlabeled/2"}), "train=train beside=unlabeled");
  EXPECT_EQ(layout({"Validation/a", "Validation/b", "extra/a", "extra/b"}), "val=Validation beside=extra");
  EXPECT_EQ(layout({"val/a", "val/b", "test"}), "test=test val=val");
}

TEST(Layout, AClassMayBeCalledAsASplit) {
  EXPECT_EQ(layout({"train", "bus", "car"}), "whole=");
  EXPECT_EQ(layout({"test", "control"}), "whole=");
  EXPECT_EQ(layout({"train/steam", "car/small", "car/large"}), "whole=");
}

TEST(Layout, FoldersAroundTheRestAreLookedThrough) {
  EXPECT_EQ(layout({"animals/cat", "animals/dog"}), "whole=animals");
  EXPECT_EQ(layout({"a/b/c/cat", "a/b/c/dog/deep"}), "whole=a/b/c");
  EXPECT_EQ(layout({"", "animals/cat", "animals/dog"}), "whole=animals") << "an image lies beside the folder";
  EXPECT_EQ(layout({"data/train/cat", "data/train/dog", "data/val/cat"}), "train=data/train val=data/val");
  EXPECT_EQ(layout({"train/cat", "train/dog"}), "whole=train") << "alone, it is but a folder";
  EXPECT_EQ(layout({"train/images/cat", "train/images/dog", "test/images/cat", "test/images/dog"}),
            "test=test/images train=train/images");
  EXPECT_EQ(layout({"cat"}), "whole=") << "a folder with images alone is a class";
  EXPECT_EQ(layout({"cat", "dog"}), "whole=");
  EXPECT_EQ(layout({""}), "whole=");
  EXPECT_EQ(layout({}), "whole=");
}

TEST(Layout, AKnownClassIsNotLookedThrough) {
  const FolderTree tree = Tree({"test/cat/2019", "test/cat/2020"}).tree();
  EXPECT_EQ(class_folder(tree, "test"), "test/cat");
  EXPECT_EQ(class_folder(tree, "test", std::vector<std::string>{"cat", "dog"}), "test");
}

TEST(FolderTree, CountsWhatLiesBelow) {
  const FolderTree tree = Tree({"", "a", "a/b", "a-", "a/b/c", "ab"}).tree();
  EXPECT_THAT(tree.below(""), ElementsAre("a", "a-", "ab"));
  EXPECT_THAT(tree.below("a"), ElementsAre("b"));
  EXPECT_THAT(tree.below("a/b/c"), ElementsAre());
  EXPECT_EQ(tree.count_below(""), 6);
  EXPECT_EQ(tree.count_below("a"), 3);
  EXPECT_EQ(tree.count_below("a/b/c"), 1);
  EXPECT_EQ(tree.count_below("none"), 0);
}

}  // namespace
}  // namespace saccade::data
