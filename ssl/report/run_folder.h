#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace saccade::ssl {

/// The folder of one training run, and what lies where in it. While the object lives no other process can hold it.
///
/// A run's files are known by their content, not by their names alone, and only they are ever replaced or removed.
class RunFolder {
 public:
  /// Makes the folder if need be. Throws Error as check() does, when it cannot be made or written to, and when another
  /// process trains in it.
  explicit RunFolder(std::filesystem::path path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  /// Throws Error when the folder is neither missing, empty but for hidden files, nor that of a run; and when a file in
  /// it has the name of one that a run writes, and is something else.
  static void check(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path config() const { return path_ / "config.toml"; }
  std::filesystem::path data() const { return path_ / "data.tsv"; }
  std::filesystem::path log() const { return path_ / "log.jsonl"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path trunk() const { return path_ / "trunk.safetensors"; }
  std::filesystem::path report() const { return path_ / "report.html"; }

  /// How config() and data() begin, by which they are told from other programs' files of that name.
  static constexpr std::string_view kConfigStart = "# Settings of ", kDataStart = "# Images of a run";

  /// Does a run stand in that folder that can go on?
  static bool holds_checkpoint(const std::filesystem::path& path);

  /// Removes what an earlier run wrote here, and nothing else. Throws Error when something cannot be removed, and, with
  /// nothing removed, when a checkpoint is not one of ours, or damaged.
  void clear();

 private:
  std::filesystem::path path_;
  int lock_ = -1;
};

}  // namespace saccade::ssl
