#include <fmt/format.h>
#include <saccade/core/io/element_type.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

namespace saccade::io {
namespace {

constexpr std::array<ElementType, 13> kTypes = {{{"F32", 4, DType::f32},
                                                 {"F16", 2, DType::f16},
                                                 {"BF16", 2, DType::bf16},
                                                 {"F64", 8, DType::f32},
                                                 {"I64", 8, DType::i64},
                                                 {"I32", 4, DType::i32},
                                                 {"U8", 1, DType::u8},
                                                 {"BOOL", 1, DType::u8},
                                                 {"I8", 1, DType::i32},
                                                 {"I16", 2, DType::i32},
                                                 {"U16", 2, DType::i32},
                                                 {"U32", 4, DType::i64},
                                                 {"U64", 8, DType::i64}}};

bool same(std::string_view name) {
  return name == "F32" || name == "F16" || name == "BF16" || name == "I64" || name == "I32" || name == "U8";
}

template <class From, class To>
void convert(const char* from, size_t count, void* to) {
  for (size_t i = 0; i < count; ++i) {
    From value;
    std::memcpy(&value, from + i * sizeof(From), sizeof(From));
    if constexpr (std::is_same_v<From, uint64_t>)
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        throw Error(fmt::format("a U64 tensor holds {}, more than an i64 can be", value));
    static_cast<To*>(to)[i] = static_cast<To>(value);
  }
}

void convert(std::string_view type, const char* from, size_t count, void* to) {
  if (type == "F64") return convert<double, float>(from, count, to);
  if (type == "I8") return convert<int8_t, int32_t>(from, count, to);
  if (type == "I16") return convert<int16_t, int32_t>(from, count, to);
  if (type == "U16") return convert<uint16_t, int32_t>(from, count, to);
  if (type == "U32") return convert<uint32_t, int64_t>(from, count, to);
  if (type == "U64") return convert<uint64_t, int64_t>(from, count, to);
  for (size_t i = 0; i < count; ++i) static_cast<uint8_t*>(to)[i] = from[i] != 0;  // BOOL
}

}  // namespace

const ElementType* element_type(std::string_view name) {
  const auto* at = std::find_if(kTypes.begin(), kTypes.end(), [&](const ElementType& t) { return t.name == name; });
  return at == kTypes.end() ? nullptr : at;
}

void read_elements(const ElementType& type, const ByteSource& source, uint64_t offset, uint64_t count, void* to) {
  if (same(type.name)) return source.read(offset, to, count * type.bytes);
  std::array<char, 65536> piece;
  const size_t most = piece.size() / type.bytes;
  for (uint64_t done = 0; done < count;) {
    const size_t now = static_cast<size_t>(std::min<uint64_t>(most, count - done));
    source.read(offset + done * type.bytes, piece.data(), now * type.bytes);
    convert(type.name, piece.data(), now, static_cast<char*>(to) + done * size_of(type.becomes));
    done += now;
  }
}

void CastCount::add(const ElementType& type) {
  if (same(type.name)) return;
  const auto at = std::find_if(counts_.begin(), counts_.end(), [&](const auto& each) { return each.first == &type; });
  if (at == counts_.end())
    counts_.push_back({&type, 1});
  else
    ++at->second;
}

std::vector<std::string> CastCount::words() const {
  std::vector<std::string> words;
  for (const auto& [type, count] : counts_)
    words.push_back(fmt::format("{} {} tensor{} cast to {}", count, type->name, count == 1 ? " was" : "s were",
                                name_of(type->becomes)));
  return words;
}

}  // namespace saccade::io
