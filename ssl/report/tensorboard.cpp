#include <fmt/format.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/tensorboard.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

namespace saccade::ssl {
namespace {

constexpr std::array<uint32_t, 256> kCrcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}();

/// TensorBoard's disguise of a CRC, so that a CRC over data that holds CRCs stays strong.
uint32_t masked(uint32_t crc) { return std::rotr(crc, 15) + 0xa282ead8u; }

template <class T>
std::string little_endian(T value) {
  static_assert(std::endian::native == std::endian::little);
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

// Protocol buffers on the wire: a field is a key (number and kind) and a varint, fixed bytes, or a length and bytes.
std::string varint(uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
  return text + static_cast<char>(value);
}
std::string integer_field(int number, int64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(static_cast<uint64_t>(value));
}
std::string double_field(int number, double value) {
  return varint(static_cast<uint64_t>(number) << 3 | 1) + little_endian(value);
}
std::string float_field(int number, float value) {
  return varint(static_cast<uint64_t>(number) << 3 | 5) + little_endian(value);
}
std::string bytes_field(int number, std::string_view bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2).append(varint(bytes.size())).append(bytes);
}

/// Event { 1 wall_time, 2 step, ... }
std::string event(int64_t step) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return double_field(1, std::chrono::duration<double>(now).count()) + integer_field(2, step);
}

/// Event { 5 summary { 1 value { 1 tag, ... } } }
std::string summary(int64_t step, std::string_view tag, const std::string& value) {
  return event(step) + bytes_field(5, bytes_field(1, bytes_field(1, tag) + value));
}

}  // namespace

uint32_t crc32c(std::string_view data) {
  uint32_t crc = ~0u;
  for (const char c : data) crc = crc >> 8 ^ kCrcTable[(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

TensorBoard::TensorBoard(const std::filesystem::path& folder, int64_t first_step) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(fmt::format("could not make the folder {}: {}", folder.string(), error.message()));
  std::array<char, 256> host = {"localhost"};
  gethostname(host.data(), host.size() - 1);
  // Two sittings within a second must not share a file.
  for (auto seconds = std::time(nullptr); !file_; ++seconds) {
    path_ = folder / fmt::format("events.out.tfevents.{}.{}", seconds, host.data());
    file_.reset(std::fopen(path_.c_str(), "wbx"));
    if (!file_ && errno != EEXIST)
      throw Error(fmt::format("could not make {}: {}", path_.string(), std::strerror(errno)));
  }
  record(event(0) + bytes_field(3, "brain.Event:2"));
  if (first_step > 0) record(event(first_step) + bytes_field(7, integer_field(1, 1)));  // session_log { status START }
}

void TensorBoard::scalar(std::string_view tag, int64_t step, double value) {
  record(summary(step, tag, float_field(2, static_cast<float>(value))));
}

void TensorBoard::image(std::string_view tag, int64_t step, const Thumbnail& picture) {
  record(summary(step, tag,
                 bytes_field(4, integer_field(1, picture.height) + integer_field(2, picture.width) +
                                    integer_field(3, picture.channels) + bytes_field(4, encode_png(picture)))));
}

void TensorBoard::record(std::string_view event) {
  const std::string length = little_endian(uint64_t{event.size()});
  std::string all = length + little_endian(masked(crc32c(length)));
  all.append(event).append(little_endian(masked(crc32c(event))));
  if (std::fwrite(all.data(), 1, all.size(), file_.get()) != all.size() || std::fflush(file_.get()) != 0)
    throw Error(fmt::format("could not write {}: {}", path_.string(), std::strerror(errno)));
}

}  // namespace saccade::ssl
