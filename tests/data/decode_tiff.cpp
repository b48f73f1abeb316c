#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "data/decoding.h"
#include "data/peak_memory.h"

/// TIFF files that are not read, or are not what they say. Those that are read: tests/goldens/decode.py.
namespace saccade::data {
namespace {

using Tags = std::map<uint16_t, std::vector<uint32_t>>;

/// An image of 6 x 4 gray pixels in one strip, but for what `changes` says of its tags; no values: without that tag.
std::vector<uint8_t> tiff(const Tags& changes = {}, size_t pixel_bytes = 24) {
  Tags tags = {{256, {6}}, {257, {4}}, {258, {8}}, {259, {1}}, {262, {1}},
               {273, {8}}, {277, {1}}, {278, {4}}, {279, {24}}};
  for (const auto& [tag, values] : changes) tags[tag] = values;
  std::erase_if(tags, [](const auto& entry) { return entry.second.empty(); });
  std::vector<uint8_t> file, values;
  const auto put = [](std::vector<uint8_t>& to, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) to.push_back(static_cast<uint8_t>(value >> 8 * i));
  };
  put(file, 0x2a4949, 4);
  put(file, 8 + pixel_bytes, 4);
  for (size_t i = 0; i < pixel_bytes; ++i) file.push_back(static_cast<uint8_t>(i));
  const size_t behind = 8 + pixel_bytes + 2 + 12 * tags.size() + 4;
  put(file, tags.size(), 2);
  for (const auto& [tag, numbers] : tags) {
    put(file, tag, 2);
    put(file, 4, 2);  // all are of 32 bits
    put(file, numbers.size(), 4);
    put(file, numbers.size() == 1 ? numbers[0] : behind + values.size(), 4);
    if (numbers.size() > 1)
      for (const uint32_t number : numbers) put(values, number, 4);
  }
  put(file, 0, 4);
  file.insert(file.end(), values.begin(), values.end());
  return file;
}

TEST(DecodeTiff, TakesSamplesAsTheyAre) {
  const Image image = decode(tiff(), {.channels = 0});
  EXPECT_EQ(image.height, 4);
  EXPECT_EQ(image.width, 6);
  ASSERT_EQ(image.channels, 1);
  for (size_t i = 0; i < 24; ++i) EXPECT_EQ(image.pixels[i], i);
}

TEST(DecodeTiff, WhatIsNotReadIsNamed) {
  const auto reason = [](const Tags& changes) {
    const std::string error = error_of(tiff(changes, 400));
    const std::string_view start = "TIFF: ", end = " is not read: convert it to PNG";
    if (!error.starts_with(start) || !error.ends_with(end)) return "another reason: " + error;
    return error.substr(start.size(), error.size() - start.size() - end.size());
  };
  EXPECT_EQ(reason({{258, {32}}, {339, {3}}}), "an image of floating point");
  EXPECT_EQ(reason({{339, {2}}}), "an image whose samples have a sign");
  EXPECT_EQ(reason({{258, {32}}}), "an image of 32 bits a sample");
  EXPECT_EQ(reason({{258, {12}}}), "an image of 12 bits a sample");
  EXPECT_EQ(reason({{258, {16}}, {262, {3}}, {320, std::vector<uint32_t>(3 << 16)}}), "an image of 16 bits a sample");
  EXPECT_EQ(reason({{277, {7}}}), "an image of 7 samples a pixel");
  EXPECT_EQ(reason({{277, {4}}, {262, {5}}}), "an image of inks (CMYK)");
  EXPECT_EQ(reason({{262, {32803}}}), "a camera's raw file");
  EXPECT_EQ(reason({{262, {8}}}), "colour space 8");
  EXPECT_EQ(reason({{259, {50000}}}), "compression ZSTD");
  EXPECT_EQ(reason({{259, {6}}}), "compression Old-style JPEG");
  EXPECT_EQ(reason({{259, {54321}}}), "compression 54321");
  EXPECT_EQ(reason({{254, {1}}}), "an image that begins with a small copy, as a camera's raw file,");
}

TEST(DecodeTiff, WhatCannotBeIsRefused) {
  EXPECT_EQ(error_of(tiff({{262, {}}})), "TIFF: the file does not say what its samples mean");
  EXPECT_EQ(error_of(tiff({{258, {4}}, {262, {3}}})), "TIFF: TIFF directory is missing required \"Colormap\" field");
  EXPECT_EQ(error_of(tiff({{256, {70000}}, {257, {70000}}})),
            "TIFF: 70000 x 70000 pixels are more than the limit of 67108864 (--max-pixels moves it)");
  EXPECT_EQ(error_of(tiff(), {.limits = {.max_pixels = 20}}),
            "TIFF: 6 x 4 pixels are more than the limit of 20 (--max-pixels moves it)");
  EXPECT_EQ(error_of(tiff({{256, {0xffffffff}}, {257, {1}}}), {.limits = {.max_pixels = int64_t{1} << 33}}),
            "TIFF: a side of 4294967295 pixels is more than can be counted");
  EXPECT_EQ(error_of(tiff({{273, {}}, {278, {}}, {279, {}}, {322, {16384}}, {323, {16384}}, {324, {8}}, {325, {24}}})),
            "TIFF: 16384 x 16384 pixels at a time are more than the image needs");
  // A row of 128 bits a pixel.
  EXPECT_EQ(error_of(tiff({{256, {1 << 26}}, {257, {1}}, {258, std::vector<uint32_t>(8, 16)}, {262, {2}}, {277, {8}}})),
            "TIFF: 67108864 x 1 pixels at a time are more than the image needs");
  for (const Tags& changes : {Tags{{256, {}}},
                              {{256, {0}}},
                              {{257, {0}}},
                              {{273, {}}},
                              {{273, {9000}}},
                              {{258, {8, 9, 10}}, {277, {3}}},
                              {{259, {5}}},
                              {{259, {7}}},
                              {{259, {8}}}}) {
    EXPECT_TRUE(error_of(tiff(changes)).starts_with("TIFF: ")) << changes.begin()->first;
  }
}

TEST(DecodeTiff, OneThatEndsTooEarlyIsRefusedAndNothingIsPrinted) {
  testing::internal::CaptureStderr();
  for (const char* name : {"planes.tif", "tiles.tif", "bigtiff.tif", "rgb16_big.tif", "lzw.tif", "group4.tif",
                           "jpeg.tif", "packbits.tif", "deflate.tif"}) {
    const auto whole = golden_image(name);
    const Image image = decode(whole);
    for (size_t length = 0; length < whole.size(); ++length) {
      const auto cut = std::span(whole).first(length);
      if (error_of(cut) != "") continue;
      ASSERT_GE(length + 4, whole.size())
          << name;  // what ends within the mark of the end, or a checksum, has its pixels
      ASSERT_EQ(decode(cut).pixels, image.pixels) << name << " cut to " << length;
    }
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

/// Where the only value of a tag lies in one of Pillow's files.
size_t value_of(const std::vector<uint8_t>& file, uint16_t tag) {
  uint32_t directory = 0;
  std::memcpy(&directory, file.data() + 4, 4);
  for (size_t entry = directory + 2; entry + 12 <= file.size(); entry += 12)
    if (std::memcmp(file.data() + entry, &tag, 2) == 0) return entry + 8;
  ADD_FAILURE() << "no tag " << tag;
  return 0;
}

TEST(DecodeTiff, PixelsThatALibraryMadeUpAreRefused) {
  auto jpeg = golden_image("jpeg.tif");
  const size_t count = value_of(jpeg, 279);
  uint32_t bytes = 0;
  std::memcpy(&bytes, jpeg.data() + count, 4);
  bytes -= 100;
  std::memcpy(jpeg.data() + count, &bytes, 4);
  EXPECT_EQ(error_of(jpeg), "TIFF: Premature end of JPEG file");

  const auto fax = golden_image("group4.tif");
  uint32_t at = 0;
  std::memcpy(&at, fax.data() + value_of(fax, 273), 4);
  auto damaged = fax;
  std::fill_n(damaged.begin() + at + 40, 8, uint8_t{0});
  EXPECT_NE(error_of(damaged), "");
}

TEST(DecodeTiff, ItsOrientationMayBeLeftOut) {
  const Image upright = decode(golden_image("gray.tif"));
  for (int orientation = 2; orientation <= 8; ++orientation) {
    const auto bytes = golden_image("orientation" + std::to_string(orientation) + ".tif");
    EXPECT_EQ(decode(bytes, {.exif = false}).pixels, upright.pixels) << orientation;
    EXPECT_NE(decode(bytes).pixels, upright.pixels) << orientation;
  }
}

TEST(DecodeTiff, SixteenBitsAreSeen) {
  EXPECT_TRUE(has_16_bit_samples(golden_image("rgb16_big.tif")));
  EXPECT_TRUE(has_16_bit_samples(golden_image("gray16_little.tif")));
  EXPECT_FALSE(has_16_bit_samples(golden_image("rgb.tif")));
}

TEST(DecodeTiff, CountsThatAreOnlyClaimedTakeNoMemory) {
  auto bytes = tiff();
  const size_t directory = 8 + 24 + 2;
  for (size_t entry = 0; entry < 9; ++entry) {
    auto damaged = bytes;
    const uint32_t count = 0x3fffffff;
    std::memcpy(damaged.data() + directory + 12 * entry + 4, &count, 4);
    EXPECT_LT(peak_kb([&] { error_of(damaged); }), 4000) << entry;
  }
}

}  // namespace
}  // namespace saccade::data
