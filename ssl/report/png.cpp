#include <fmt/format.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/png.h>
#include <zlib.h>

#include <string_view>

namespace saccade::ssl {
namespace {

void append_big_endian(std::string& to, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) to += static_cast<char>(value >> shift);
}

void append_chunk(std::string& file, std::string_view type, std::string_view data) {
  append_big_endian(file, static_cast<uint32_t>(data.size()));
  const size_t from = file.size();
  file += type;
  file += data;
  append_big_endian(file, static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(file.data()) + from,
                                                      static_cast<uInt>(file.size() - from))));
}

}  // namespace

std::string encode_png(const Thumbnail& picture) {
  const auto row = static_cast<size_t>(picture.width) * static_cast<size_t>(picture.channels);
  if (picture.width < 1 || picture.height < 1 || (picture.channels != 1 && picture.channels != 3) ||
      picture.pixels.size() != row * static_cast<size_t>(picture.height))
    throw Error(fmt::format("encode_png: {} bytes are no picture of {} x {} pixels and {} channels",
                            picture.pixels.size(), picture.width, picture.height, picture.channels));
  std::string rows;  // each behind a byte that says: not filtered
  for (size_t y = 0; y < static_cast<size_t>(picture.height); ++y) {
    rows += '\0';
    rows.append(reinterpret_cast<const char*>(picture.pixels.data()) + y * row, row);
  }
  uLongf bytes = compressBound(rows.size());
  std::string compressed(bytes, '\0');
  if (compress2(reinterpret_cast<Bytef*>(compressed.data()), &bytes, reinterpret_cast<const Bytef*>(rows.data()),
                rows.size(), 9) != Z_OK)
    throw Error("encode_png: the picture could not be compressed");
  compressed.resize(bytes);

  std::string header;
  append_big_endian(header, static_cast<uint32_t>(picture.width));
  append_big_endian(header, static_cast<uint32_t>(picture.height));
  header += '\x08';                                 // bits a channel
  header += picture.channels == 1 ? '\0' : '\x02';  // grey or RGB
  header.append(3, '\0');
  std::string file = "\x89PNG\r\n\x1a\n";
  append_chunk(file, "IHDR", header);
  append_chunk(file, "IDAT", compressed);
  append_chunk(file, "IEND", "");
  return file;
}

}  // namespace saccade::ssl
