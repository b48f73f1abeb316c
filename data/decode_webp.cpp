#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/data/exif.h>
#include <saccade/kernels/error.h>
#include <webp/decode.h>
#include <webp/demux.h>

#include <algorithm>
#include <memory>

namespace saccade::data::formats {
namespace {

const char* reason(VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OUT_OF_MEMORY:
      return "out of memory";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return "it uses a feature that is not supported";
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
      return "the file ends too early";
    default:
      return "the file is corrupt";
  }
}

void check(VP8StatusCode status) {
  if (status != VP8_STATUS_OK) throw Error(fmt::format("WebP: {}", reason(status)));
}

using Demuxer = std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)>;

/// The chunks of a file in the extended format, without a copy of them. Null if they are not all there.
Demuxer demux(std::span<const uint8_t> bytes) {
  const WebPData data{bytes.data(), bytes.size()};
  return {WebPDemux(&data), WebPDemuxDelete};
}

int orientation_of(std::span<const uint8_t> bytes) {
  const Demuxer chunks = demux(bytes);
  if (!chunks) return 1;
  WebPChunkIterator chunk{};
  int orientation = 1;
  if (WebPDemuxGetChunk(chunks.get(), "EXIF", 1, &chunk))
    orientation = exif_orientation({chunk.chunk.bytes, chunk.chunk.size});
  WebPDemuxReleaseChunkIterator(&chunk);
  return orientation;
}

/// Decodes into a rectangle of the image.
void decode_still(std::span<const uint8_t> bytes, WebPDecoderConfig& config, Image& out, int top, int left) {
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  uint8_t* first = out.row(top) + size_t{3} * static_cast<size_t>(left);
  const auto room = static_cast<size_t>(out.pixels.data() + out.pixels.size() - first);
  config.output.u.RGBA = {first, out.width * 3, room};
  const VP8StatusCode status = WebPDecode(bytes.data(), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  check(status);
}

/// The first frame, on black where it does not cover the canvas.
void decode_first_frame(std::span<const uint8_t> bytes, const DecodeLimits& limits, Image& out) {
  const Demuxer chunks = demux(bytes);
  if (!chunks) throw Error("WebP: the animation is corrupt or ends too early");
  const auto width = WebPDemuxGetI(chunks.get(), WEBP_FF_CANVAS_WIDTH),
             height = WebPDemuxGetI(chunks.get(), WEBP_FF_CANVAS_HEIGHT);
  check_size("WebP", width, height, limits);
  struct Frame : WebPIterator {
    Frame() : WebPIterator{} {}
    ~Frame() { WebPDemuxReleaseIterator(this); }
  } frame;
  if (!WebPDemuxGetFrame(chunks.get(), 1, &frame)) throw Error("WebP: the animation holds no frame");
  const std::span still(frame.fragment.bytes, frame.fragment.size);
  WebPDecoderConfig config;
  WebPInitDecoderConfig(&config);
  check(WebPGetFeatures(still.data(), still.size(), &config.input));
  // The library has checked that the frame lies within the canvas, and that it is as large as it says.
  out.resize(static_cast<int>(height), static_cast<int>(width), 3);
  std::fill(out.pixels.begin(), out.pixels.end(), uint8_t{0});
  if (config.input.width > out.width - frame.x_offset || config.input.height > out.height - frame.y_offset)
    throw Error("WebP: the first frame is larger than the image");
  decode_still(still, config, out, frame.y_offset, frame.x_offset);
}

}  // namespace

void decode_webp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) throw Error("WebP: the library's version does not match its header");
  check(WebPGetFeatures(bytes.data(), bytes.size(), &config.input));
  if (config.input.has_animation) {
    decode_first_frame(bytes, options.limits, out);
  } else {
    check_size("WebP", config.input.width, config.input.height, options.limits);
    out.resize(config.input.height, config.input.width, 3);
    decode_still(bytes, config, out, 0, 0);
  }
  constexpr std::string_view kExtended = "VP8X";
  if (options.exif && std::equal(kExtended.begin(), kExtended.end(), bytes.begin() + 12))
    make_upright(out, orientation_of(bytes));
}

}  // namespace saccade::data::formats
