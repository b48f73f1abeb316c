#pragma once

#include <saccade/kernels/error.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>

/// What fuzz targets share. A target hands the bytes to its parser, which may throw saccade::Error and nothing else,
/// and checks what holds for all it accepts.
namespace saccade::fuzz {

/// Ends the run where what a parser promises does not hold.
inline void require(bool holds, const char* promise) {
  if (!holds) throw std::logic_error(promise);
}

/// Bytes as a file that lies in memory, for parsers that take a path.
class MemoryFile {
 public:
  explicit MemoryFile(std::span<const uint8_t> bytes) : fd_(memfd_create("fuzz", MFD_CLOEXEC)) {
    require(fd_ >= 0 && write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()),
            "the system gives memory for a file");
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace saccade::fuzz
