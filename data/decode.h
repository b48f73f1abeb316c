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
};

struct DecodeOptions {
  /// 1 or 3: the result has that many channels (gray is replicated, RGB weighted as in to_gray()). 0: as stored.
  int channels = 3;
  /// A JPEG whose sqrt(width * height) is a multiple of this is decoded at 1/2, 1/4 or 1/8 of its size, which its
  /// transform gives almost for free, as long as what comes out is still at least this large. 0: always in full.
  double useful_side = 0;
  DecodeLimits limits = {};
};

enum class Format : uint8_t { unknown, jpeg, png, webp, bmp, pnm };
std::string_view name_of(Format format);

/// The format, told from the first bytes: the name of the file plays no part.
Format detect_format(std::span<const uint8_t> bytes);

/// Decodes a JPEG (baseline, progressive, gray, YCbCr, CMYK), PNG (every colour type and depth; alpha is dropped), WebP
/// (a still; alpha is dropped), BMP (uncompressed) or binary PNM (P5, P6). 16-bit samples become 8-bit. Colours
/// are taken as they are stored: no gamma or profile is applied, as Pillow's convert("RGB") does.
///
/// Throws saccade::Error with the reason for a file that is corrupt, truncated, of no known format, or over a limit.
/// @param out  its memory is reused
void decode(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
Image decode(std::span<const uint8_t> bytes, const DecodeOptions& options = {});

/// Reads a regular file whole into `bytes`, whose memory is reused. Throws saccade::Error naming path and reason.
void read_file(const std::string& path, int64_t max_bytes, std::vector<uint8_t>& bytes);

}  // namespace saccade::data
