#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/core/io/input_file.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace saccade::io {

InputFile::InputFile(const std::filesystem::path& path) : path_(path) {
  struct stat status;
  // Not to wait for the other end, should the name be a pipe's.
  fd_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd_ < 0 || fstat(fd_, &status) != 0) {
    const int error = errno;
    if (fd_ >= 0) close(fd_);
    throw Error(fmt::format("could not open {}: {}", path.string(), std::strerror(error)));
  }
  if (!S_ISREG(status.st_mode)) {
    close(fd_);
    throw Error(fmt::format("could not open {}: it is not a regular file", path.string()));
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() { close(fd_); }

void InputFile::read(uint64_t offset, void* to, size_t bytes) const {
  constexpr size_t at_most = size_t{1} << 30;  // Linux reads at most 2 GiB a call
  char* into = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = pread(fd_, into, std::min(bytes, at_most), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error(fmt::format("could not read {}: {}", path_.string(), std::strerror(errno)));
    if (got == 0) throw Error(fmt::format("{} ends at byte {}, {} more were expected", path_.string(), offset, bytes));
    into += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

}  // namespace saccade::io
