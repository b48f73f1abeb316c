#include <fmt/format.h>
#include <gmock/gmock.h>
#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include <random>

#include "data/folders.h"
#include "data/goldens.h"

namespace saccade::data {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

std::string header(const std::vector<int>& extents) {
  std::string bytes("\0\0\x08", 3);
  bytes += static_cast<char>(extents.size());
  for (const int extent : extents)
    for (const int shift : {24, 16, 8, 0}) bytes += static_cast<char>(extent >> shift);
  return bytes;
}
/// `count` images of 4 x 4 pixels, all of a value, image after image.
std::string images(int count, char value = 7) {
  return header({count, 4, 4}) + std::string(static_cast<size_t>(count) * 16, value);
}
/// Classes 0, 1, 2, 0, ...
std::string labels(int count) {
  std::string bytes = header({count});
  for (int i = 0; i < count; ++i) bytes += static_cast<char>(i % 3);
  return bytes;
}

class IdxFolder : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& bytes) const {
    return folder.write(name, {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
  }
  std::string compress(const std::string& name, const std::string& bytes) const {
    std::string path = write(name, "");
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    return path;
  }
  std::string path() const { return folder.path.string(); }
  std::string without_path(std::string_view text) const {
    std::string out;
    for (size_t at; (at = text.find(path())) != std::string_view::npos; out += '*') {
      out += text.substr(0, at);
      text.remove_prefix(at + path().size());
    }
    return out.append(text);
  }
  std::string refused() const {
    try {
      open_images(path());
    } catch (const Error& error) {
      return without_path(error.what());
    }
    return "";
  }
  /// Six to train with and three to test with are found, with labels.
  void expect_six_and_three() const {
    const Source source = open_images(path());
    EXPECT_EQ(source.size(), 6);
    EXPECT_EQ(source.num_classes(), 3);
    const LabelledPair pair = labelled_pair(path(), "");
    EXPECT_EQ(pair.train.labels, (std::vector<int>{0, 1, 2, 0, 1, 2}));
    EXPECT_EQ(pair.test.labels, (std::vector<int>{0, 1, 2}));
    EXPECT_THAT(pair.summary, HasSubstr("6 images of 3 classes (0 2, 1 2, 2 2) to learn from; "));
    EXPECT_THAT(pair.summary, HasSubstr("3 images of 3 classes (0 1, 1 1, 2 1) to judge by"));
  }
  const TemporaryFolder folder;
};

TEST_F(IdxFolder, FilesAreFoundByContentWhateverTheirNames) {
  for (const auto& names : std::vector<std::vector<std::string>>{
           {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"},
           {"train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"},
           {"raw/train images", "raw/train labels", "raw/test images", "raw/test labels"},
           {"emnist-train-images.bin", "emnist-train-labels.bin", "emnist-test-images.bin", "emnist-test-labels.bin"},
           {"test/images", "test/labels", "val/images", "val/labels"},  // in folders' names, the first learned from
           {"a", "b", "c", "d"}}) {
    const bool by_folder = names[0].starts_with("test/");
    write(by_folder ? "train/images" : names[0], images(6));
    write(by_folder ? "train/labels" : names[1], labels(6));
    write(names[2], images(3));
    write(names[3], labels(3));
    SCOPED_TRACE(names[0]);
    expect_six_and_three();
    for (const auto& entry : std::filesystem::directory_iterator(folder.path)) std::filesystem::remove_all(entry);
  }
}

TEST_F(IdxFolder, CompressedFilesAreReadAndTheirPlainTwinsTakenInstead) {
  compress("train-images-idx3-ubyte.gz", images(6));
  compress("train-labels-idx1-ubyte.gz", labels(6));
  compress("t10k-images.gz", images(3));
  compress("t10k-labels.gz", labels(3));
  expect_six_and_three();
  write("train-images-idx3-ubyte", images(6, 9));
  expect_six_and_three();
  Image image;
  open_images(path()).read(5, 0, image);
  EXPECT_EQ(image.pixels[0], 9);
}

TEST_F(IdxFolder, CompressedFilesOfAnySizeAreReadWhole) {
  std::mt19937 random(3);
  for (const int count : {100, 300, 1000, 20000}) {  // about as many times 16 bytes, for noise cannot be compressed
    std::string noise = header({count, 4, 4});
    for (int i = 0; i < count * 16; ++i) noise += static_cast<char>(random());
    const Source source = idx(compress("noise.gz", noise));
    ASSERT_EQ(source.size(), count);
    Image image;
    source.read(count - 1, 0, image);
    EXPECT_EQ(image.pixels[15], static_cast<uint8_t>(noise.back())) << count;
  }
}

TEST_F(IdxFolder, FoldersOfTheSplitsTellFilesOfOneNameApart) {
  for (const auto& [split, count] : {std::pair{"Training", 3}, std::pair{"testing", 6}}) {
    write(fmt::format("{}/images.idx", split), images(count));
    write(fmt::format("{}/labels.idx", split), labels(count));
  }
  const LabelledPair pair = labelled_pair(path(), "");
  EXPECT_EQ(pair.train.size(), 3) << "though the other is larger";
  EXPECT_EQ(pair.test.size(), 6);
  EXPECT_EQ(open_images(path()).size(), 3);
}

TEST_F(IdxFolder, ALineSaysWhatWasTaken) {
  write("train-images", images(6));
  write("t10k-images", images(3));
  write("readme.txt", "text");
  write("LICENSE", "text");
  EXPECT_EQ(
      without_path(open_images(path(), {.channels = 0}).summary),
      "*/train-images: 6 gray images of 4 x 4 pixels; left out: the 3 of t10k-images, which are to judge by (give "
      "that file to take them); passed over: 1 .txt, 1 without an extension");
  EXPECT_THAT(open_images(path() + "/t10k-images").summary, HasSubstr("t10k-images: 3 gray images"));
}

TEST_F(IdxFolder, GrayImagesAreThreeEqualChannelsToAColourNetwork) {
  std::string bytes = images(6);
  for (size_t i = 16; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i);
  write("images", bytes);
  write("labels", labels(6));
  const Source gray = open_images(path(), {.channels = 0}), colour = open_images(path(), {.channels = 3});
  EXPECT_EQ(gray.channels, 1);
  EXPECT_EQ(colour.channels, 3);
  EXPECT_THAT(colour.summary, HasSubstr("6 gray images of 4 x 4 pixels, as three equal channels"));
  Image one, three;
  for (int64_t i = 0; i < 6; ++i) {
    gray.read(i, 0, one);
    colour.read(i, 0, three);
    ASSERT_EQ(three.pixels.size(), 48);
    for (size_t at = 0; at < 48; ++at) EXPECT_EQ(three.pixels[at], one.pixels[at / 3]);
  }
  EXPECT_THAT(labelled_pair(path(), "", {.channels = 3}).summary, HasSubstr("gray images as three equal channels"));
  EXPECT_EQ(labelled_pair(path(), "", {.channels = 3}).train.channels, 3);
}

TEST_F(IdxFolder, ImagesMayHaveAChannelOfTheirOwn) {
  const Source gray = open_images(write("gray", header({5, 2, 3, 1}) + std::string(30, '\5')), {.channels = 0});
  EXPECT_EQ(gray.channels, 1);
  EXPECT_EQ(gray.size(), 5);
  const Source colour = open_images(write("colour", header({5, 2, 3, 3}) + std::string(90, '\5')), {.channels = 0});
  EXPECT_EQ(colour.channels, 3);
}

TEST_F(IdxFolder, AFileIsGivenWithTheLabelsBesideIt) {
  const std::string train = write("digits.bin", images(6)), test = write("later.bin", images(3));
  write("digits-classes.bin", labels(6));
  compress("later-classes.gz", labels(3));
  write("other.txt", "text");
  EXPECT_EQ(open_images(train).labels, (std::vector<int>{0, 1, 2, 0, 1, 2}));
  EXPECT_EQ(labelled_pair(train, test).test.labels, (std::vector<int>{0, 1, 2}));
}

TEST_F(IdxFolder, OfImagesInFilesAndInIdxFilesTheMoreAreTaken) {
  write("train-images.idx3-ubyte", images(6));
  folder.write("preview.png", golden::bytes("gray8.png"));
  EXPECT_EQ(open_images(path()).size(), 6);
  EXPECT_THAT(open_images(path()).summary, EndsWith("; passed over: 1 .png"));
  for (int i = 0; i < 7; ++i) folder.write(fmt::format("{}/{}.jpg", i < 4 ? "a" : "b", i), golden::bytes("gray.jpg"));
  EXPECT_EQ(open_images(path()).size(), 8);
  EXPECT_THAT(labelled_pair(path(), "").summary, HasSubstr("2 classes (a 4, b 3; 1 image in no folder of a class)"));
  EXPECT_THAT(labelled_pair(path(), "").summary, EndsWith("passed over: 1 IDX"));
  EXPECT_THAT(open_images(path()).summary, EndsWith("8 images (7 .jpg, 1 .png); passed over: 1 IDX"));
}

TEST_F(IdxFolder, WhatCannotBeOpenedIsASentence) {
  write("a-images", images(6));
  write("b-images", images(6));
  write("c-images", images(6));
  EXPECT_EQ(
      refused(),
      "*: there are several sets of IDX images (a-images, b-images, c-images): give the file of one, or a folder of "
      "its own");
  EXPECT_EQ(open_images(path() + "/b-images").size(), 6);
  for (const char* name : {"b-images", "c-images"}) std::filesystem::remove(folder.path / name);
  write("a-images", images(6).substr(0, 50));
  EXPECT_EQ(refused(), "*/a-images: the header says 96 values, the file has 34");
  std::filesystem::remove(folder.path / "a-images");
  write("labels", labels(6));
  EXPECT_EQ(refused(), "*/labels: expected images of (N, H, W) or (N, H, W, 1 or 3), got extents (6)");
  write("labels", std::string("\0\0\x0d\3", 4) + header({6, 4, 4}).substr(4) + std::string(384, '\1'));
  EXPECT_EQ(refused(), "*/labels: IDX type 0xd is not supported, only unsigned bytes (0x8)");
}

TEST_F(IdxFolder, WithoutLabelsThereIsNothingToJudge) {
  write("train-images", images(6));
  write("test-images", images(3));
  try {
    labelled_pair(path(), "");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("there are no labels in test-images, train-images to evaluate with"));
  }
}

}  // namespace
}  // namespace saccade::data
