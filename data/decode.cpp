#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/data/decode.h>
#include <saccade/data/decode_formats.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace saccade::data {

namespace formats {

void check_size(const char* format, int64_t width, int64_t height, const DecodeLimits& limits) {
  if (width <= 0 || height <= 0)
    throw Error(fmt::format("{}: the header gives a size of {} x {}", format, width, height));
  if (std::max(width, height) > std::numeric_limits<int>::max())
    throw Error(fmt::format("{}: a side of {} pixels is more than can be counted", format, std::max(width, height)));
  if (width > limits.max_pixels / height) {
    throw Error(fmt::format("{}: {} x {} pixels are more than the limit of {} (--max-pixels moves it)", format, width,
                            height, limits.max_pixels));
  }
}

}  // namespace formats

namespace {

/// The formats that are read.
struct Decoder {
  Format format;
  void (*decode)(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out);
  bool (*has_16_bits)(std::span<const uint8_t> bytes) = nullptr;  ///< where there are such
};
constexpr Decoder kDecoders[] = {
    {Format::jpeg, formats::decode_jpeg},
    {Format::png, formats::decode_png, [](std::span<const uint8_t> bytes) { return bytes[24] == 16; }},
    {Format::webp, formats::decode_webp},
    {Format::bmp, formats::decode_bmp},
    {Format::pnm, formats::decode_pnm, formats::pnm_has_16_bits},
    {Format::gif, formats::decode_gif},
    {Format::tiff, formats::decode_tiff, formats::tiff_has_16_bits},
};

const Decoder* decoder_of(Format format) {
  const auto* found = std::ranges::find(kDecoders, format, &Decoder::format);
  return found == std::end(kDecoders) ? nullptr : found;
}

}  // namespace

bool decodable(Format format) { return decoder_of(format) != nullptr; }

void convert_channels(Image& image, int channels) {
  if (channels == image.channels) return;
  const size_t count = static_cast<size_t>(image.height) * image.width;
  if (channels == 3) {
    image.pixels.resize(count * 3);
    uint8_t* p = image.pixels.data();
    for (size_t i = count; i-- > 0;) p[3 * i] = p[3 * i + 1] = p[3 * i + 2] = p[i];
  } else {
    uint8_t* p = image.pixels.data();
    for (size_t i = 0; i < count; ++i) {
      p[i] = static_cast<uint8_t>((19595u * p[3 * i] + 38470u * p[3 * i + 1] + 7471u * p[3 * i + 2] + 32768u) >> 16);
    }
    image.pixels.resize(count);
  }
  image.channels = channels;
}

void decode(std::span<const uint8_t> bytes, const DecodeOptions& options, Image& out) {
  if (bytes.empty()) throw Error("the file is empty");
  if (static_cast<int64_t>(bytes.size()) > options.limits.max_file_bytes) {
    throw Error(fmt::format("{} bytes are more than the limit of {} (--max-pixels moves it)", bytes.size(),
                            options.limits.max_file_bytes));
  }
  const Format format = detect_format(bytes);
  const Decoder* decoder = decoder_of(format);
  if (!decoder) throw Error(advice_on(format));
  decoder->decode(bytes, options, out);
  if (options.channels != 0) convert_channels(out, options.channels);
}

Image decode(std::span<const uint8_t> bytes, const DecodeOptions& options) {
  Image image;
  decode(bytes, options, image);
  return image;
}

bool has_16_bit_samples(std::span<const uint8_t> bytes) {
  const Decoder* decoder = decoder_of(detect_format(bytes));
  return decoder && decoder->has_16_bits && decoder->has_16_bits(bytes);
}

void read_file(const std::string& path, int64_t max_bytes, std::vector<uint8_t>& bytes) {
  struct File {
    int fd;
    ~File() {
      if (fd >= 0) ::close(fd);
    }
  };
  // Without O_NONBLOCK, opening a pipe that somebody named x.jpg would wait for ever.
  const File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) throw Error(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) throw Error(fmt::format("{}: {}", path, std::strerror(errno)));
  if (!S_ISREG(info.st_mode)) throw Error(fmt::format("{}: is no regular file", path));
  if (info.st_size > max_bytes) {
    throw Error(fmt::format("{}: {} bytes are more than the limit of {} (--max-pixels moves it)", path,
                            static_cast<int64_t>(info.st_size), max_bytes));
  }
  bytes.resize(static_cast<size_t>(info.st_size));
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n = ::read(file.fd, bytes.data() + done, bytes.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw Error(fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
    if (n == 0) break;  // it became shorter meanwhile: the decoder will say what is missing
    done += static_cast<size_t>(n);
  }
  bytes.resize(done);
}

}  // namespace saccade::data
