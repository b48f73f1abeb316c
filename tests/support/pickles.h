#pragma once

#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// Pickles and zip archives by hand, right ones and such as no program would write.
namespace saccade::test {

template <class T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

namespace pickled {

inline std::string text(std::string_view s) {
  return std::string("X") + bytes_of(static_cast<uint32_t>(s.size())) + std::string(s);
}
inline std::string number(int64_t value) { return std::string("\x8a\x08") + bytes_of(value); }
inline std::string global(std::string_view module, std::string_view name) {
  return std::string("c").append(module).append("\n").append(name).append("\n");
}
inline std::string tuple(const std::vector<std::string>& values) {
  std::string all = "(";
  for (const std::string& value : values) all += value;
  return all + "t";
}
inline std::string numbers(const std::vector<int64_t>& values) {
  std::vector<std::string> all;
  for (const int64_t value : values) all.push_back(number(value));
  return tuple(all);
}
inline std::string call(std::string_view module, std::string_view name, const std::vector<std::string>& arguments) {
  return global(module, name) + tuple(arguments) + "R";
}
inline std::string dictionary(const std::vector<std::string>& keys_and_values) {
  std::string all = "}(";
  for (const std::string& each : keys_and_values) all += each;
  return all + "u";
}
inline std::string storage(std::string_view type, std::string_view key, int64_t numel) {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), number(numel)}) + "Q";
}
struct TensorParts {
  std::string type = "FloatStorage", key = "0";
  int64_t numel = 6, offset = 0;
  std::vector<int64_t> shape = {2, 3}, strides = {3, 1};
};
inline std::string tensor(const TensorParts& t) {
  return call("torch._utils", "_rebuild_tensor_v2",
              {storage(t.type, t.key, t.numel), number(t.offset), numbers(t.shape), numbers(t.strides), "\x89",
               call("collections", "OrderedDict", {})});
}
inline std::string file(const std::string& value) { return std::string("\x80\x02") + value + "."; }

}  // namespace pickled

struct ZipPart {
  std::string name, bytes;
  uint16_t method = 0, flags = 0;
  std::optional<std::string> local_name = {};
  std::optional<uint32_t> crc = {}, size = {}, local_size = {}, header = {};
};

struct ZipOddities {
  std::string prefix = {}, comment = {};
  bool zip64 = false;
  uint64_t base = 0;                       ///< where in the file all this stands
  std::optional<uint64_t> directory = {};  ///< where it is said to begin
};

/// As PyTorch and Python's zipfile write them, but for what is said otherwise.
inline std::string zip(const std::vector<ZipPart>& parts, const ZipOddities& odd = {}) {
  std::string file = odd.prefix, directory;
  for (const ZipPart& part : parts) {
    const uint32_t crc = part.crc.value_or(static_cast<uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(part.bytes.data()), static_cast<uInt>(part.bytes.size()))));
    const auto size = static_cast<uint32_t>(part.bytes.size());
    const std::string name = part.local_name.value_or(part.name);
    const uint64_t header = odd.base + file.size() - odd.prefix.size();
    file += std::string("PK\3\4") + bytes_of(uint16_t{20}) + bytes_of(part.flags) + bytes_of(part.method) +
            bytes_of(uint32_t{0}) + bytes_of(crc) + bytes_of(part.local_size.value_or(size)) +
            bytes_of(part.local_size.value_or(size)) + bytes_of(static_cast<uint16_t>(name.size())) +
            bytes_of(uint16_t{0}) + name + part.bytes;
    const uint32_t said = part.size.value_or(size);
    const uint64_t at = part.header ? *part.header : header;
    std::string extra;
    if (odd.zip64)
      extra = bytes_of(uint16_t{1}) + bytes_of(uint16_t{24}) + bytes_of(uint64_t{said}) + bytes_of(uint64_t{said}) +
              bytes_of(at);
    const uint32_t elsewhere = 0xffffffff;
    directory += std::string("PK\1\2") + bytes_of(uint16_t{20}) + bytes_of(uint16_t{20}) + bytes_of(part.flags) +
                 bytes_of(part.method) + bytes_of(uint32_t{0}) + bytes_of(crc) +
                 bytes_of(odd.zip64 ? elsewhere : said) + bytes_of(odd.zip64 ? elsewhere : said) +
                 bytes_of(static_cast<uint16_t>(part.name.size())) + bytes_of(static_cast<uint16_t>(extra.size())) +
                 bytes_of(uint16_t{0}) + bytes_of(uint16_t{0}) + bytes_of(uint16_t{0}) + bytes_of(uint32_t{0}) +
                 bytes_of(odd.zip64 ? elsewhere : static_cast<uint32_t>(at)) + part.name + extra;
  }
  const uint64_t begin = odd.directory.value_or(odd.base + file.size() - odd.prefix.size());
  file += directory;
  const auto count = static_cast<uint16_t>(parts.size());
  if (odd.zip64) {
    const uint64_t end = odd.base + file.size();
    file += std::string("PK\6\6") + bytes_of(uint64_t{44}) + bytes_of(uint16_t{45}) + bytes_of(uint16_t{45}) +
            bytes_of(uint32_t{0}) + bytes_of(uint32_t{0}) + bytes_of(uint64_t{count}) + bytes_of(uint64_t{count}) +
            bytes_of(uint64_t{directory.size()}) + bytes_of(begin);
    file += std::string("PK\6\7") + bytes_of(uint32_t{0}) + bytes_of(end) + bytes_of(uint32_t{1});
  }
  return file + "PK\5\6" + bytes_of(uint32_t{0}) + bytes_of(odd.zip64 ? uint16_t{0xffff} : count) +
         bytes_of(odd.zip64 ? uint16_t{0xffff} : count) +
         bytes_of(odd.zip64 ? uint32_t{0xffffffff} : static_cast<uint32_t>(directory.size())) +
         bytes_of(odd.zip64 ? uint32_t{0xffffffff} : static_cast<uint32_t>(begin)) +
         bytes_of(static_cast<uint16_t>(odd.comment.size())) + odd.comment;
}

/// A file of torch.save's around a pickle, with one storage of these bytes.
inline std::string torch_file(const std::string& pickle, const std::string& storage = std::string(24, '\0')) {
  return zip({{"archive/data.pkl", pickle}, {"archive/byteorder", "little"}, {"archive/data/0", storage}});
}

}  // namespace saccade::test
