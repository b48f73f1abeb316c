#include <fmt/format.h>
#include <gif_lib.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

namespace saccade::data::formats {
namespace {

struct Closer {
  void operator()(GifFileType* file) const { DGifCloseFile(file, nullptr); }
};
using File = std::unique_ptr<GifFileType, Closer>;

/// A file that ends where its next part would begin ends with empty parts.
int read_bytes(GifFileType* file, GifByteType* to, int count) {
  auto& rest = *static_cast<std::span<const uint8_t>*>(file->UserData);
  const size_t present = std::min(rest.size(), static_cast<size_t>(count));
  std::memcpy(to, rest.data(), present);
  rest = rest.subspan(present);
  if (present > 0 || count != 1) return static_cast<int>(present);
  *to = 0;
  return 1;
}

void check(int result, const GifFileType* file) {
  if (result == GIF_OK) return;
  const char* reason = GifErrorString(file->Error);
  throw Error(fmt::format("GIF: {}", reason ? reason : "the file is corrupt"));
}

/// Goes on to the first frame; returns the transparent colour, or -1 where there is none.
int find_frame(GifFileType* file) {
  int transparent = -1;
  for (;;) {
    GifRecordType record;
    check(DGifGetRecordType(file, &record), file);
    if (record == IMAGE_DESC_RECORD_TYPE) break;
    if (record != EXTENSION_RECORD_TYPE) throw Error("GIF: the file holds no image");
    int code = 0;
    GifByteType* block = nullptr;  // its length, and that many bytes
    check(DGifGetExtension(file, &code, &block), file);
    for (bool first = true; block; first = false) {
      if (first && code == GRAPHICS_EXT_FUNC_CODE && block[0] >= 4 && (block[1] & 1)) transparent = block[4];
      check(DGifGetExtensionNext(file, &block), file);
    }
  }
  return transparent;
}

}  // namespace

void decode_gif(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  int reason = 0;
  const File file(DGifOpen(&bytes, read_bytes, &reason));
  if (!file) {
    const char* words = GifErrorString(reason);
    throw Error(fmt::format("GIF: {}", words ? words : "the file is corrupt"));
  }
  const int transparent = find_frame(file.get());
  check(DGifGetImageDesc(file.get()), file.get());
  const GifImageDesc& frame = file->Image;
  // A frame may reach beyond the screen, which then grows.
  const int width = std::max(file->SWidth, frame.Left + frame.Width);
  const int height = std::max(file->SHeight, frame.Top + frame.Height);
  check_size("GIF", width, height, options.limits);
  if (frame.Width <= 0 || frame.Height <= 0) throw Error("GIF: the first frame is empty");

  // Colours that a map lacks are black; without a map, they are gray levels.
  const ColorMapObject* map = frame.ColorMap ? frame.ColorMap : file->SColorMap;
  std::vector<GifColorType> colours(256, GifColorType{0, 0, 0});
  if (map) {
    std::copy_n(map->Colors, std::min(map->ColorCount, 256), colours.begin());
  } else {
    for (size_t i = 0; i < colours.size(); ++i)
      colours[i].Red = colours[i].Green = colours[i].Blue = static_cast<GifByteType>(i);
  }
  // Outside of the frame the screen is of the transparent colour, or else of the first.
  out.resize(height, width, 3);
  const GifColorType around = colours[static_cast<size_t>(std::max(transparent, 0))];
  const bool covers = frame.Width == width && frame.Height == height;
  for (size_t i = 0; !covers && i < out.pixels.size(); i += 3) {
    out.pixels[i] = around.Red;
    out.pixels[i + 1] = around.Green;
    out.pixels[i + 2] = around.Blue;
  }
  std::vector<GifPixelType> line(static_cast<size_t>(frame.Width));
  const auto read_row = [&](int y) {
    check(DGifGetLine(file.get(), line.data(), frame.Width), file.get());
    uint8_t* to = out.row(frame.Top + y) + static_cast<size_t>(frame.Left) * 3;
    for (const GifPixelType index : line) {
      const GifColorType colour = colours[index];
      *to++ = colour.Red;
      *to++ = colour.Green;
      *to++ = colour.Blue;
    }
  };
  if (!frame.Interlace) {
    for (int y = 0; y < frame.Height; ++y) read_row(y);
  } else {
    constexpr int kPasses[][2] = {{0, 8}, {4, 8}, {2, 4}, {1, 2}};  // first row, step
    for (const auto& [first, step] : kPasses)
      for (int y = first; y < frame.Height; y += step) read_row(y);
  }
}

}  // namespace saccade::data::formats
