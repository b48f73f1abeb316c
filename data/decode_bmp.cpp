#include <fmt/format.h>

#include <algorithm>
#include <memory>

// stb_image trusts what it reads: it is given only memory, only this format, and only files whose header has been
// checked here against their length.
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_NO_FAILURE_STRINGS
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb_image.h>
#pragma GCC diagnostic pop

#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

namespace saccade::data::formats {

void decode_bmp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  const auto little = [&](size_t at, int count) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i) value |= static_cast<uint32_t>(bytes[at + static_cast<size_t>(i)]) << (8 * i);
    return value;
  };
  if (bytes.size() < 26) throw Error("BMP: the file ends within its header");
  const uint32_t data_offset = little(10, 4), header_bytes = little(14, 4);
  const bool core_header = header_bytes == 12;
  if (!core_header && (header_bytes < 40 || header_bytes > 124)) {
    throw Error(fmt::format("BMP: a header of {} bytes is not supported", header_bytes));
  }
  if (bytes.size() < 14 + size_t{header_bytes}) throw Error("BMP: the file ends within its header");
  const int64_t width = core_header ? little(18, 2) : static_cast<int32_t>(little(18, 4));
  int64_t height = core_header ? little(20, 2) : static_cast<int32_t>(little(22, 4));
  if (height < 0) height = -height;  // stored from the top down
  const uint32_t bits = core_header ? little(24, 2) : little(28, 2);
  const uint32_t compression = core_header ? 0 : little(30, 4);
  if (compression != 0 && compression != 3) throw Error("BMP: compressed images are not supported");
  if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    throw Error(fmt::format("BMP: {} bits a pixel are not supported", bits));
  }
  check_size("BMP", width, height, options.limits);
  const int64_t needed = data_offset + (width * bits + 31) / 32 * 4 * height;
  if (data_offset < 14 + header_bytes || needed > static_cast<int64_t>(bytes.size())) {
    throw Error(fmt::format("BMP: {} x {} pixels of {} bits need {} bytes, the file has {}", width, height, bits,
                            needed, bytes.size()));
  }
  int w = 0, h = 0, stored = 0;
  const std::unique_ptr<stbi_uc, void (*)(void*)> pixels(
      stbi_load_from_memory(bytes.data(), static_cast<int>(bytes.size()), &w, &h, &stored, 3), stbi_image_free);
  if (!pixels) throw Error("BMP: the file is corrupt or of a kind that is not supported");
  if (w != width || h != height) {
    throw Error(fmt::format("BMP: decoded to {} x {}, the header says {} x {}", w, h, width, height));
  }
  out.resize(h, w, 3);
  std::copy_n(pixels.get(), out.pixels.size(), out.pixels.data());
}

}  // namespace saccade::data::formats
