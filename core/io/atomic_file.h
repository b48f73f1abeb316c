#pragma once

#include <saccade/kernels/error.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string_view>

namespace saccade::io {

/// The file was not written: its old content, or its absence, is untouched and no temporary is left behind.
class NotCommitted : public Error {
 public:
  using Error::Error;
};

/// The file is in place and complete, but the system could not promise that it survives a power loss.
class DurabilityUncertain : public Error {
 public:
  using Error::Error;
};

/// A file that appears under its final name whole or not at all. It is written under a temporary name in the same
/// directory (".NAME.tmp"), and commit() syncs it, renames it and syncs the directory. What a killed process left under
/// the temporary name is overwritten by the next write of the same file; a lock keeps two writers apart.
class AtomicFile {
 public:
  /// Throws NotCommitted when the temporary cannot be made, or when another writer is at the same file.
  explicit AtomicFile(std::filesystem::path path);
  /// Removes the temporary unless committed.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends. Throws NotCommitted, with the reason.
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  /// Once, after the last write. Throws NotCommitted or DurabilityUncertain.
  void commit();

 private:
  void open_temporary();
  [[noreturn]] void not_committed(std::string_view doing, int error);

  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

/// Lets `writer` fill the file, then commits it. Whatever the writer throws passes through, with nothing written.
void write_file_atomically(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& writer);
void write_file_atomically(const std::filesystem::path& path, std::string_view content);

}  // namespace saccade::io
