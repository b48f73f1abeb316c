#include <gtest/gtest.h>
#include <saccade/core/random.h>
#include <zlib.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "data/decoding.h"
#include "data/peak_memory.h"

/// Image files as people have them, against what Pillow reads: tests/goldens/decode.py.
namespace saccade::data {
namespace {

const std::string kFolder = SACCADE_GOLDENS "/decode/";

uint32_t checksum(const Image& image) {
  return static_cast<uint32_t>(crc32(0, image.pixels.data(), static_cast<uInt>(image.pixels.size())));
}

struct Case {
  std::string name;
  int width, height;
  uint32_t checksum;
};

std::vector<Case> cases() {
  std::ifstream file(kFolder + "cases.txt");
  std::vector<Case> all;
  for (Case c; file >> c.name >> c.width >> c.height >> c.checksum;) all.push_back(c);
  return all;
}

TEST(DecodeFiles, GivePillowsPixels) {
  const auto all = cases();
  ASSERT_GE(all.size(), 140u);
  for (const Case& c : all) {
    const auto bytes = golden_image(c.name);
    ASSERT_EQ(error_of(bytes), "") << c.name;
    const Image image = decode(bytes);
    EXPECT_EQ(image.width, c.width) << c.name;
    EXPECT_EQ(image.height, c.height) << c.name;
    if (c.checksum != 0) {
      EXPECT_EQ(checksum(image), c.checksum) << c.name;
    }
  }
}

TEST(DecodeFiles, ABmpThatEndsTooEarlyIsRefused) {
  for (const char* name :
       {"palette1.bmp", "bits16.bmp", "bits24_top_down.bmp", "masks_565_40.bmp", "palette4_os2.bmp"}) {
    const auto bytes = golden_image(name);
    EXPECT_NE(error_of(std::span(bytes).first(bytes.size() - 4)).find("the file has"), std::string::npos) << name;
  }
  const auto runs = golden_image("rle4.bmp");
  for (size_t length = 0; length < runs.size() - 2; ++length)
    EXPECT_NE(error_of(std::span(runs).first(length)), "") << length;
}

TEST(DecodeFiles, ABmpOfRunsMayLeaveRowsOut) {
  // Width 3, height 3: an empty row, a row of a run, and the end.
  auto bytes = golden_image("rle8_odd_offset.bmp");
  bytes[18] = bytes[22] = 3;
  bytes.resize(1079);
  for (int byte : {0, 0, 3, 9, 0, 0, 0, 1}) bytes.push_back(static_cast<uint8_t>(byte));
  const Image image = decode(bytes);
  const auto colour = [](int i) {
    return std::vector<uint8_t>{static_cast<uint8_t>(255 - i), static_cast<uint8_t>(i * 13),
                                static_cast<uint8_t>(i * 7)};
  };
  for (int y = 0; y < 3; ++y)
    EXPECT_EQ(std::vector<uint8_t>(image.row(y) + 3, image.row(y) + 6), colour(y == 1 ? 9 : 0)) << y;
}

TEST(DecodeFiles, ABmpHeaderThatClaimsTooMuchIsRefused) {
  auto bytes = golden_image("rle8.bmp");
  bytes[20] = bytes[24] = 0x7f;  // 8 million in both directions
  EXPECT_NE(error_of(bytes).find("more than the limit"), std::string::npos);
  bytes[25] = 0x80;  // the same height from the top down
  EXPECT_NE(error_of(bytes).find("more than the limit"), std::string::npos);
  bytes = golden_image("bits24.bmp");
  bytes[20] = 0x1f;  // fewer pixels than the limit, but not in this file
  EXPECT_NE(error_of(bytes).find("the file has"), std::string::npos);
}

TEST(DecodeFiles, APngIsCompleteWithItsPixels) {
  std::vector<uint8_t> whole;
  read_file(SACCADE_GOLDENS "/augment/rgb8.png", 1 << 20, whole);
  const uint32_t expected = checksum(decode(whole));
  // The file ends with 4 bytes of zlib's checksum, 4 of the chunk's, and a chunk of 12.
  for (size_t missing = 0; missing <= 20; ++missing) {
    const auto cut = std::span(whole).first(whole.size() - missing);
    ASSERT_EQ(error_of(cut), "") << missing;
    EXPECT_EQ(checksum(decode(cut)), expected) << missing;
  }
  EXPECT_EQ(error_of(std::span(whole).first(whole.size() - 24)), "PNG: the file ends too early");
  // Damage of the pixels is found by their own checksum, also where that of the chunk is not to be trusted.
  int refused = 0;
  for (size_t back = 1; back < 400; ++back) {
    auto damaged = whole;
    damaged[damaged.size() - back] ^= 0x40;
    if (error_of(damaged).empty()) {
      EXPECT_EQ(checksum(decode(damaged)), expected) << back;
    } else {
      EXPECT_GT(back, 16u);
      ++refused;
    }
  }
  EXPECT_GT(refused, 375);
}

TEST(DecodeFiles, ALargePngTakesTheMemoryOfItsPixels) {
  // 4096 x 4096 pixels of one bit, all white.
  constexpr uint32_t kSide = 4096;
  std::vector<uint8_t> rows(kSide * (kSide / 8 + 1), 0xff), packed(compressBound(rows.size()));
  for (size_t y = 0; y < kSide; ++y) rows[y * (kSide / 8 + 1)] = 0;  // no filter
  uLongf packed_bytes = packed.size();
  ASSERT_EQ(compress(packed.data(), &packed_bytes, rows.data(), rows.size()), Z_OK);
  std::vector<uint8_t> png = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  const auto number = [&](uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) png.push_back(static_cast<uint8_t>(value >> shift));
  };
  const auto chunk = [&](const std::string& type, std::span<const uint8_t> data) {
    number(static_cast<uint32_t>(data.size()));
    const size_t first = png.size();
    png.insert(png.end(), type.begin(), type.end());
    png.insert(png.end(), data.begin(), data.end());
    number(static_cast<uint32_t>(crc32(0, png.data() + first, static_cast<uInt>(png.size() - first))));
  };
  chunk("IHDR", std::vector<uint8_t>{0, 0, 16, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0});
  chunk("IDAT", std::span(packed).first(packed_bytes));
  Image image;
  const int64_t kb = peak_kb([&] { decode(png, {.channels = 0}, image); });
  EXPECT_EQ(image.pixels, std::vector<uint8_t>(size_t{kSide} * kSide, 255));
  EXPECT_LT(kb, kSide * kSide / 1024 + 2000);
  EXPECT_NE(error_of(png, {.limits = {.max_pixels = kSide * kSide - 1}}).find("--max-pixels"), std::string::npos);
}

TEST(DecodeFiles, AJpegIsTurnedAsItsExifOrientationSays) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const std::string name = "exif" + std::to_string(orientation);
    const Image image = decode(golden_image(name + ".jpg")), expected = decode(golden_image(name + ".png"));
    ASSERT_EQ(image.width, orientation < 5 ? 45 : 34);
    ASSERT_EQ(image.pixels.size(), expected.pixels.size());
    double sum = 0;
    for (size_t i = 0; i < image.pixels.size(); ++i) sum += std::abs(image.pixels[i] - expected.pixels[i]);
    EXPECT_LT(sum / static_cast<double>(image.pixels.size()), 6) << name;
    // Also at a fraction of its size, and where the transform gives gray.
    EXPECT_EQ(decode(golden_image(name + ".jpg"), {.useful_side = 4}).height, orientation < 5 ? 5 : 6);
    const Image gray = decode(golden_image(name + ".jpg"), {.channels = 1});
    EXPECT_EQ(gray.width, image.width);
    EXPECT_NEAR(gray.row(3)[5], (image.row(3)[15] * 77 + image.row(3)[16] * 150 + image.row(3)[17] * 29) / 256, 3);
  }
}

