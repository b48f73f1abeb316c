#include <gtest/gtest.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include "data/folders.h"
#include "data/goldens.h"

namespace saccade::data {
namespace {

template <class Function>
std::string error_of(Function function) {
  try {
    function();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

std::vector<std::string> keys(const Source& source, const TemporaryFolder& below) {
  std::vector<std::string> all;
  for (int64_t i = 0; i < source.size(); ++i) all.push_back(source.key(i).substr(below.path.string().size() + 1));
  return all;
}

TEST(Folder, SubFoldersAreClassesInCodePointOrder) {
  const TemporaryFolder temporary;
  const auto photo = golden::bytes("gray.jpg");
  for (const char* name : {"b/2.JPG", "b/10.jpg", "a/deep/x.Png", "a/z.jpeg", "a-/1.webp", "Z/1.ppm", "\xc3\xa9/1.BMP",
                           "top.pgm", "b/notes.txt", "b/jpg", "empty/readme.md"}) {
    temporary.write(name, photo);
  }
  const Source source = folder(temporary.path.string());
  EXPECT_EQ(source.class_names, (std::vector<std::string>{"Z", "a", "a-", "b", "\xc3\xa9"}));
  EXPECT_EQ(keys(source, temporary),
            (std::vector<std::string>{"top.pgm", "Z/1.ppm", "a/z.jpeg", "a/deep/x.Png", "a-/1.webp", "b/10.jpg",
                                      "b/2.JPG", "b/jpg", "\xc3\xa9/1.BMP"}));
  EXPECT_EQ(source.labels, (std::vector<int>{-1, 0, 1, 1, 2, 3, 3, 3, 4}));
  Image image;
  source.read(0, 0, image);  // a JPEG, whatever its name says
  EXPECT_EQ(image.channels, 3);
  EXPECT_EQ(image.pixels, golden::image("gray.jpg", 3).pixels);
}

TEST(Folder, WithoutSubFoldersThereAreNoLabels) {
  const TemporaryFolder temporary;
  temporary.write("b.png", golden::bytes("rgb8.png"));
  temporary.write("a.png", golden::bytes("rgb8.png"));
  const Source source = folder(temporary.path.string() + "/");
  EXPECT_EQ(keys(source, temporary), (std::vector<std::string>{"a.png", "b.png"}));
  EXPECT_FALSE(source.has_labels());
  EXPECT_EQ(source.label(1), -1);
  EXPECT_EQ(source.num_classes(), 0);
}

TEST(Folder, LinksAreFollowedAndTheirLoopsEnd) {
  const TemporaryFolder temporary, elsewhere;
  temporary.write("a/1.png", golden::bytes("rgb8.png"));
  elsewhere.write("2.png", golden::bytes("rgb8.png"));
  std::filesystem::create_directory_symlink(temporary.path, temporary.path / "a/loop");
  std::filesystem::create_directory_symlink(elsewhere.path, temporary.path / "b");
  std::filesystem::create_symlink("nowhere", temporary.path / "b/broken.png");
  const Source source = folder(temporary.path.string());
  EXPECT_EQ(keys(source, temporary), (std::vector<std::string>{"a/1.png", "b/2.png"}));
  EXPECT_NE(source.summary.find("1 behind a broken link"), std::string::npos) << source.summary;
  EXPECT_NE(source.summary.find("1 linked in a circle"), std::string::npos) << source.summary;
  Image image;
  source.read(1, 0, image);
}

TEST(Folder, AMissingOrEmptyFolderIsASentence) {
  const TemporaryFolder temporary;
  EXPECT_NE(error_of([&] { folder(temporary.path / "none"); }).find("there is no such folder"), std::string::npos);
  EXPECT_NE(error_of([&] { folder(temporary.path); }).find("hold no image"), std::string::npos);
  EXPECT_NE(error_of([&] { folder(temporary.write("x.png", {})); }).find("is no folder"), std::string::npos);
}

TEST(Folder, DarkImagesOf16BitsAreRemarkedOnOnce) {
  TemporaryFolder temporary;
  const auto write = [&](const std::string& name, const std::string& file) {
    temporary.write(name, {reinterpret_cast<const uint8_t*>(file.data()), file.size()});
  };
  using namespace std::string_literals;
  write("a.pgm", "P5 2 1 65535 \xff\xff\x0f\xff"s);
  write("b.pgm", "P5 2 1 255 \x0f\x01"s);
  std::vector<std::string> said;
  const OpenOptions options{.remark = [&](const std::string& sentence) { said.push_back(sentence); }};
  Image image;
  const auto read_all = [&] {
    const Source source = folder(temporary.path.string(), options);
    for (int64_t i = 0; i < source.size(); ++i) source.read(i, 0, image);
  };
  read_all();
  EXPECT_TRUE(said.empty());
  write("c.pgm", "P5 2 1 65535 \x01\x01\x0f\xff"s);
  write("d.pgm", "P2 1 1 65535 4095 "s);
  read_all();
  ASSERT_EQ(said.size(), 1u);
  EXPECT_NE(said[0].find("/c.pgm: samples of 16 bits are taken as 8, and this image's then never exceed 16 of 255"),
            std::string::npos);
  EXPECT_TRUE(has_16_bit_samples(golden::bytes("rgb16.png")));
  EXPECT_FALSE(has_16_bit_samples(golden::bytes("rgb8.png")));
}

TEST(Folder, APipeOfAnImagesNameIsNoReasonToWait) {
  const TemporaryFolder temporary;
  ASSERT_EQ(mkfifo((temporary.path / "pipe.jpg").c_str(), 0600), 0);
  EXPECT_NE(error_of([&] { folder(temporary.path); }).find("passed over: 1 no regular file"), std::string::npos);
}

std::vector<uint8_t> idx_file(std::vector<uint32_t> extents, size_t values) {
  std::vector<uint8_t> bytes = {0, 0, 8, static_cast<uint8_t>(extents.size())};
  for (const uint32_t extent : extents) {
    for (int shift : {24, 16, 8, 0}) bytes.push_back(static_cast<uint8_t>(extent >> shift));
  }
  for (size_t i = 0; i < values; ++i) bytes.push_back(static_cast<uint8_t>(i % 251));
  return bytes;
}

std::string write_gz(const TemporaryFolder& folder, const std::string& name, const std::vector<uint8_t>& bytes) {
  std::string path = (folder.path / name).string();
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, bytes.data(), static_cast<unsigned>(bytes.size()));
  gzclose(file);
  return path;
}

TEST(Idx, PlainAndCompressedFilesGiveTheirPixels) {
  const TemporaryFolder temporary;
  const auto images = idx_file({5, 3, 4}, 60), labels = idx_file({5}, 5);
  const std::string label_path = write_gz(temporary, "l.gz", labels);
  for (const std::string& path : {temporary.write("i", images), write_gz(temporary, "i.gz", images)}) {
    const Source source = idx(path, label_path);
    EXPECT_EQ(source.size(), 5);
    EXPECT_EQ(source.channels, 1);
    EXPECT_EQ(source.labels, (std::vector<int>{0, 1, 2, 3, 4}));
    EXPECT_EQ(source.num_classes(), 5);
    Image image;
    source.read(2, 0, image);
    EXPECT_EQ(image.height, 3);
    EXPECT_EQ(image.width, 4);
    for (int i = 0; i < 12; ++i) EXPECT_EQ(image.pixels[static_cast<size_t>(i)], 24 + i);
  }
  const Source colour = idx(temporary.write("c", idx_file({2, 2, 2, 3}, 24)));
  EXPECT_EQ(colour.channels, 3);
  EXPECT_FALSE(colour.has_labels());
}

TEST(Idx, WhateverIsWrongWithAFileIsASentence) {
  const TemporaryFolder temporary;
  const auto error = [&](std::vector<uint8_t> bytes) {
    const std::string path = temporary.write("x", bytes);
    return error_of([&] { idx(path); });
  };
  const auto good = idx_file({5, 3, 4}, 60);
  EXPECT_EQ(error(good), "");
  for (size_t length = 0; length < good.size(); ++length)
    EXPECT_NE(error({good.begin(), good.begin() + length}), "") << length;
  EXPECT_NE(error(idx_file({5, 3, 4}, 61)).find("goes on after the 60 values"), std::string::npos);
  EXPECT_NE(error(idx_file({5, 3}, 15)).find("expected images"), std::string::npos);
  EXPECT_NE(error(idx_file({0, 3, 4}, 0)).find("zero"), std::string::npos);
  EXPECT_NE(error(idx_file({0xffffffff, 0xffffffff, 0xffffffff}, 10)).find("too large"), std::string::npos);
  EXPECT_NE(error(idx_file({0x7fffffff, 1, 1}, 10)).find("the file has 10"), std::string::npos);  // allocates little
  auto floats = good;
  floats[2] = 13;
  EXPECT_NE(error(floats).find("IDX type 0xd"), std::string::npos);
  EXPECT_NE(error(golden::bytes("rgb8.png")).find("is no IDX file"), std::string::npos);

  const std::string compressed = write_gz(temporary, "y.gz", good);
  std::filesystem::resize_file(compressed, std::filesystem::file_size(compressed) - 9);
  EXPECT_NE(error_of([&] { idx(compressed); }), "");
  EXPECT_NE(error_of([&] { idx(temporary.path / "none"); }).find("cannot be opened"), std::string::npos);
  EXPECT_NE(error_of([&] { idx(temporary.path); }).find("is a folder"), std::string::npos);
  EXPECT_NE(error_of([&] {
              idx(temporary.write("i", good), temporary.write("l", idx_file({4}, 4)));
            }).find("expected 5 labels, got extents (4)"),
            std::string::npos);
  EXPECT_NE(error_of([&] { fashion_mnist(temporary.path); }).find("has neither"), std::string::npos);
}

TEST(Subset, TakesLabelsAlong) {
  const TemporaryFolder temporary;
  const Source whole = idx(temporary.write("i", idx_file({5, 3, 4}, 60)), temporary.write("l", idx_file({5}, 5)));
  const Source part = subset(whole, {4, 0, 4});
  EXPECT_EQ(part.size(), 3);
  EXPECT_EQ(part.labels, (std::vector<int>{4, 0, 4}));
  EXPECT_EQ(part.key(0), whole.key(4));
  Image image;
  part.read(2, 0, image);
  EXPECT_EQ(image.pixels[0], 48);
  EXPECT_THROW(subset(whole, {5}), Error);
}

TEST(Cached, ReadsEachImageOnceAsLongAsThereIsRoom) {
  int reads = 0;
  Source source;
  source.count = 4;
  source.read = [&](int64_t i, double, Image& out) {
    ++reads;
    out.resize(10, 10, 3);
    std::fill(out.pixels.begin(), out.pixels.end(), static_cast<uint8_t>(i));
  };
  const Source kept = cached(source, 650);  // room for two of 300 bytes
  Image image;
  for (int pass = 0; pass < 3; ++pass) {
    for (int64_t i = 0; i < 4; ++i) {
      kept.read(i, 0, image);
      EXPECT_EQ(image.pixels[99], i);
    }
  }
  EXPECT_EQ(reads, 4 + 2 + 2);
}

}  // namespace
}  // namespace saccade::data
