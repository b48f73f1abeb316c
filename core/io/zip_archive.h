#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/core/io/memory_budget.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Zip archives whose entries are stored as they are, as PyTorch and NumPy write them.

namespace saccade::io {

struct ZipEntry {
  std::string name;
  uint64_t header = 0;  ///< where its local header begins
  uint64_t size = 0, packed_size = 0;
  uint32_t crc = 0;
  uint16_t method = 0, flags = 0;
  uint64_t offset = 0;  ///< of its data; see locate_zip_entries
};

/// The entries by name, as the central directory has them; zip64 too. Throws Error when there is no directory, when it
/// is not where it says, has a name twice, or names that lead out of a folder; when other bytes stand before the
/// archive, or it is one volume of several.
std::vector<ZipEntry> read_zip_directory(const ByteSource& source, MemoryBudget& budget);

/// Finds the data of all entries. Throws Error when one is compressed or encrypted, when its own header says otherwise
/// than the directory, and when entries overlap or lie outside.
void locate_zip_entries(const ByteSource& source, std::vector<ZipEntry>& entries);

/// Null when there is none.
const ZipEntry* find_zip_entry(const std::vector<ZipEntry>& entries, std::string_view name);

/// Reads all of a located entry.
bool zip_checksum_agrees(const ByteSource& source, const ZipEntry& entry);

}  // namespace saccade::io