TEST(DecodeFiles, OfALongJpegTheShorterSideSaysWhatSuffices) {
  const auto bytes = golden_image("strip.jpg");  // 600 x 32: as good as 64 x 32, a side of 45
  const auto height = [&](double useful) { return decode(bytes, {.useful_side = useful}).height; };
  EXPECT_EQ(height(23), 32);
  EXPECT_EQ(height(22), 16);
  EXPECT_EQ(height(5), 4);
}

TEST(DecodeFiles, ExifMayBeLeftOut) {
  for (const char* format : {"jpg", "png", "webp"}) {
    const Image upright = decode(golden_image(std::string("exif1.") + format));
    for (int orientation = 2; orientation <= 8; ++orientation) {
      const auto bytes = golden_image("exif" + std::to_string(orientation) + "." + format);
      EXPECT_EQ(decode(bytes, {.exif = false}).pixels, upright.pixels) << format << orientation;
      EXPECT_NE(decode(bytes).pixels, upright.pixels) << format << orientation;
    }
  }
}

TEST(DecodeFiles, AGifOrAnAnimationThatEndsTooEarlyIsRefused) {
  for (const char* name :
       {"still.gif", "interlaced.gif", "local_colour_map.gif", "animated.webp", "animated_part.webp"}) {
    const auto whole = golden_image(name);
    // A GIF lacks nothing without its last two bytes: no further block, no further frame.
    const size_t last = whole.size() - (whole[0] == 'G' ? 2 : 0);
    for (size_t length = 0; length < last; ++length)
      ASSERT_NE(error_of(std::span(whole).first(length)), "") << name << " cut to " << length;
    EXPECT_EQ(error_of(std::span(whole).first(last)), "") << name;
  }
  auto large = golden_image("still.gif");
  large[7] = large[9] = 0xff;
  EXPECT_NE(error_of(large).find("more than the limit of 67108864 (--max-pixels moves it)"), std::string::npos);
}

TEST(DecodeFiles, DamagedOnesNeverCrash) {
  Philox random(1);
  for (const Case& c : cases()) {
    const auto whole = golden_image(c.name);
    for (int i = 0; i < 100; ++i) {
      auto damaged = whole;
      for (int k = 0; k <= i % 4; ++k) {
        const size_t below = i % 2 ? whole.size() : std::min<size_t>(whole.size(), 80);
        damaged[random.below(static_cast<uint32_t>(below))] = static_cast<uint8_t>(random.below(256));
      }
      if (!error_of(damaged, {.limits = {.max_pixels = 1 << 16}}).empty()) continue;
      const Image image = decode(damaged);
      ASSERT_EQ(image.pixels.size(), static_cast<size_t>(image.height) * image.width * image.channels) << c.name;
    }
  }
}

}  // namespace
}  // namespace saccade::data
