#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/data/exif.h>
#include <saccade/kernels/error.h>
#include <tiffio.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace saccade::data::formats {
namespace {

/// The bytes of a file as libtiff asks for them, and the first thing that it found wrong with them.
struct Reader {
  std::span<const uint8_t> bytes;
  uint64_t at = 0;
  std::string message = {};
};

Reader& of(thandle_t handle) { return *static_cast<Reader*>(handle); }

tmsize_t read_bytes(thandle_t handle, void* to, tmsize_t count) {
  Reader& reader = of(handle);
  const uint64_t rest = reader.bytes.size() - std::min<uint64_t>(reader.at, reader.bytes.size());
  const auto present = static_cast<tmsize_t>(std::min(rest, static_cast<uint64_t>(count)));
  if (present > 0) std::memcpy(to, reader.bytes.data() + reader.at, static_cast<size_t>(present));
  reader.at += static_cast<uint64_t>(present);
  return present;
}
tmsize_t write_bytes(thandle_t, void*, tmsize_t) { return 0; }
toff_t seek(thandle_t handle, toff_t offset, int whence) {
  Reader& reader = of(handle);
  reader.at = offset + (whence == SEEK_CUR ? reader.at : whence == SEEK_END ? reader.bytes.size() : 0);
  return reader.at;
}
int close(thandle_t) { return 0; }
toff_t size(thandle_t handle) { return of(handle).bytes.size(); }

int on_error(TIFF*, void* user, const char*, const char* format, va_list arguments) {
  std::string& message = static_cast<Reader*>(user)->message;
  char text[200];
  std::vsnprintf(text, sizeof text, format, arguments);
  if (message.empty()) message = text;
  return 1;
}
/// Of JPEG's warnings all but one mean lost pixels: libjpeg would go on with gray or garbled blocks.
int on_warning(TIFF* file, void* user, const char* module, const char* format, va_list arguments) {
  if (module == nullptr || std::strcmp(module, "JPEGLib") != 0) return 1;
  Reader found;
  on_error(file, &found, module, format, arguments);
  std::string& message = static_cast<Reader*>(user)->message;
  if (message.empty() && found.message.find("extraneous") == std::string::npos) message = found.message;
  return 1;
}

struct Closer {
  void operator()(TIFF* file) const { TIFFClose(file); }
  void operator()(TIFFOpenOptions* options) const { TIFFOpenOptionsFree(options); }
};
using File = std::unique_ptr<TIFF, Closer>;

void check(bool ok, const Reader& reader) {
  if (!ok) throw Error(fmt::format("TIFF: {}", reader.message.empty() ? "the file is corrupt" : reader.message));
}

File open(Reader& reader) {
  const std::unique_ptr<TIFFOpenOptions, Closer> options(TIFFOpenOptionsAlloc());
  // What libtiff keeps of a file: its directory, whose numbers it widens, and a strip or tile as it is stored.
  TIFFOpenOptionsSetMaxSingleMemAlloc(options.get(), 4 * static_cast<tmsize_t>(reader.bytes.size()) + (1 << 20));
  TIFFOpenOptionsSetErrorHandlerExtR(options.get(), on_error, &reader);
  TIFFOpenOptionsSetWarningHandlerExtR(options.get(), on_warning, &reader);
  File file(TIFFClientOpenExt("", "rm", &reader, read_bytes, write_bytes, seek, close, size, nullptr, nullptr,
                              options.get()));
  check(file != nullptr, reader);
  reader.message.clear();  // what is wrong with tags that are no pixels stops nothing
  return file;
}

template <class T>
T field(TIFF* file, uint32_t tag) {
  T value = 0;
  TIFFGetFieldDefaulted(file, tag, &value);
  return value;
}

[[noreturn]] void not_read(const std::string& what) {
  throw Error(fmt::format("TIFF: {} is not read: convert it to PNG", what));
}

std::string name_of_compression(uint16_t compression) {
  const TIFFCodec* codec = TIFFFindCODEC(compression);
  return fmt::format("compression {}", codec ? codec->name : std::to_string(compression));
}

bool reads_compression(uint16_t compression) {
  constexpr uint16_t kRead[] = {COMPRESSION_NONE,          COMPRESSION_CCITTRLE, COMPRESSION_CCITTFAX3,
                                COMPRESSION_CCITTFAX4,     COMPRESSION_LZW,      COMPRESSION_JPEG,
                                COMPRESSION_ADOBE_DEFLATE, COMPRESSION_DEFLATE,  COMPRESSION_PACKBITS};
  return std::ranges::find(kRead, compression) != std::end(kRead);
}

/// How the samples of an image become bytes.
struct Layout {
  int64_t width = 0, height = 0;
  int bits = 0, samples = 0, channels = 0;  ///< of a sample, of a pixel, of the result
  bool planes = false;                      ///< each sample has strips or tiles of its own
  bool inverted = false;                    ///< zero is white
  const uint16_t* map[3] = {};              ///< colours of a palette

