#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace saccade::io {

/// A regular file open for reading, of known size.
class InputFile {
 public:
  /// Throws Error when there is none, when it is no regular file, or when it cannot be read.
  explicit InputFile(const std::filesystem::path& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }
  /// Exactly `bytes` bytes from `offset`; throws Error when the file has fewer or the read fails.
  void read(uint64_t offset, void* to, size_t bytes) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

}  // namespace saccade::io
