#include <fmt/format.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>
#include <webp/decode.h>

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

}  // namespace

void decode_webp(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) throw Error("WebP: the library's version does not match its header");
  const VP8StatusCode header = WebPGetFeatures(bytes.data(), bytes.size(), &config.input);
  if (header != VP8_STATUS_OK) throw Error(fmt::format("WebP: {}", reason(header)));
  if (config.input.has_animation) throw Error("WebP: animations are not supported, only stills");
  check_size("WebP", config.input.width, config.input.height, options.limits);
  out.resize(config.input.height, config.input.width, 3);
  config.output.colorspace = MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {out.pixels.data(), out.width * 3, out.pixels.size()};
  const VP8StatusCode status = WebPDecode(bytes.data(), bytes.size(), &config);
  WebPFreeDecBuffer(&config.output);
  if (status != VP8_STATUS_OK) throw Error(fmt::format("WebP: {}", reason(status)));
}

}  // namespace saccade::data::formats
