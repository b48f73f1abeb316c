#include <gtest/gtest.h>
#include <saccade/core/random.h>
#include <saccade/data/exif.h>

#include <string>
#include <vector>

namespace saccade::data {
namespace {

using namespace std::string_literals;

int orientation(const std::string& exif) {
  // In memory of its own, whose end sanitizers watch.
  const std::vector<uint8_t> bytes(exif.begin(), exif.end());
  return exif_orientation(bytes);
}

const std::string kLittle = "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"s;
const std::string kBig = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"s;

TEST(Exif, TheOrientationIsFoundInEitherByteOrder) {
  EXPECT_EQ(orientation(kLittle), 6);
  EXPECT_EQ(orientation(kBig), 6);
  EXPECT_EQ(orientation("Exif\0\0"s + kBig), 6);
  EXPECT_EQ(orientation(kLittle.substr(0, 22)), 6);  // what follows the entry is not needed
}

TEST(Exif, WhatIsDamagedOrAbsentIsUpright) {
  for (size_t length = 0; length < 22; ++length) {
    EXPECT_EQ(orientation(kLittle.substr(0, length)), 1) << length;
    EXPECT_EQ(orientation(kBig.substr(0, length)), 1) << length;
  }
  const auto with = [](size_t at, const std::string& bytes) {
    return std::string(kLittle).replace(at, bytes.size(), bytes);
  };
  EXPECT_EQ(orientation(with(4, "\xff\xff\xff\xff")), 1);  // the directory beyond the end
  EXPECT_EQ(orientation(with(4, "\x18\0\0\0"s)), 1);       // at the end
  EXPECT_EQ(orientation(with(8, "\xff\xff")), 6);          // more entries than there are
  EXPECT_EQ(orientation(with(8, "\0\0"s)), 1);
  EXPECT_EQ(orientation(with(10, "\x13")), 1);  // another tag
  EXPECT_EQ(orientation(with(12, "\x02")), 1);  // text
  EXPECT_EQ(orientation(with(14, "\x02")), 1);  // two numbers
  EXPECT_EQ(orientation(with(18, "\x00"s)), 1);
  EXPECT_EQ(orientation(with(18, "\x09")), 1);
  EXPECT_EQ(orientation(with(2, "+")), 1);
}

TEST(Exif, NoBytesLeadOutsideOfThem) {
  Philox random(5);
  for (int i = 0; i < 100000; ++i) {
    std::string damaged = i % 2 ? kLittle : kBig;
    for (int k = 0; k <= i % 5; ++k)
      damaged[random.below(static_cast<uint32_t>(damaged.size()))] = static_cast<char>(random.below(256));
    const int found = orientation(damaged.substr(0, random.below(static_cast<uint32_t>(damaged.size() + 1))));
    ASSERT_TRUE(found >= 1 && found <= 8);
  }
}

TEST(MakeUpright, TakesEachPixelToItsPlace) {
  // Where the first row and the first column of what is stored belong, by the table of the EXIF standard.
  struct {
    const char *row, *column;
  } const kPlaces[] = {{"top", "left"}, {"top", "right"}, {"bottom", "right"}, {"bottom", "left"},
                       {"left", "top"}, {"right", "top"}, {"right", "bottom"}, {"left", "bottom"}};
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (const int channels : {1, 3}) {
      Image stored;
      stored.resize(67, 41, channels);
      for (size_t i = 0; i < stored.pixels.size(); ++i) stored.pixels[i] = static_cast<uint8_t>(i * 31 + i / 255);
      Image image = stored;
      make_upright(image, orientation);
      ASSERT_EQ(image.height, orientation < 5 ? 67 : 41);
      for (int row = 0; row < 67; ++row) {
        for (int column = 0; column < 41; ++column) {
          int y = 0, x = 0;
          const auto put = [&](const std::string& side, int distance) {
            if (side == "top") y = distance;
            if (side == "bottom") y = image.height - 1 - distance;
            if (side == "left") x = distance;
            if (side == "right") x = image.width - 1 - distance;
          };
          put(kPlaces[orientation - 1].row, row);
          put(kPlaces[orientation - 1].column, column);
          for (int c = 0; c < channels; ++c)
            ASSERT_EQ(image.row(y)[x * channels + c], stored.row(row)[column * channels + c]) << orientation;
        }
      }
    }
  }
}

}  // namespace
}  // namespace saccade::data
