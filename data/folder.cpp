#include <fmt/format.h>
#include <saccade/data/source.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <set>
#include <tuple>

namespace saccade::data {
namespace {

namespace fs = std::filesystem;

/// Ordered by class, then folder, then name; std::string compares bytes, which for UTF-8 is code point order.
struct File {
  std::string class_name, folder, name;
  auto operator<=>(const File&) const = default;  // NOLINT(modernize-use-nullptr): clang-tidy 14 sees a 0 here
};

bool has_image_extension(const std::string& name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string::npos) return false;
  std::string extension = name.substr(dot + 1);
  for (char& c : extension) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  constexpr const char* kExtensions[] = {"jpg", "jpeg", "png", "ppm", "pgm", "bmp", "webp"};
  return std::any_of(std::begin(kExtensions), std::end(kExtensions), [&](const char* e) { return extension == e; });
}

/// Lists the tree below `root`. A link back to a folder that was visited is not followed again: this ends its loops.
std::vector<File> list_tree(const std::string& root) {
  std::vector<File> files;
  std::set<std::pair<dev_t, ino_t>> visited;
  struct Pending {
    std::string path, class_name;
    bool is_root;
  };
  std::vector<Pending> pending = {{root, "", true}};
  while (!pending.empty()) {
    const Pending at = std::move(pending.back());
    pending.pop_back();
    struct stat info {};
    if (::stat(at.path.c_str(), &info) != 0 || !visited.emplace(info.st_dev, info.st_ino).second) continue;
    std::error_code error;
    fs::directory_iterator entries(at.path, error);
    if (error) throw Error(fmt::format("{}: the folder cannot be listed: {}", at.path, error.message()));
    std::vector<std::string> folders;
    for (const fs::directory_entry& entry : entries) {
      std::string name = entry.path().filename().string();
      if (entry.is_directory(error)) {
        folders.push_back(std::move(name));
      } else if (has_image_extension(name)) {
        files.push_back({at.class_name, at.path, std::move(name)});
      }
    }
    // The last pushed is visited first: with links to one folder from several places, the first in order has it.
    std::sort(folders.rbegin(), folders.rend());
    for (const std::string& name : folders) {
      pending.push_back(
          {at.path + (at.path.ends_with('/') ? "" : "/") + name, at.is_root ? name : at.class_name, false});
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Source folder(const std::string& path, int channels, const DecodeLimits& limits) {
  std::error_code error;
  if (!fs::exists(path, error)) throw Error(fmt::format("{}: there is no such folder", path));
  if (!fs::is_directory(path, error)) throw Error(fmt::format("{}: is no folder", path));
  if (channels != 1 && channels != 3) throw Error(fmt::format("folder: expected 1 or 3 channels, got {}", channels));
  const std::vector<File> files = list_tree(path);
  if (files.empty()) {
    throw Error(
        fmt::format("{}: the folder and those below it hold no image (.jpg .jpeg .png .ppm .pgm .bmp .webp)", path));
  }

  Source source;
  source.name = path;
  source.count = static_cast<int64_t>(files.size());
  source.channels = channels;
  for (const File& file : files) {
    if (!file.class_name.empty() && (source.class_names.empty() || source.class_names.back() != file.class_name)) {
      source.class_names.push_back(file.class_name);
    }
    source.labels.push_back(file.class_name.empty() ? -1 : source.num_classes() - 1);
  }
  if (source.class_names.empty()) source.labels.clear();

  const auto paths = std::make_shared<std::vector<std::string>>();
  for (const File& file : files) paths->push_back(file.folder + (file.folder.ends_with('/') ? "" : "/") + file.name);
  source.key = [paths](int64_t i) { return (*paths)[static_cast<size_t>(i)]; };
  source.read = [paths, channels, limits](int64_t i, double useful_side, Image& out) {
    thread_local std::vector<uint8_t> bytes;
    const std::string& file = (*paths)[static_cast<size_t>(i)];
    read_file(file, limits.max_file_bytes, bytes);
    try {
      decode(bytes, {.channels = channels, .useful_side = useful_side, .limits = limits}, out);
    } catch (const Error& reason) {
      throw Error(fmt::format("{}: {}", file, reason.what()));
    }
  };
  return source;
}

}  // namespace saccade::data
