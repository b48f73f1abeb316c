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

int orientation_of(const WebPDemuxer* chunks) {
  WebPChunkIterator chunk{};
  int orientation = 1;
  if (WebPDemuxGetChunk(chunks, "EXIF", 1, &chunk)) {
    orientation = exif_orientation({chunk.chunk.bytes, chunk.chunk.size});
    WebPDemuxReleaseChunkIterator(&chunk);
  }
  return orientation;
}

struct Frame : WebPIterator {
  Frame() : WebPIterator{} {}
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  ~Frame() { WebPDemuxReleaseIterator(this); }
};

}  // namespace

void decode_webp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  // Where its chunks are; nothing is copied. A still is an animation of one frame.
  const WebPData data{bytes.data(), bytes.size()};
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> chunks(WebPDemux(&data), WebPDemuxDelete);
  if (!chunks) throw Error("WebP: the file is corrupt or ends too early");
  const int64_t width = WebPDemuxGetI(chunks.get(), WEBP_FF_CANVAS_WIDTH),
                height = WebPDemuxGetI(chunks.get(), WEBP_FF_CANVAS_HEIGHT);
  check_size("WebP", width, height, options.limits);
  Frame frame;
  if (!WebPDemuxGetFrame(chunks.get(), 1, &frame)) throw Error("WebP: the file holds no image");
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) throw Error("WebP: the library's version does not match its header");
  check(WebPGetFeatures(frame.fragment.bytes, frame.fragment.size, &config.input));
  if (config.input.width > width - frame.x_offset || config.input.height > height - frame.y_offset)
    throw Error("WebP: the first frame is larger than the image");

  out.resize(static_cast<int>(height), static_cast<int>(width), 3);
  // Black where the first frame of an animation leaves something free.
  if (config.input.width < width || config.input.height < height)
    std::fill(out.pixels.begin(), out.pixels.end(), uint8_t{0});
  uint8_t* first = out.row(frame.y_offset) + size_t{3} * static_cast<size_t>(frame.x_offset);
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {first, out.width * 3, static_cast<size_t>(out.pixels.data() + out.pixels.size() - first)};
  const VP8StatusCode status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  WebPFreeDecBuffer(&config.output);
  check(status);
  if (options.exif) make_upright(out, orientation_of(chunks.get()));
}

}  // namespace saccade::data::formats
