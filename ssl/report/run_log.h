#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace saccade::ssl {

using LogValue = std::variant<double, int64_t, std::string, std::vector<std::string>>;
using LogField = std::pair<std::string, LogValue>;

/// The log of a run: a file of JSON objects, one a line, with "kind" and mostly "step" (the iteration it speaks of,
/// counted from 0). Numbers that are not finite become null. Lines are given to the system as they come.
///
/// The log of a resumed run has each step once: the first line of a sitting that has a step drops what earlier sittings
/// wrote of this step and later ones, and a last line that was cut off.
class RunLog {
 public:
  explicit RunLog(std::filesystem::path path);

  /// All throw Error when the file can no longer be written.
  void write(std::string_view kind, int64_t step, std::span<const LogField> fields);
  void write(std::string_view kind, int64_t step, std::initializer_list<LogField> fields) {
    write(kind, step, std::span(fields.begin(), fields.size()));
  }
  /// A line without a step: it is kept when a run is resumed.
  void write(std::string_view kind, std::span<const LogField> fields);
  void write(std::string_view kind, std::initializer_list<LogField> fields) {
    write(kind, std::span(fields.begin(), fields.size()));
  }

 private:
  void rewind(int64_t step);
  void append(std::string_view kind, const int64_t* step, std::span<const LogField> fields);

  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
  bool has_stepped_ = false;
};

struct LogLine {
  std::string kind;
  int64_t step = -1;  ///< -1: the line has none
  std::map<std::string, double> numbers = {};
  std::map<std::string, std::string> texts = {};
  std::map<std::string, std::vector<std::string>> lists = {};
};

/// All whole lines of a log; those that are none are left out and counted.
std::vector<LogLine> read_run_log(const std::filesystem::path& path, int64_t* broken_lines = nullptr);

}  // namespace saccade::ssl
