#pragma once

#include <filesystem>
#include <string>

namespace saccade::ssl {

/// The folder of one training run, and what lies where in it. While the object lives no other process can hold it.
class RunFolder {
 public:
  /// Makes the folder if need be. Throws Error when it cannot be made or written to, or when another process trains
  /// in it.
  explicit RunFolder(std::filesystem::path path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.toml"; }
  std::filesystem::path log() const { return path_ / "log.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path trunk() const { return path_ / "trunk.safetensors"; }
  std::filesystem::path report() const { return path_ / "report.html"; }

  /// Does a run stand in that folder that can go on?
  static bool holds_checkpoint(const std::filesystem::path& path);

  /// Removes what an earlier run wrote here, and nothing else. Throws Error when something cannot be removed.
  void clear();

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace saccade::ssl
