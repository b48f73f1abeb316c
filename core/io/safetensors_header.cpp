#include <fmt/format.h>
#include <saccade/core/io/element_type.h>
#include <saccade/core/io/input_file.h>
#include <saccade/core/io/quoted_text.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <array>
#include <bit>
#include <deque>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

namespace saccade::io {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestHeader = 100'000'000;
constexpr size_t kHighestRank = 64, kMostMetadata = 65'536, kLongestString = size_t{4} << 20;
constexpr std::string_view kMetadata = "__metadata__";

/// Takes the header's JSON as a stream of events, so that a key given twice is seen, nesting is refused where it
/// begins, and nothing is built that is not kept: a hostile header cannot cost much more memory than its own size.
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  // The place in the document. `entry_key` expects the value of the key just read in a tensor's object.
  enum class At { start, top, metadata, entry, shape, offsets, end };

  bool start_object(size_t) override {
    if (at_ == At::start) return go(At::top);
    if (at_ == At::top && key_ == kMetadata) return go(At::metadata);
    if (at_ == At::top) {
      entries.push_back({});
      entries.back().name = std::move(key_);
      fields_ = {};
      offsets_ = 0;
      return go(At::entry);
    }
    wrong("an object");
  }
  bool key(std::string& key) override {
    if (at_ == At::metadata) {
      if (metadata.size() == kMostMetadata) throw Error(fmt::format("has more than {} metadata pairs", kMostMetadata));
      if (metadata.contains(key)) twice(key);
    } else if (at_ == At::top && key == kMetadata) {
      if (std::exchange(has_metadata_, true)) twice(key);
    } else if (at_ == At::entry) {
      field_ = key == "dtype" ? 0 : key == "shape" ? 1 : key == "data_offsets" ? 2 : 3;
      if (field_ == 3)
        throw Error(fmt::format("has the unknown key {} in tensor {}", in_quotes(key), in_quotes(name())));
      if (std::exchange(fields_[field_], true)) twice(key);
    }
    key_ = std::move(key);
    return true;
  }
  bool end_object() override {
    if (at_ == At::top) return go(At::end);
    if (at_ == At::entry && !(fields_[0] && fields_[1] && fields_[2]))
      throw Error(fmt::format("lacks dtype, shape or data_offsets of tensor {}", in_quotes(name())));
    return go(At::top);
  }
  bool start_array(size_t) override {
    if (at_ == At::entry && field_ == 1) return go(At::shape);
    if (at_ == At::entry && field_ == 2) return go(At::offsets);
    wrong("an array");
  }
  bool end_array() override {
    if (at_ == At::offsets && offsets_ != 2)
      throw Error(fmt::format("gives {} data_offsets for tensor {}, not 2", offsets_, in_quotes(name())));
    return go(At::entry);
  }
  bool number_unsigned(uint64_t value) override {
    if (at_ == At::offsets && offsets_ < 2) {
      (offsets_++ == 0 ? entries.back().begin : entries.back().end) = value;
      return true;
    }
    if (at_ == At::offsets) throw Error(fmt::format("gives more than 2 data_offsets for tensor {}", in_quotes(name())));
    if (at_ != At::shape) wrong("a number");
    if (entries.back().shape.size() == kHighestRank)
      throw Error(fmt::format("gives tensor {} more than {} dimensions", in_quotes(name()), kHighestRank));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      throw Error(fmt::format("gives tensor {} the extent {}", in_quotes(name()), value));
    entries.back().shape.push_back(static_cast<int64_t>(value));
    return true;
  }
  bool string(std::string& value) override {
    if (at_ == At::metadata) {
      metadata.emplace(std::move(key_), std::move(value));
      return true;
    }
    if (at_ != At::entry || field_ != 0) wrong("a string");
    if (element_type(value) == nullptr)
      throw Error(
          fmt::format("gives tensor {} the type {}, which is not supported", in_quotes(name()), in_quotes(value)));
    entries.back().type = std::move(value);
    return true;
  }
  bool null() override { wrong("null"); }
  bool boolean(bool) override { wrong("a boolean"); }
  bool number_integer(int64_t) override { wrong("a negative number"); }
  bool number_float(double, const std::string&) override { wrong("a number that is no whole number"); }
  bool binary(json::binary_t&) override { wrong("binary data"); }
  bool parse_error(size_t position, const std::string&, const json::exception&) override {
    throw Error(fmt::format("is not valid JSON at byte {}", position));
  }

  std::deque<SafetensorsEntry> entries;  // a deque grows without a second copy of itself
  Metadata metadata;

