#include <saccade/core/io/zip_archive.h>

#include <algorithm>
#include <vector>

#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace saccade;
  const std::vector<char> bytes(data, data + size);
  const io::ByteSource source(bytes);
  try {
    io::MemoryBudget budget(size);
    std::vector<io::ZipEntry> entries = io::read_zip_directory(source, budget);
    for (const io::ZipEntry& entry : entries)
      fuzz::require(io::find_zip_entry(entries, entry.name) == &entry, "an archive has a name once");
    io::locate_zip_entries(source, entries);
    for (const io::ZipEntry& entry : entries) {
      fuzz::require(entry.offset <= size && entry.size <= size - entry.offset, "entries lie within the file");
      (void)io::zip_checksum_agrees(source, entry);
    }
    std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.header < b.header; });
    for (size_t i = 1; i < entries.size(); ++i)
      fuzz::require(entries[i - 1].offset + entries[i - 1].size <= entries[i].header, "entries do not overlap");
  } catch (const Error&) {
  }
  return 0;
}
