#include <saccade/data/listing.h>
#include <saccade/data/table_paths.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

namespace saccade::data {
namespace {

namespace fs = std::filesystem;

bool is_file(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}

/// Where the extension of the last name begins; the end if it has none.
size_t extension_at(const std::string& path) {
  const size_t name = path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1, dot = path.rfind('.');
  return dot == std::string::npos || dot <= name ? path.size() : dot;
}

bool ends_with_names(const std::string& path, const std::string& names) {
  return path.ends_with(names) && (path.size() == names.size() || path[path.size() - names.size() - 1] == '/');
}

}  // namespace

TablePaths::TablePaths(const std::string& table_path) : folder_(fs::path(table_path).parent_path().string()) {}

void TablePaths::widen() {
  wide_ = true;
  const Listing listing = list_tree(folder_.empty() ? "." : folder_);
  for (const Listing::File& file : listing.images) {
    const std::string& below = listing.folders[static_cast<size_t>(file.folder)];
    const auto index = std::ssize(images_);
    images_.push_back(below.empty() ? file.name : below + "/" + file.name);
    by_name_[file.name].push_back(index);
    if (const size_t end = extension_at(file.name); end < file.name.size())
      by_name_[file.name.substr(0, end)].push_back(index);
  }
}

std::string TablePaths::joined(const std::string& below) const {
  return folder_.empty() ? below : folder_ + (folder_.ends_with('/') ? "" : "/") + below;
}

std::string TablePaths::find(const std::string& value) const {
  std::string found = find_as_written(value);
  if (!found.empty() || value.find('\\') == std::string::npos) return found;
  std::string turned = value;  // written on Windows
  std::replace(turned.begin(), turned.end(), '\\', '/');
  return find_as_written(turned);
}

std::string TablePaths::find_as_written(const std::string& value) const {
  if (value.starts_with('/') && is_file(value)) return value;
  const fs::path below = fs::path(value).relative_path();  // "/photos/1.jpg" may count from the folder, too
  const bool climbs = std::find(below.begin(), below.end(), "..") != below.end();  // out of a folder, or of a link
  if (std::string path = joined((climbs ? below : below.lexically_normal()).string()); is_file(path)) return path;
  if (!wide_) return "";
  if (is_file(value)) return fs::absolute(value).lexically_normal().string();
  const std::vector<int64_t> images = images_called(value);
  return images.size() == 1 ? joined(images_[static_cast<size_t>(images[0])]) : "";
}

std::vector<int64_t> TablePaths::images_called(const std::string& value) const {
  const std::string names = fs::path(value).lexically_normal().relative_path().string();
  const auto at = by_name_.find(fs::path(names).filename().string());
  if (at == by_name_.end()) return {};
  std::vector<int64_t> images;
  for (const int64_t image : at->second) {
    const std::string& path = images_[static_cast<size_t>(image)];
    if (ends_with_names(path, names) || ends_with_names(path.substr(0, extension_at(path)), names))
      images.push_back(image);
  }
  return images;
}

}  // namespace saccade::data
