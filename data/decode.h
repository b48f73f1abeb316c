#pragma once

#include <saccade/data/image.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// What a file may cost. A header that claims more is refused before anything is allocated for it.
struct DecodeLimits {
  int64_t max_pixels = int64_t{1} << 26;        ///< width * height (67 million: 200 MB of RGB)
  int64_t max_file_bytes = int64_t{256} << 20;  ///< size of the encoded file
  int max_scans = 100;                          ///< passes of a progressive JPEG; real ones have about ten

  /// Another limit of pixels, with files as large as so many can need.
  static DecodeLimits of_pixels(int64_t pixels) {
    DecodeLimits limits;
    limits.max_pixels = pixels;
    if (pixels > limits.max_file_bytes / 8) limits.max_file_bytes = pixels * 8;
    return limits;
  }
};

struct DecodeOptions {
  /// 1 or 3: the result has that many channels (gray is replicated, RGB weighted as in to_gray()). 0: as stored.
  int channels = 3;
  /// A JPEG whose sqrt(width * height) is a multiple of this is decoded at 1/2, 1/4 or 1/8 of its size, which its
  /// transform gives almost for free, as long as what comes out is still at least this large. Of an image more than
  /// twice as long as it is wide, only so much counts. 0: always in full.
  double useful_side = 0;
  /// Turn and mirror the image as its EXIF orientation says.
  bool exif = true;
  DecodeLimits limits = {};
};

/// What a file is, as far as its first bytes tell.
enum class Format : uint8_t {
  unknown,
  jpeg,
  png,
  webp,
  bmp,
  pnm,
  gif,
  tiff,
  // Not decoded, but known, so that a message can say what a file is.
  camera_raw,
  heif,
  avif,
  jpeg_xl,
  jpeg_2000,
  svg,
  photoshop,
  icon,
  openexr,
  radiance,
  pfm,
  pam,
  qoi,
  dds,
  xcf,
  pdf,
  video,
  html,
  lfs_pointer,
  apple_double,
  archive,
  numpy,
  hdf5,
};
std::string_view name_of(Format format);
/// Whether decode() reads this format.
bool decodable(Format format);
/// A sentence's end for a file that is not decoded: what it is and what to do with it.
std::string advice_on(Format format);

/// How many bytes from the start of a file detect_format() looks at.
inline constexpr size_t kFormatBytes = 32;
/// The format, told from the first kFormatBytes bytes: the name of the file plays no part.
Format detect_format(std::span<const uint8_t> bytes);

/// Decodes a JPEG (baseline, progressive, gray, YCbCr, CMYK), PNG (every colour type and depth), WebP, GIF (of both the
/// first frame), BMP (of 1 to 32 bits, masks and run lengths included), PNM (P1 to P6) or TIFF (the first page: gray,
/// RGB or palette, of 1 to 16 bits), and turns it upright as EXIF data of JPEG, PNG and WebP and TIFF's own tag say.
/// Alpha is dropped, 16-bit samples become 8-bit. Colours are taken as they are stored: no gamma or profile is applied,
/// as Pillow's convert("RGB") does.
///
/// Throws saccade::Error with the reason for a file that is corrupt, truncated, of no known format, or over a limit.
/// @param out  its memory is reused
void decode(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
Image decode(std::span<const uint8_t> bytes, const DecodeOptions& options = {});

/// Whether the samples of a file that decode() takes have 16 bits, which it makes 8 of.
bool has_16_bit_samples(std::span<const uint8_t> bytes);

/// Brings an image of 1 or 3 channels to 3 or 1 in place, as DecodeOptions::channels says.
void convert_channels(Image& image, int channels);

/// Reads a regular file whole into `bytes`, whose memory is reused. Throws saccade::Error naming path and reason.
void read_file(const std::string& path, int64_t max_bytes, std::vector<uint8_t>& bytes);

}  // namespace saccade::data