  int samples_in_row() const { return planes ? 1 : samples; }
  int planes_shown() const { return planes ? channels : 1; }
  int64_t row_bytes(int64_t pixels) const { return (pixels * samples_in_row() * bits + 7) / 8; }

  /// Memory for so many pixels and rows as they are stored: in proportion to the image, whatever the file claims.
  std::vector<uint8_t> stored(int64_t pixels, int64_t rows) const {
    if (pixels < 1 || rows < 1 || row_bytes(pixels) > 8 * std::max<int64_t>(width * height, 1 << 20) / rows)
      throw Error(fmt::format("TIFF: {} x {} pixels at a time are more than the image needs", pixels, rows));
    return std::vector<uint8_t>(static_cast<size_t>(row_bytes(pixels) * rows));
  }

  uint8_t byte(const uint8_t* row, int64_t i) const {
    if (bits == 8) return row[i];
    if (bits == 16) {
      uint16_t value;
      std::memcpy(&value, row + 2 * i, 2);
      return static_cast<uint8_t>(value >> 8);
    }
    const int64_t at = i * bits;
    return static_cast<uint8_t>((row[at / 8] >> (8 - bits - at % 8)) & ((1 << bits) - 1));
  }
  /// Puts `count` pixels of a row into `to`; of samples in planes only number `plane`.
  void convert(const uint8_t* row, int plane, int64_t count, uint8_t* to) const {
    const int per_pixel = samples_in_row();
    if (bits == 8 && per_pixel == channels && !inverted && !map[0]) {  // as most are
      std::memcpy(to, row, static_cast<size_t>(count * channels));
      return;
    }
    const int scale = bits < 8 && !map[0] ? 255 / ((1 << bits) - 1) : 1;
    for (int64_t x = 0; x < count; ++x, to += channels) {
      if (map[0]) {
        const uint8_t index = byte(row, x * per_pixel);
        for (int c = 0; c < 3; ++c) to[c] = static_cast<uint8_t>(map[c][index] >> 8);
        continue;
      }
      for (int c = 0; c < std::min(per_pixel, channels); ++c) {
        const int level = byte(row, x * per_pixel + c) * scale;
        to[planes ? plane : c] = static_cast<uint8_t>(inverted ? 255 - level : level);
      }
    }
  }
};

/// Reads what the directory says, and refuses what cannot be made bytes of.
Layout layout_of(TIFF* file) {
  Layout layout;
  layout.width = field<uint32_t>(file, TIFFTAG_IMAGEWIDTH);
  layout.height = field<uint32_t>(file, TIFFTAG_IMAGELENGTH);
  layout.bits = field<uint16_t>(file, TIFFTAG_BITSPERSAMPLE);
  layout.samples = field<uint16_t>(file, TIFFTAG_SAMPLESPERPIXEL);
  layout.planes = layout.samples > 1 && field<uint16_t>(file, TIFFTAG_PLANARCONFIG) == PLANARCONFIG_SEPARATE;
  if (field<uint32_t>(file, TIFFTAG_SUBFILETYPE) & FILETYPE_REDUCEDIMAGE)
    not_read("an image that begins with a small copy, as a camera's raw file,");
  const auto compression = field<uint16_t>(file, TIFFTAG_COMPRESSION);
  if (!reads_compression(compression)) not_read(name_of_compression(compression));
  const auto kind = field<uint16_t>(file, TIFFTAG_SAMPLEFORMAT);
  if (kind != SAMPLEFORMAT_UINT && kind != SAMPLEFORMAT_VOID)
    not_read(kind == SAMPLEFORMAT_IEEEFP ? "an image of floating point" : "an image whose samples have a sign");

  uint16_t meaning = 0;
  if (!TIFFGetField(file, TIFFTAG_PHOTOMETRIC, &meaning))
    throw Error("TIFF: the file does not say what its samples mean");
  if (meaning == PHOTOMETRIC_YCBCR && compression == COMPRESSION_JPEG && !layout.planes) {
    TIFFSetField(file, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB);
    meaning = PHOTOMETRIC_RGB;
  }
  const bool colour = meaning == PHOTOMETRIC_RGB, palette = meaning == PHOTOMETRIC_PALETTE;
  layout.inverted = meaning == PHOTOMETRIC_MINISWHITE;
  if (!colour && !palette && !layout.inverted && meaning != PHOTOMETRIC_MINISBLACK) {
    not_read(meaning == PHOTOMETRIC_SEPARATED ? "an image of inks (CMYK)"
             : meaning == PHOTOMETRIC_CFA     ? "a camera's raw file"
                                              : fmt::format("colour space {}", meaning));
  }
  layout.channels = colour || palette ? 3 : 1;
  // Samples beyond these are alpha and the like, which are dropped.
  const int least = colour ? 3 : 1, most = colour ? 8 : palette ? 1 : 2;
  if (layout.samples < least || layout.samples > most)
    not_read(fmt::format("an image of {} samples a pixel", layout.samples));
  const bool narrow = layout.bits == 1 || layout.bits == 2 || layout.bits == 4;
  if (layout.bits != 8 && !(layout.bits == 16 && !palette) && !(narrow && layout.samples == 1))
    not_read(fmt::format("an image of {} bits a sample", layout.bits));
  if (palette && !TIFFGetField(file, TIFFTAG_COLORMAP, &layout.map[0], &layout.map[1], &layout.map[2]))
    throw Error("TIFF: the palette is missing");
  return layout;
}

void read_strips(TIFF* file, const Reader& reader, const Layout& layout, Image& out) {
  if (static_cast<int64_t>(TIFFScanlineSize64(file)) != layout.row_bytes(layout.width))
    throw Error("TIFF: the rows have another length than their pixels need");
  auto row = layout.stored(layout.width, 1);
  for (int plane = 0; plane < layout.planes_shown(); ++plane) {
    for (int y = 0; y < out.height; ++y) {
      check(TIFFReadScanline(file, row.data(), static_cast<uint32_t>(y), static_cast<uint16_t>(plane)) == 1, reader);
      layout.convert(row.data(), plane, out.width, out.row(y));
    }
  }
}

void read_tiles(TIFF* file, const Reader& reader, const Layout& layout, Image& out) {
  const int64_t width = field<uint32_t>(file, TIFFTAG_TILEWIDTH), height = field<uint32_t>(file, TIFFTAG_TILELENGTH);
  auto tile = layout.stored(width, height);
  if (TIFFTileSize64(file) != tile.size()) throw Error("TIFF: the tiles have another size than their pixels need");
  for (int plane = 0; plane < layout.planes_shown(); ++plane) {
    for (int64_t top = 0; top < layout.height; top += height) {
      for (int64_t left = 0; left < layout.width; left += width) {
        check(TIFFReadTile(file, tile.data(), static_cast<uint32_t>(left), static_cast<uint32_t>(top), 0,
                           static_cast<uint16_t>(plane)) >= 0,
              reader);
        const int64_t shown = std::min(width, layout.width - left);
        for (int64_t y = 0; y < std::min(height, layout.height - top); ++y) {
          layout.convert(tile.data() + y * layout.row_bytes(width), plane, shown,
                         out.row(static_cast<int>(top + y)) + left * layout.channels);
        }
      }
    }
  }
}

}  // namespace

bool tiff_has_16_bits(std::span<const uint8_t> bytes) {
  Reader reader{bytes};
  return field<uint16_t>(open(reader).get(), TIFFTAG_BITSPERSAMPLE) == 16;
}

void decode_tiff(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  Reader reader{bytes};
  const File file = open(reader);
  const Layout layout = layout_of(file.get());
  check_size("TIFF", layout.width, layout.height, options.limits);
  out.resize(static_cast<int>(layout.height), static_cast<int>(layout.width), layout.channels);
  if (TIFFIsTiled(file.get()))
    read_tiles(file.get(), reader, layout, out);
  else
    read_strips(file.get(), reader, layout, out);
  check(reader.message.empty(), reader);  // a fax's bad line is told, and gone over
  if (options.exif) make_upright(out, field<uint16_t>(file.get(), TIFFTAG_ORIENTATION));
}

}  // namespace saccade::data::formats