 private:
  const std::string& name() const { return entries.back().name; }
  bool go(At at) {
    at_ = at;
    return true;
  }
  [[noreturn]] void wrong(std::string_view what) const {
    const std::string_view place = at_ == At::start      ? "as a whole, where an object was expected"
                                   : at_ == At::top      ? "where the description of a tensor was expected"
                                   : at_ == At::metadata ? "in the metadata, where only strings may be"
                                                         : "in the description of tensor ";
    throw Error(fmt::format("has {} {}{}", what, place,
                            at_ == At::entry || at_ == At::shape || at_ == At::offsets ? in_quotes(name()) : ""));
  }
  [[noreturn]] static void twice(std::string_view key) {
    throw Error(fmt::format("has the key {} twice", in_quotes(key)));
  }

  At at_ = At::start;
  std::string key_;
  int field_ = 0;
  std::array<bool, 3> fields_ = {};
  int offsets_ = 0;
  bool has_metadata_ = false;
};

uint64_t bytes_of(const SafetensorsEntry& entry) {
  uint64_t bytes = element_type(entry.type)->bytes;
  for (const int64_t extent : entry.shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes))
      throw Error(fmt::format("gives tensor {} a shape with more elements than can be counted", in_quotes(entry.name)));
  return bytes;
}

/// The JSON parser holds a string several times over when it breaks off inside it.
void check_lengths(std::string_view text) {
  size_t opened = 0;
  bool inside = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"' && !std::exchange(inside, !inside)) opened = i;
    if (inside && i - opened > kLongestString) throw Error("has a string of more than 4 MiB");
    if (inside && text[i] == '\\') ++i;
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_bytes) try {
  if (const size_t first = text.find_first_not_of(" \t\r\n"); first == text.npos || text[first] != '{')
    throw Error("does not begin with a {");  // the parser would skip a byte order mark
  if (text.size() > kLargestHeader)
    throw Error(fmt::format("is too large: {} bytes, at most {} are allowed", text.size(), kLargestHeader));
  check_lengths(text);
  HeaderReader reader;
  json::sax_parse(text.begin(), text.end(), &reader);

  SafetensorsHeader header;
  header.metadata = std::move(reader.metadata);
  std::deque<SafetensorsEntry>& entries = reader.entries;
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (size_t i = 1; i < entries.size(); ++i)
    if (entries[i].name == entries[i - 1].name)
      throw Error(fmt::format("has the tensor {} twice", in_quotes(entries[i].name)));
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  uint64_t position = 0;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.end < entry.begin)
      throw Error(fmt::format("lets tensor {} end at byte {}, before it begins at {}", in_quotes(entry.name), entry.end,
                              entry.begin));
    if (entry.begin != position)
      throw Error(fmt::format("lets tensor {} begin at byte {}, where {} was expected: there is {}",
                              in_quotes(entry.name), entry.begin, position,
                              entry.begin < position ? "an overlap" : "a hole"));
    if (const uint64_t bytes = bytes_of(entry); bytes != entry.end - entry.begin)
      throw Error(fmt::format("gives tensor {} of type {} and shape {} {} bytes, but it has {}", in_quotes(entry.name),
                              entry.type, to_string(entry.shape), entry.end - entry.begin, bytes));
    position = entry.end;
  }
  if (position != data_bytes)
    throw Error(fmt::format("describes {} bytes of data, but the file has {}", position, data_bytes));
  header.entries.reserve(entries.size());
  for (; !entries.empty(); entries.pop_front()) header.entries.push_back(std::move(entries.front()));
  return header;
} catch (const Error& error) {
  throw Error(fmt::format("the safetensors header {}", error.what()));
}

SafetensorsHeader read_safetensors_header(const ByteSource& source) {
  static_assert(std::endian::native == std::endian::little);
  uint64_t length = 0;
  if (source.size() < sizeof(length))
    throw Error(fmt::format("not a safetensors file, it has {} bytes", source.size()));
  source.read(0, &length, sizeof(length));
  if (length > kLargestHeader)
    throw Error(fmt::format("not a safetensors file, or the header is too large: {} bytes, at most {} are allowed",
                            length, kLargestHeader));
  if (length > source.size() - sizeof(length))
    throw Error(
        fmt::format("the file is cut off: a header of {} bytes does not fit into its {} bytes", length, source.size()));
  const std::string text = source.text(sizeof(length), static_cast<size_t>(length));
  SafetensorsHeader header = parse_safetensors_header(text, source.size() - sizeof(length) - length);
  header.data_offset = sizeof(length) + length;
  return header;
}

SafetensorsHeader read_safetensors_header(const std::filesystem::path& path) {
  const InputFile file(path);
  try {
    return read_safetensors_header(ByteSource(file));
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", path.string(), error.what()));
  }
}

}  // namespace saccade::io
