#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/run_folder.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

namespace saccade::ssl {

namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path path) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw Error(fmt::format("the run folder {} cannot be made: {}", path_.string(), error.message()));
  lock_ = open((path_ / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock_ < 0) {
    throw Error(fmt::format("the run folder {} cannot be written to: {}", path_.string(), std::strerror(errno)));
  }
  // The system lifts the lock when the process ends, however it ends.
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const bool taken = errno == EWOULDBLOCK;
    const std::string reason = std::strerror(errno);
    close(lock_);
    throw Error(taken ? fmt::format("another process is training in the run folder {}", path_.string())
                      : fmt::format("the run folder {} cannot be locked: {}", path_.string(), reason));
  }
}

RunFolder::~RunFolder() { close(lock_); }

bool RunFolder::holds_checkpoint(const fs::path& path) {
  std::error_code none;
  return fs::is_directory(path / "checkpoints", none) && !io::checkpoint_steps(path / "checkpoints").empty();
}

void RunFolder::clear() {
  std::vector<fs::path> old{config(), log(), trunk(), report(), path_ / "not-finite.safetensors"};
  const auto take = [&old](const fs::path& folder, const std::string& start) {
    std::error_code none;
    for (const auto& entry : fs::directory_iterator(folder, none))
      if (entry.is_regular_file() && entry.path().filename().string().starts_with(start)) old.push_back(entry.path());
  };
  take(path_, "events.out.tfevents.");
  take(checkpoints(), "step-");
  for (const fs::path& file : old) {
    std::error_code error;
    fs::remove(file, error);
    if (error) throw Error(fmt::format("{} cannot be removed: {}", file.string(), error.message()));
  }
}

}  // namespace saccade::ssl
