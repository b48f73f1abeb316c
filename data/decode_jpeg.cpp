// clang-format off
#include <cstdio>     // jpeglib.h needs FILE and size_t to be declared before it
#include <jpeglib.h>
#include <jerror.h>   // whose numbers of messages depend on the version that jpeglib.h says
// clang-format on

#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/data/exif.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <csetjmp>
#include <string_view>

namespace saccade::data::formats {
namespace {

constexpr int kApp1 = JPEG_APP0 + 1;

/// libjpeg reports errors by a callback that must not return: it jumps back to where setjmp was called. The jump passes
/// over C frames only; everything with a destructor lives outside the function that calls setjmp.
struct Reader {
  jpeg_decompress_struct info{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf escape;
  char message[JMSG_LENGTH_MAX] = {};
  int max_scans = 0;

  ~Reader() { jpeg_destroy_decompress(&info); }
};

Reader& reader_of(j_common_ptr info) { return *static_cast<Reader*>(info->client_data); }

[[noreturn]] void fail(j_common_ptr info) {
  Reader& reader = reader_of(info);
  info->err->format_message(info, reader.message);
  std::longjmp(reader.escape, 1);
}

/// A warning that means lost pixels is an error here: libjpeg would go on with gray or garbled blocks.
void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_TOO_MUCH_DATA:
    case JWRN_BOGUS_PROGRESSION:
      return;
    default:
      fail(info);
  }
}

/// A few kilobytes of progressive JPEG can ask for thousands of passes over a large image.
void on_progress(j_common_ptr info) {
  Reader& reader = reader_of(info);
  if (reader.info.input_scan_number > reader.max_scans) {
    std::snprintf(reader.message, sizeof reader.message, "more than the limit of %d scans", reader.max_scans);
    std::longjmp(reader.escape, 1);
  }
}

/// Everything up to the decision about the output's size. False: reader.message says why.
bool open(Reader& reader, std::span<const uint8_t> bytes) {
  if (setjmp(reader.escape)) return false;
  jpeg_mem_src(&reader.info, bytes.data(), bytes.size());
  jpeg_read_header(&reader.info, TRUE);
  return true;
}

bool start(Reader& reader) {
  if (setjmp(reader.escape)) return false;
  jpeg_start_decompress(&reader.info);
  return true;
}

bool read_rows(Reader& reader, uint8_t* pixels, size_t stride) {
  if (setjmp(reader.escape)) return false;
  while (reader.info.output_scanline < reader.info.output_height) {
    JSAMPROW rows[4];
    for (int i = 0; i < 4; ++i) rows[i] = pixels + (reader.info.output_scanline + i) * stride;
    const JDIMENSION left = reader.info.output_height - reader.info.output_scanline;
    jpeg_read_scanlines(&reader.info, rows, left < 4 ? left : 4);
  }
  jpeg_finish_decompress(&reader.info);  // reads on to the end marker
  return true;
}

/// Of the first marker with EXIF data.
int orientation_of(const jpeg_decompress_struct& info) {
  constexpr std::string_view kExif("Exif\0\0", 6);
  for (jpeg_saved_marker_ptr m = info.marker_list; m; m = m->next) {
    const std::string_view data(reinterpret_cast<const char*>(m->data), m->data_length);
    if (m->marker == kApp1 && data.starts_with(kExif)) return exif_orientation({m->data, m->data_length});
  }
  return 1;
}

/// Adobe writes CMYK inverted, and so do all who followed.
void cmyk_to_rgb(Image& image) {
  const size_t count = static_cast<size_t>(image.height) * image.width;
  uint8_t* p = image.pixels.data();
  for (size_t i = 0; i < count; ++i) {
    const unsigned k = p[4 * i + 3];
    for (int c = 0; c < 3; ++c) {
      const unsigned product = (255u - p[4 * i + c]) * k + 128;
      p[3 * i + c] = static_cast<uint8_t>(k - ((product + (product >> 8)) >> 8));
    }
  }
  image.channels = 3;
  image.pixels.resize(count * 3);
}

}  // namespace

void decode_jpeg(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  Reader reader;
  jpeg_decompress_struct& info = reader.info;
  info.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = fail;
  reader.errors.emit_message = on_message;
  jpeg_create_decompress(&info);
  info.client_data = &reader;
  reader.max_scans = options.limits.max_scans;
  reader.progress.progress_monitor = on_progress;
  info.progress = &reader.progress;
  if (options.exif) jpeg_save_markers(&info, kApp1, 0xffff);
  const auto check = [&](bool ok) {
    if (!ok) throw Error(fmt::format("JPEG: {}", reader.message));
  };

  check(open(reader, bytes));
  const int orientation = orientation_of(info);  // before the markers are freed
  check_size("JPEG", info.image_width, info.image_height, options.limits);
  // A progressive image keeps its coefficients: 2 bytes each, up to 4 channels, plus room for the rest.
  info.mem->max_memory_to_use = static_cast<long>(int64_t{info.image_width} * info.image_height * 12 + (8 << 20));

  const bool cmyk = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
  const bool gray =
      info.jpeg_color_space == JCS_GRAYSCALE || (options.channels == 1 && info.jpeg_color_space == JCS_YCbCr);
  info.out_color_space = cmyk ? JCS_CMYK : gray ? JCS_GRAYSCALE : JCS_RGB;
  if (options.useful_side > 0) {
    // Of an image that is nothing but long, crops show what its shorter side has.
    const double shorter = std::min(info.image_width, info.image_height);
    const double pixels = std::min(static_cast<double>(info.image_width) * info.image_height, 2 * shorter * shorter);
    const double wanted = options.useful_side * options.useful_side;
    info.scale_num = 8;
    info.scale_denom = 8;
    for (unsigned n = 4; n >= 1 && pixels * n * n >= wanted * 64; n /= 2) info.scale_num = n;
  }
  check(start(reader));
  const int channels = info.output_components;
  out.resize(static_cast<int>(info.output_height), static_cast<int>(info.output_width), channels);
  check(read_rows(reader, out.pixels.data(), static_cast<size_t>(out.width) * channels));
  if (cmyk) cmyk_to_rgb(out);
  make_upright(out, orientation);
}

}  // namespace saccade::data::formats
