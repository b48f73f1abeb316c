#include <fmt/format.h>
#include <png.h>
#include <saccade/data/decode_formats.h>
#include <saccade/data/exif.h>
#include <saccade/kernels/error.h>

#include <csetjmp>
#include <cstring>
#include <string>

namespace saccade::data::formats {
namespace {

/// As with libjpeg, an error jumps to setjmp, over C frames only; what has a destructor lives outside.
struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const uint8_t> rest;
  bool ended = false;         ///< more was asked for than the file has
  bool at_last_row = false;   ///< of all passes
  bool has_all_rows = false;  ///< libpng looks for the end of the stream before it returns the last one
  std::jmp_buf escape;
  char message[200] = "out of memory";

  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

[[noreturn]] void fail(png_structp png, png_const_charp message) {
  auto& reader = *static_cast<Reader*>(png_get_error_ptr(png));
  std::snprintf(reader.message, sizeof reader.message, "%s", message);
  std::longjmp(reader.escape, 1);
}

void read_bytes(png_structp png, png_bytep to, size_t count) {
  auto& reader = *static_cast<Reader*>(png_get_io_ptr(png));
  if (count > reader.rest.size()) {
    reader.ended = true;
    // What ends within the checksum of a chunk has its pixels.
    if ((png_get_io_state(png) & PNG_IO_MASK_LOC) != PNG_IO_CHUNK_CRC) fail(png, "the file ends too early");
    std::memset(to, 0, count);
    reader.rest = {};
    return;
  }
  std::memcpy(to, reader.rest.data(), count);
  reader.rest = reader.rest.subspan(count);
  // The last chunk of pixels is as long as the file has it: libpng would look at none of what it cannot have whole.
  const bool header = count == 8 && (png_get_io_state(png) & PNG_IO_MASK_LOC) == PNG_IO_CHUNK_HDR;
  if (header && std::memcmp(to + 4, "IDAT", 4) == 0 && png_get_uint_32(to) > reader.rest.size())
    png_save_uint_32(to, static_cast<png_uint_32>(reader.rest.size()));
}

/// Called when the pixels of a row are complete.
void on_row(png_structp png, png_row_infop, png_bytep) {
  auto& reader = *static_cast<Reader*>(png_get_io_ptr(png));
  reader.has_all_rows = reader.at_last_row;
}

/// To libpng it is a warning when the pixels' own checksum is wrong.
void on_warning(png_structp png, png_const_charp message) {
  if (std::strstr(message, "incorrect data check")) fail(png, message);
}

bool read_header(Reader& reader) {
  if (setjmp(reader.escape)) return false;
  png_read_info(reader.png, reader.info);
  // Of the pixels it is zlib's checksum that counts, not those of the chunks that they are cut into.
  png_set_crc_action(reader.png, PNG_CRC_QUIET_USE, PNG_CRC_NO_CHANGE);
  return true;
}

bool set_up_conversions(Reader& reader, int& passes) {
  if (setjmp(reader.escape)) return false;
  png_set_expand(reader.png);
  png_set_strip_16(reader.png);
  png_set_strip_alpha(reader.png);
  png_set_read_user_transform_fn(reader.png, on_row);
  passes = png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  return true;
}

bool read_rows(Reader& reader, Image& out, int passes) {
  if (setjmp(reader.escape)) return reader.ended && reader.has_all_rows;
  for (int pass = 0; pass < passes; ++pass) {
    for (int y = 0; y < out.height; ++y) {
      reader.at_last_row = pass == passes - 1 && y == out.height - 1;
      // Of an interlaced image, the last pass has the odd rows.
      reader.has_all_rows = reader.at_last_row && passes > 1 && y % 2 == 0;
      png_read_row(reader.png, out.row(y), nullptr);
    }
  }
  return true;
}

/// Reads on to the end of the file, for the checksum of the pixels. What comes after these may be damaged or missing.
bool read_end(Reader& reader) {
  if (setjmp(reader.escape)) return reader.ended || png_get_io_chunk_type(reader.png) != 0x49444154;  // IDAT
  png_read_end(reader.png, nullptr);
  return true;
}

/// Of the eXIf chunk, before the pixels or after them.
int orientation_of(std::span<const uint8_t> bytes) {
  for (size_t at = 8; at + 8 <= bytes.size();) {  // length, type, data, checksum
    const size_t length = png_get_uint_32(bytes.data() + at);
    if (length > bytes.size() - at - 8) break;
    if (std::memcmp(bytes.data() + at + 4, "eXIf", 4) == 0) return exif_orientation(bytes.subspan(at + 8, length));
    at += 12 + length;
  }
  return 1;
}

}  // namespace

void decode_png(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  Reader reader;
  reader.rest = bytes;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, fail, on_warning);
  if (reader.png) reader.info = png_create_info_struct(reader.png);
  if (!reader.info) throw Error("PNG: out of memory");
  const auto check = [&](bool ok) {
    if (!ok) throw Error(fmt::format("PNG: {}", reader.message));
  };
  png_set_read_fn(reader.png, &reader, read_bytes);
  png_set_user_limits(reader.png, 0x7fffffff, 0x7fffffff);  // check_size() below says it in our words
  // Of texts, profiles and whatever else is no pixel nothing is read: compressed ones are bombs too.
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_set_chunk_malloc_max(reader.png, 0x7fffffff);

  check(read_header(reader));
  check_size("PNG", png_get_image_width(reader.png, reader.info), png_get_image_height(reader.png, reader.info),
             options.limits);
  int passes = 1;
  check(set_up_conversions(reader, passes));
  const int channels = png_get_channels(reader.png, reader.info);
  out.resize(static_cast<int>(png_get_image_height(reader.png, reader.info)),
             static_cast<int>(png_get_image_width(reader.png, reader.info)), channels);
  const size_t stride = static_cast<size_t>(out.width) * channels;
  if ((channels != 1 && channels != 3) || png_get_rowbytes(reader.png, reader.info) != stride) {
    throw Error(fmt::format("PNG: rows of {} bytes, expected {} x {} channels",
                            png_get_rowbytes(reader.png, reader.info), out.width, channels));
  }
  check(read_rows(reader, out, passes));
  if (!reader.ended) check(read_end(reader));
  if (options.exif) make_upright(out, orientation_of(bytes));
}

}  // namespace saccade::data::formats
