#include <fmt/format.h>
#include <png.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

namespace saccade::data::formats {
namespace {

/// As with libjpeg, an error jumps to setjmp, over C frames only; what has a destructor lives outside.
struct Reader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  std::span<const uint8_t> rest;
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
  if (count > reader.rest.size()) fail(png, "the file ends too early");
  std::memcpy(to, reader.rest.data(), count);
  reader.rest = reader.rest.subspan(count);
}

bool read_header(Reader& reader) {
  if (setjmp(reader.escape)) return false;
  png_read_info(reader.png, reader.info);
  return true;
}

bool set_up_conversions(Reader& reader) {
  if (setjmp(reader.escape)) return false;
  png_set_expand(reader.png);
  png_set_strip_16(reader.png);
  png_set_strip_alpha(reader.png);
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  return true;
}

bool read_rows(Reader& reader, png_bytep* rows) {
  if (setjmp(reader.escape)) return false;
  png_read_image(reader.png, rows);
  png_read_end(reader.png, nullptr);  // checks the last chunk's CRC and that the end is there
  return true;
}

}  // namespace

void decode_png(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  Reader reader;
  reader.rest = bytes;
  const auto ignore_warning = [](png_structp, png_const_charp) {};
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, fail, ignore_warning);
  if (reader.png) reader.info = png_create_info_struct(reader.png);
  if (!reader.info) throw Error("PNG: out of memory");
  const auto check = [&](bool ok) {
    if (!ok) throw Error(fmt::format("PNG: {}", reader.message));
  };
  png_set_read_fn(reader.png, &reader, read_bytes);
  png_set_user_limits(reader.png, 0x7fffffff, 0x7fffffff);  // check_size() below says it in our words
  png_set_chunk_malloc_max(reader.png, 4 << 20);            // compressed texts and profiles are bombs too
  png_set_chunk_cache_max(reader.png, 100);

  check(read_header(reader));
  check_size("PNG", png_get_image_width(reader.png, reader.info), png_get_image_height(reader.png, reader.info),
             options.limits);
  check(set_up_conversions(reader));
  const int channels = png_get_channels(reader.png, reader.info);
  out.resize(static_cast<int>(png_get_image_height(reader.png, reader.info)),
             static_cast<int>(png_get_image_width(reader.png, reader.info)), channels);
  const size_t stride = static_cast<size_t>(out.width) * channels;
  if ((channels != 1 && channels != 3) || png_get_rowbytes(reader.png, reader.info) != stride) {
    throw Error(fmt::format("PNG: rows of {} bytes, expected {} x {} channels",
                            png_get_rowbytes(reader.png, reader.info), out.width, channels));
  }
  std::vector<png_bytep> rows(static_cast<size_t>(out.height));
  for (int y = 0; y < out.height; ++y) rows[static_cast<size_t>(y)] = out.row(y);
  check(read_rows(reader, rows.data()));
}

}  // namespace saccade::data::formats
