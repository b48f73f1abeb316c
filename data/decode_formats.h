#pragma once

#include <saccade/data/decode.h>

#include <cstdint>
#include <span>

/// One decoder a format, all behind decode(). Each checks the limits before it allocates, returns 1 or 3 channels as
/// the file has them, upright if options.exif asks for it, and throws saccade::Error.
namespace saccade::data::formats {

void decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_png(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_webp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_bmp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_pnm(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_gif(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
void decode_tiff(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);

/// Whether a sample of a PNM file whose header is right has two bytes.
bool pnm_has_16_bits(std::span<const uint8_t> bytes);
/// Whether a sample of a TIFF that decode_tiff() takes has 16 bits.
bool tiff_has_16_bits(std::span<const uint8_t> bytes);

/// Throws unless 0 < width, 0 < height and width * height <= limits.max_pixels.
void check_size(const char* format, int64_t width, int64_t height, const DecodeLimits& limits);

}  // namespace saccade::data::formats
