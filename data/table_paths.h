#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace saccade::data {

/// Finds the files that the values of a table mean: absolute paths, or paths from the table's folder. Where few values
/// are that, `widen()` also takes paths from the current folder, and paths of which the beginning or the extension is
/// missing ("12", "12.jpg" or "cat/12.jpg" for photos/cat/12.jpg), if one image alone is meant.
class TablePaths {
 public:
  explicit TablePaths(const std::string& table_path);

  /// Throws saccade::Error when the table's folder cannot be listed.
  void widen();

  /// The path of the file, or empty if there is none, or several.
  std::string find(const std::string& value) const;
  /// Whether several images could be meant.
  bool is_ambiguous(const std::string& value) const { return images_called(value).size() > 1; }

 private:
  std::string find_as_written(const std::string& value) const;
  std::vector<int64_t> images_called(const std::string& value) const;
  std::string joined(const std::string& below) const;

  std::string folder_;
  bool wide_ = false;
  std::vector<std::string> images_;                                // below the folder; without its name
  std::unordered_map<std::string, std::vector<int64_t>> by_name_;  // of the file, with and without its extension
};

}  // namespace saccade::data
