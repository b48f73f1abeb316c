#include <fmt/format.h>
#include <saccade/core/io/quoted_text.h>
#include <saccade/core/io/zip_archive.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <optional>

namespace saccade::io {
namespace {

// APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr uint64_t kLocalBytes = 30, kCentralBytes = 46, kEndBytes = 22, kEnd64Bytes = 56, kLocator64Bytes = 20;
constexpr uint32_t kElsewhere = 0xffffffff;  // the value is in the zip64 field

template <class T>
T number(std::string_view text, size_t at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(static_cast<uint8_t>(text[at + i])) << (8 * i)));
  return value;
}

struct Directory {
  uint64_t begin, bytes, entries;
};

/// The end record is the last thing but a comment, whose length it gives. A second place that could be one is a file
/// that programs read differently.
Directory find_directory(const ByteSource& source) {
  const uint64_t tail = std::min<uint64_t>(source.size(), kEndBytes + 65535);
  const uint64_t tail_begin = source.size() - tail;
  const std::string text = source.text(tail_begin, static_cast<size_t>(tail));
  std::optional<size_t> at;
  for (size_t i = text.size() < kEndBytes ? 0 : text.size() - kEndBytes + 1; i-- > 0;) {
    if (number<uint32_t>(text, i) != kEnd || number<uint16_t>(text, i + 20) != text.size() - i - kEndBytes) continue;
    if (at) throw Error("its zip archive has two ends (one in the comment): save it anew");
    at = i;
  }
  if (!at) throw Error("its zip archive has no end: the file is cut off, fetch or copy it again");
  const std::string_view end = std::string_view(text).substr(*at, kEndBytes);
  if (number<uint16_t>(end, 4) != number<uint16_t>(end, 6) || number<uint16_t>(end, 8) != number<uint16_t>(end, 10))
    throw Error("its zip archive is one volume of several");
  Directory result{number<uint32_t>(end, 16), number<uint32_t>(end, 12), number<uint16_t>(end, 10)};
  uint64_t directory_end = tail_begin + *at;

  if (directory_end >= kLocator64Bytes) {
    const std::string locator = source.text(directory_end - kLocator64Bytes, kLocator64Bytes);
    if (number<uint32_t>(locator, 0) == kLocator64) {
      const uint64_t end64 = number<uint64_t>(locator, 8);
      directory_end -= kLocator64Bytes;
      if (end64 > directory_end || directory_end - end64 < kEnd64Bytes)
        throw Error("its zip archive ends elsewhere than it says");
      const std::string record = source.text(end64, kEnd64Bytes);
      if (number<uint32_t>(record, 0) != kEnd64 || number<uint64_t>(record, 4) != directory_end - end64 - 12)
        throw Error("its zip archive ends elsewhere than it says");
      const Directory large{number<uint64_t>(record, 48), number<uint64_t>(record, 40), number<uint64_t>(record, 32)};
      const auto differ = [](uint64_t small, uint64_t large, uint64_t elsewhere) {
        return small != elsewhere && small != large;
      };
      if (differ(result.begin, large.begin, kElsewhere) || differ(result.bytes, large.bytes, kElsewhere) ||
          differ(result.entries, large.entries, 0xffff) || number<uint64_t>(record, 24) != large.entries)
        throw Error("its zip archive describes itself in two ways that differ");
      result = large;
      directory_end = end64;
    }
  }
  if (result.begin > directory_end || result.bytes != directory_end - result.begin)
    throw Error(
        "the directory of its zip archive is elsewhere than it says: bytes stand before the archive or are "
        "missing");
  if (result.entries > result.bytes / kCentralBytes)
    throw Error(fmt::format("its zip archive lists {} entries in {} bytes", result.entries, result.bytes));
  return result;
}

/// Sizes and offset that do not fit their fields are in the extra field 1, in this order.
void read_zip64_field(std::string_view extra, ZipEntry& entry) {
  while (extra.size() >= 4) {
    const uint16_t id = number<uint16_t>(extra, 0), bytes = number<uint16_t>(extra, 2);
    if (bytes > extra.size() - 4) break;
    if (id == 1) {
      std::string_view values = extra.substr(4, bytes);
      for (uint64_t* value : {&entry.size, &entry.packed_size, &entry.header}) {
        if (*value != kElsewhere || values.size() < 8) continue;
        *value = number<uint64_t>(values, 0);
        values.remove_prefix(8);
      }
      return;
    }
    extra.remove_prefix(size_t{4} + bytes);
  }
}

void check_name(std::string_view name) {
  const bool parent =
      name == ".." || name.starts_with("../") || name.ends_with("/..") || name.find("/../") != std::string_view::npos;
  if (name.empty() || name.starts_with('/') || parent || name.find('\\') != name.npos || name.find('\0') != name.npos)
    throw Error(fmt::format("its zip archive has an entry {}, a name that leads elsewhere", in_quotes(name)));
}

}  // namespace

