#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace saccade::io {
namespace {

/// Repeats a system call that a signal interrupted.
template <class Call>
auto uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

std::string reason(int error) {
  constexpr std::pair<int, const char*> known[] = {{ENOSPC, "the disk is full"},
                                                   {EDQUOT, "the disk quota is used up"},
                                                   {EFBIG, "it would be larger than files may be here"},
                                                   {EROFS, "the file system is read-only"},
                                                   {EACCES, "permission was denied"},
                                                   {EPERM, "permission was denied"},
                                                   {ENOENT, "its folder does not exist"},
                                                   {ENOTDIR, "its folder is not a folder"},
                                                   {EISDIR, "a folder has that name"}};
  for (const auto& [code, sentence] : known)
    if (code == error) return sentence;
  return std::strerror(error);
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

}  // namespace

AtomicFile::AtomicFile(std::filesystem::path path)
    : path_(std::move(path)), temporary_(folder_of(path_) / fmt::format(".{}.tmp", path_.filename().string())) {
  if (path_.filename().empty()) not_committed("name", EISDIR);
  open_temporary();
  if (uninterrupted([&] { return ftruncate(fd_, 0); }) != 0) not_committed("empty", errno);
}

void AtomicFile::open_temporary() {
  // Between our open and our lock another writer may have renamed the file we opened to its final name: the lock counts
  // only if the temporary name still leads to the file that we hold.
  while (true) {
    fd_ = uninterrupted([&] { return open(temporary_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666); });
    if (fd_ < 0) not_committed("create", errno);
    if (uninterrupted([&] { return flock(fd_, LOCK_EX | LOCK_NB); }) != 0 && errno == EWOULDBLOCK) {
      close(std::exchange(fd_, -1));  // the temporary is the other writer's: leave it
      throw NotCommitted(fmt::format("could not write {}: another writer is at it; not committed", path_.string()));
    }
    struct stat ours, named;
    if (fstat(fd_, &ours) == 0 && lstat(temporary_.c_str(), &named) == 0 && ours.st_dev == named.st_dev &&
        ours.st_ino == named.st_ino)
      return;
    close(std::exchange(fd_, -1));
  }
}

AtomicFile::~AtomicFile() {
  if (fd_ < 0) return;
  unlink(temporary_.c_str());  // before the close: the lock must not be free while the name is still ours
  close(fd_);
}

void AtomicFile::not_committed(std::string_view doing, int error) {
  if (fd_ >= 0) {
    unlink(temporary_.c_str());
    close(std::exchange(fd_, -1));
  }
  throw NotCommitted(fmt::format("could not write {}: {} ({}); not committed, what was there before is untouched",
                                 path_.string(), reason(error), doing));
}

void AtomicFile::write(const void* data, size_t bytes) {
  constexpr size_t at_most = size_t{1} << 30;  // Linux writes at most 2 GiB a call
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = uninterrupted([&] { return ::write(fd_, from, std::min(bytes, at_most)); });
    if (written <= 0) not_committed("write", written < 0 ? errno : ENOSPC);
    from += written;
    bytes -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (uninterrupted([&] { return fsync(fd_); }) != 0) not_committed("sync", errno);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) not_committed("rename", errno);
  close(std::exchange(fd_, -1));

  const std::filesystem::path folder = folder_of(path_);
  const int directory = uninterrupted([&] { return open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); });
  const bool synced = directory >= 0 && uninterrupted([&] { return fsync(directory); }) == 0;
  const int error = errno;
  if (directory >= 0) close(directory);
  if (!synced && error != EINVAL)  // some file systems cannot sync a directory, and say EINVAL
    throw DurabilityUncertain(
        fmt::format("{} is written, but its durability is uncertain: syncing the folder failed ({})", path_.string(),
                    reason(error)));
}

void write_file_atomically(const std::filesystem::path& path, const std::function<void(AtomicFile&)>& writer) {
  AtomicFile file(path);
  writer(file);
  file.commit();
}

void write_file_atomically(const std::filesystem::path& path, std::string_view content) {
  write_file_atomically(path, [&](AtomicFile& file) { file.write(content); });
}

}  // namespace saccade::io
