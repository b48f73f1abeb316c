#include <gtest/gtest.h>
#include <saccade/data/decode.h>
#include <saccade/kernels/error.h>

#include <cstring>
#include <filesystem>

#include "data/goldens.h"

namespace saccade::data {
namespace {

std::string error_of(const std::vector<uint8_t>& bytes, const DecodeOptions& options = {}) {
  try {
    decode(bytes, options);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Decode, EveryFormatGivesPillowsPixels) {
  const auto files = golden::lines("decode.txt");
  ASSERT_GE(files.size(), 22u);
  for (const std::string& line : files) {
    std::istringstream words(line);
    std::string name, reference;
    int largest;
    double mean;
    words >> name >> reference >> largest >> mean;
    const Image image = golden::image(name, 3), expected = golden::image(reference, 3);
    ASSERT_EQ(image.height, expected.height) << name;
    ASSERT_EQ(image.width, expected.width) << name;
    int worst = 0;
    double sum = 0;
    for (size_t i = 0; i < image.pixels.size(); ++i) {
      const int difference = std::abs(image.pixels[i] - expected.pixels[i]);
      worst = std::max(worst, difference);
      sum += difference;
    }
    EXPECT_LE(worst, largest) << name;
    EXPECT_LE(sum / static_cast<double>(image.pixels.size()), mean) << name;
  }
}

TEST(Decode, ChannelsAreAsAskedFor) {
  EXPECT_EQ(golden::image("gray8.png").channels, 1);
  EXPECT_EQ(golden::image("rgb8.png").channels, 3);
  const Image gray = golden::image("rgb8.png", 1), expected = golden::image("gray8.png", 1);
  EXPECT_EQ(gray.pixels, expected.pixels);
  for (const char* name : {"base.jpg", "gray.jpg", "cmyk.jpg", "lossy.webp", "rgb.bmp", "gray.pgm", "palette.png"}) {
    for (int channels : {1, 3}) {
      const Image image = golden::image(name, channels);
      EXPECT_EQ(image.channels, channels) << name;
      EXPECT_EQ(image.pixels.size(), 37u * 45 * channels) << name;
    }
  }
}

TEST(Decode, ALargeJpegIsReadAtAFractionOfItsSizeWhenThatSuffices) {
  const auto bytes = golden::bytes("photo.jpg");  // 500 x 375: a side of 433 on average
  const auto width = [&](double useful) { return decode(bytes, {.useful_side = useful}).width; };
  EXPECT_EQ(width(0), 500);
  EXPECT_EQ(width(217), 500);
  EXPECT_EQ(width(216), 250);
  EXPECT_EQ(width(108), 125);
  EXPECT_EQ(width(1), 63);  // 1/8 is the smallest there is
}

TEST(Decode, EveryPrefixOfAFileIsRefused) {
  for (const char* name :
       {"base.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg", "rgb8.png", "palette.png", "interlaced.png",
        "lossless.webp", "lossy.webp", "alpha.webp", "rgb.bmp", "palette.bmp", "rgb.ppm", "gray.pgm"}) {
    const auto whole = golden::bytes(name);
    const size_t step = whole.size() > 4000 ? 7 : 1;
    // What lacks but its end is complete: a JPEG's marker, a PNG's checksums and last chunk, a BMP's padding.
    const size_t last = whole.size() - (whole[0] == 0xff ? 2 : whole[0] == 0x89 ? 22 : whole[0] == 'B' ? 3 : 0);
    for (size_t length = 0; length < last; length += step) {
      const std::vector<uint8_t> prefix(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));
      ASSERT_NE(error_of(prefix), "") << name << " cut to " << length << " of " << whole.size();
    }
  }
}

TEST(Decode, FlippedBitsNeverCrash) {
  Philox random(1);
  for (const std::string& line : golden::lines("decode.txt")) {
    const auto whole = golden::bytes(line.substr(0, line.find(' ')));
    for (int i = 0; i < 200; ++i) {
      auto damaged = whole;
      for (int k = 0; k <= i % 4; ++k) {
        const uint32_t at =
            random.below(static_cast<uint32_t>(i % 2 ? whole.size() : std::min<size_t>(whole.size(), 64)));
        damaged[at] ^= static_cast<uint8_t>(1u << random.below(8));
      }
      try {
        const Image image = decode(damaged, {.limits = {.max_pixels = 1 << 20}});
        ASSERT_EQ(image.pixels.size(), static_cast<size_t>(image.height) * image.width * image.channels);
      } catch (const Error&) {
      }
    }
  }
}

TEST(Decode, AHeaderThatClaimsTooMuchIsRefusedBeforeAnythingIsAllocated) {
  const auto big_endian = [](std::vector<uint8_t> bytes, size_t at, uint32_t value, int count) {
    for (int i = 0; i < count; ++i) bytes[at + i] = static_cast<uint8_t>(value >> (8 * (count - 1 - i)));
    return bytes;
  };
  // PNG's header carries a CRC, which must be right for the size to be believed: 0x8000 x 0x10000 pixels of one bit.
  const std::vector<uint8_t> png = {0x89, 'P', 'N', 'G',  '\r', '\n', 0x1a, '\n', 0, 0, 0, 13, 'I', 'H', 'D',
                                    'R',  0,   0,   0x80, 0,    0,    1,    0,    0, 1, 0, 0,  0,   0};
  auto png_with_crc = png;
  uint32_t crc = 0xffffffffu;
  for (size_t i = 12; i < png.size(); ++i) {
    crc ^= png[i];
    for (int k = 0; k < 8; ++k) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  for (int i = 3; i >= 0; --i) png_with_crc.push_back(static_cast<uint8_t>(~crc >> (8 * i)));
  const std::vector<uint8_t> idat = {0, 0, 0, 0, 'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
  png_with_crc.insert(png_with_crc.end(), idat.begin(), idat.end());
  EXPECT_EQ(error_of(png_with_crc),
            "PNG: 32768 x 65536 pixels are more than the limit of 67108864 (--max-pixels moves it)");

  auto jpeg = golden::bytes("base.jpg");
  for (size_t i = 0; i + 9 < jpeg.size(); ++i) {
    if (jpeg[i] == 0xff && jpeg[i + 1] == 0xc0) jpeg = big_endian(big_endian(jpeg, i + 5, 65000, 2), i + 7, 65000, 2);
  }
  EXPECT_EQ(error_of(jpeg), "JPEG: 65000 x 65000 pixels are more than the limit of 67108864 (--max-pixels moves it)");

  const std::string ppm = "P6\n100000 100000\n255\n";
  EXPECT_EQ(error_of({ppm.begin(), ppm.end()}),
            "PNM: 100000 x 100000 pixels are more than the limit of 67108864 (--max-pixels moves it)");
  const std::string huge = "P6\n99999999999999999999 1\n255\n";
  EXPECT_NE(error_of({huge.begin(), huge.end()}), "");

  auto bmp = golden::bytes("rgb.bmp");
  bmp[20] = 0x40;  // width |= 2^22
  EXPECT_EQ(error_of(bmp, {.limits = {.max_pixels = 1000}}),
            "BMP: 4194349 x 37 pixels are more than the limit of 1000 (--max-pixels moves it)");
  EXPECT_NE(error_of(golden::bytes("lossy.webp"), {.limits = {.max_pixels = 1000}}).find("limit of 1000"),
            std::string::npos);
}

TEST(Decode, AProgressiveJpegOfTooManyScansIsRefused) {
  EXPECT_EQ(error_of(golden::bytes("progressive.jpg")), "");
  EXPECT_EQ(error_of(golden::bytes("progressive.jpg"), {.limits = {.max_scans = 3}}),
            "JPEG: more than the limit of 3 scans");
}

TEST(Decode, AFileOfNoKnownFormatIsAnError) {
  EXPECT_NE(error_of({}).find("empty"), std::string::npos);
  EXPECT_NE(error_of({'h', 'e', 'l', 'l', 'o', '!', 0, 0}).find("no known format"), std::string::npos);
  EXPECT_EQ(error_of({0, 0, 0, 0x18, 'f', 't', 'y', 'p', 'h', 'e', 'i', 'c'}),
            "a HEIC file, which is not read: convert it to PNG or JPEG");
  EXPECT_NE(error_of(golden::bytes("rgb.ppm"), {.limits = {.max_file_bytes = 100}}).find("limit of 100"),
            std::string::npos);
}

TEST(DetectFormat, TellsWhatAFileIsFromItsFirstBytes) {
  const auto of = [](std::string start) {
    start.resize(std::max<size_t>(start.size(), 64), '\0');
    return detect_format({reinterpret_cast<const uint8_t*>(start.data()), start.size()});
  };
  using namespace std::string_literals;
  EXPECT_EQ(of("\0\0\0\x18"
               "ftypheic"s),
            Format::heif);
  EXPECT_EQ(of("\0\0\0\x20"
               "ftypavif"s),
            Format::avif);
  EXPECT_EQ(of("\0\0\0\x20"
               "ftypisom"s),
            Format::video);
  EXPECT_EQ(of("\0\0\0\x18"
               "ftypcrx "s),
            Format::camera_raw);
  EXPECT_EQ(of("MM\0*"s), Format::tiff);
  EXPECT_EQ(of("II*\0\x10\0\0\0CR\2\0"s), Format::camera_raw);
  EXPECT_EQ(of("\0\0\0\x0cjP  \r\n\x87\n"s), Format::jpeg_2000);
  EXPECT_EQ(of("<?xml version=\"1.0\"?><svg/>"), Format::svg);
  EXPECT_EQ(of("\xef\xbb\xbf\n<!DOCTYPE HTML>"), Format::html);
  EXPECT_EQ(of("%PDF-1.7\n"), Format::pdf);
  EXPECT_EQ(of("\0\5\x16\7\0\2"s), Format::apple_double);
  EXPECT_EQ(of("version https://git-lfs.github.com/spec/v1\n"), Format::lfs_pointer);
  EXPECT_EQ(of("\0\0\1\0\1\0\x20\x20\0\0\1\0"s), Format::icon);
  EXPECT_EQ(of("P3 # text\n"), Format::pnm);
  // Text and the zeros of an empty file are no images, though they begin like some.
  EXPECT_EQ(of("P5.js is a library"), Format::unknown);
  EXPECT_EQ(of("BMW drivers, a study"), Format::unknown);
  EXPECT_EQ(of(""), Format::unknown);
  for (int f = 1; name_of(static_cast<Format>(f)) != "unknown"; ++f)
    EXPECT_EQ(decodable(static_cast<Format>(f)), f <= static_cast<int>(Format::tiff)) << f;
}

TEST(Decode, PnmSamplesAreScaledToEightBits) {
  const auto pixels = []<size_t n>(const char(&file)[n]) {
    return decode(std::vector<uint8_t>(file, file + n - 1), {.channels = 1}).pixels;
  };
  EXPECT_EQ(pixels("P5 # sixteen bits\n2 1\n65535\n\xff\xff\x80\x01"), (std::vector<uint8_t>{255, 128}));
  EXPECT_EQ(pixels("P5 2 1 3 \x01\x03"), (std::vector<uint8_t>{85, 255}));
  EXPECT_EQ(pixels("P5 3 1 10 \x01\x03\x05"), (std::vector<uint8_t>{26, 76, 128}));  // 25.5, 76.5, 127.5: half to even
}

TEST(Decode, PnmIsReadAsTextToo) {
  const auto pixels = [](std::string_view file) {
    return decode({reinterpret_cast<const uint8_t*>(file.data()), file.size()}, {.channels = 0}).pixels;
  };
  EXPECT_EQ(pixels("P1 # bits need no space\n4 2\n0101 1\n#\n1 0 0"),
            (std::vector<uint8_t>{255, 0, 255, 0, 0, 0, 255, 255}));
  EXPECT_EQ(pixels("P2\n3 1\n100\n0 #half\n50\n 100"), (std::vector<uint8_t>{0, 128, 255}));
  EXPECT_EQ(pixels("P3 1 1 255 1 2 3 "), (std::vector<uint8_t>{1, 2, 3}));
  EXPECT_EQ(pixels("P4\n9 2\n\x80\x80\x7f\x01"),
            (std::vector<uint8_t>{0, 255, 255, 255, 255, 255, 255, 255, 0, 255, 0, 0, 0, 0, 0, 0, 0, 255}));
  for (const char* wrong : {"P1 2 1 0", "P1 2 1 0 2", "P2 2 1 9 1", "P2 2 1 9 1 10", "P3 1 1 255 1 2 ", "P4 9 1\n\x80",
                            "P2 1 1 0 0 ", "P2 2 1 9 1 -1"}) {
    EXPECT_NE(error_of({wrong, wrong + std::strlen(wrong)}), "") << wrong;
  }
}

TEST(ReadFile, SaysWhatIsWrong) {
  std::vector<uint8_t> bytes;
  EXPECT_THROW(read_file(golden::path("no such file"), 100, bytes), Error);
  EXPECT_THROW(read_file(golden::path(""), 100, bytes), Error);  // a directory
  EXPECT_THROW(read_file("/dev/zero", 100, bytes), Error);
  EXPECT_THROW(read_file(golden::path("photo.jpg"), 100, bytes), Error);
}

}  // namespace
}  // namespace saccade::data