std::vector<ZipEntry> read_zip_directory(const ByteSource& source, MemoryBudget& budget) {
  const Directory directory = find_directory(source);
  budget.charge(directory.bytes + directory.entries * (sizeof(ZipEntry) + 16) + directory.bytes);  // and the names
  const std::string text = source.text(directory.begin, static_cast<size_t>(directory.bytes));
  std::vector<ZipEntry> entries;
  entries.reserve(static_cast<size_t>(directory.entries));
  size_t at = 0;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    const size_t left = text.size() - at;
    if (left < kCentralBytes || number<uint32_t>(text, at) != kCentral)
      throw Error("the directory of its zip archive is damaged");
    const std::string_view head = std::string_view(text).substr(at, kCentralBytes);
    const size_t name = number<uint16_t>(head, 28), extra = number<uint16_t>(head, 30),
                 comment = number<uint16_t>(head, 32);
    if (left - kCentralBytes < name + extra + comment) throw Error("the directory of its zip archive is damaged");
    ZipEntry entry{text.substr(at + kCentralBytes, name),
                   number<uint32_t>(head, 42),
                   number<uint32_t>(head, 24),
                   number<uint32_t>(head, 20),
                   number<uint32_t>(head, 16),
                   number<uint16_t>(head, 10),
                   number<uint16_t>(head, 8),
                   0};
    read_zip64_field(std::string_view(text).substr(at + kCentralBytes + name, extra), entry);
    check_name(entry.name);
    if (entry.header >= directory.begin)
      throw Error(fmt::format("entry {} of its zip archive begins at byte {}, outside the entries' {} bytes",
                              in_quotes(entry.name), entry.header, directory.begin));
    entries.push_back(std::move(entry));
    at += kCentralBytes + name + extra + comment;
  }
  if (at != text.size()) throw Error("the directory of its zip archive has more in it than it lists");
  std::sort(entries.begin(), entries.end(), [](const ZipEntry& a, const ZipEntry& b) { return a.name < b.name; });
  for (size_t i = 1; i < entries.size(); ++i)
    if (entries[i].name == entries[i - 1].name)
      throw Error(fmt::format("its zip archive has entry {} twice", in_quotes(entries[i].name)));
  return entries;
}

void locate_zip_entries(const ByteSource& source, std::vector<ZipEntry>& entries) {
  const uint64_t end = find_directory(source).begin;
  for (ZipEntry& entry : entries) {
    const auto wrong = [&](std::string_view what) {
      throw Error(fmt::format("entry {} of its zip archive {}", in_quotes(entry.name), what));
    };
    if (entry.method != 0)
      wrong("is compressed: unpack the archive and pack it with zip -0, or save it anew with torch.save");
    if (entry.flags & 1) wrong("is encrypted");
    if (entry.size != entry.packed_size) wrong("has two sizes");
    if (end - entry.header < kLocalBytes) wrong("lies outside the entries");
    const std::string head = source.text(entry.header, kLocalBytes);
    if (number<uint32_t>(head, 0) != kLocal) wrong("has no header where the directory says");
    const uint64_t name = number<uint16_t>(head, 26), extra = number<uint16_t>(head, 28);
    if (end - entry.header - kLocalBytes < name + extra) wrong("lies outside the entries");
    if (source.text(entry.header + kLocalBytes, static_cast<size_t>(name)) != entry.name)
      wrong("has another name in its own header");
    if (number<uint16_t>(head, 8) != entry.method) wrong("is compressed, says its own header");
    entry.offset = entry.header + kLocalBytes + name + extra;
    const uint64_t size = number<uint32_t>(head, 22);  // 0 where sizes follow the data, as PyTorch writes it
    if (size != 0 && size != kElsewhere && size != entry.size) wrong("has another size in its own header");
    if (entry.size > end - entry.offset) wrong(fmt::format("has {} bytes, beyond the entries' end", entry.size));
  }
  std::vector<const ZipEntry*> order;
  for (const ZipEntry& entry : entries) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->header < b->header; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i]->header < order[i - 1]->offset + order[i - 1]->size)
      throw Error(fmt::format("entries {} and {} of its zip archive overlap", in_quotes(order[i - 1]->name),
                              in_quotes(order[i]->name)));
}

const ZipEntry* find_zip_entry(const std::vector<ZipEntry>& entries, std::string_view name) {
  const auto at = std::lower_bound(entries.begin(), entries.end(), name,
                                   [](const ZipEntry& entry, std::string_view n) { return entry.name < n; });
  return at == entries.end() || at->name != name ? nullptr : &*at;
}

bool zip_checksum_agrees(const ByteSource& source, const ZipEntry& entry) {
  std::vector<char> piece(static_cast<size_t>(std::min<uint64_t>(entry.size, 1 << 20)));
  uLong crc = crc32(0, nullptr, 0);
  for (uint64_t done = 0; done < entry.size;) {
    const size_t now = static_cast<size_t>(std::min<uint64_t>(piece.size(), entry.size - done));
    source.read(entry.offset + done, piece.data(), now);
    crc = crc32(crc, reinterpret_cast<const Bytef*>(piece.data()), static_cast<uInt>(now));
    done += now;
  }
  return crc == entry.crc;
}

}  // namespace saccade::io
