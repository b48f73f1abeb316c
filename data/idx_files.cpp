#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/file_kind.h>
#include <saccade/data/idx_files.h>
#include <saccade/data/labelled.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

namespace saccade::data {
namespace {

namespace fs = std::filesystem;

struct File {
  std::string path, name;
  std::vector<int64_t> extents;
  std::optional<Role> role;
};

std::optional<File> look_at(const std::string& path) {
  try {
    File file{path, fs::path(path).filename().string(), idx_extents(path), std::nullopt};
    if (file.name.find("t10k") != std::string::npos || file.name.find("T10K") != std::string::npos) {
      file.role = Role::test;
    } else if (const auto split = split_name(file.name)) {
      file.role = split->role;
    }
    return file;
  } catch (const Error&) {
    return std::nullopt;  // whoever asks for this file is told
  }
}

bool holds_images(const File& file) { return file.extents.size() == 3 || file.extents.size() == 4; }

bool is_gray(const File& file) { return file.extents.size() == 3 || file.extents.back() == 1; }

/// Where files lie in several folders, these may have the names that the files have not.
void roles_of_folders(std::vector<File>& files) {
  const auto folder_of = [](const File& file) { return fs::path(file.path).parent_path(); };
  if (std::all_of(files.begin(), files.end(), [&](const File& f) { return folder_of(f) == folder_of(files[0]); }))
    return;
  for (File& file : files) {
    const auto split = split_name(folder_of(file).filename().string());
    if (!file.role && split) file.role = split->role;
  }
}

size_t common_start(std::string_view a, std::string_view b) {
  return static_cast<size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}

/// Of the labels that are as many, those whose names fit best.
std::string labels_for(const File& images, const std::vector<File>& all) {
  const File* best = nullptr;
  const auto merit = [&](const File& labels) {
    return std::make_tuple(fs::path(labels.path).parent_path() == fs::path(images.path).parent_path(),
                           labels.role == images.role, common_start(labels.name, images.name));
  };
  for (const File& file : all) {
    if (file.extents.size() != 1 || file.extents[0] != images.extents[0]) continue;
    if (file.role && images.role && file.role != images.role) continue;
    if (best == nullptr || merit(file) > merit(*best)) best = &file;
  }
  return best == nullptr ? "" : best->path;
}

}  // namespace

std::vector<IdxHalf> pair_idx_files(std::vector<std::string> paths, int64_t others) {
  std::sort(paths.begin(), paths.end());
  const std::set<std::string> all(paths.begin(), paths.end());
  std::vector<File> files;
  for (const std::string& path : paths) {
    const bool is_twin = path.size() > 3 && path.ends_with(".gz") && all.contains(path.substr(0, path.size() - 3));
    if (is_twin) continue;
    if (auto file = look_at(path)) files.push_back(std::move(*file));
  }
  int64_t count = 0;
  for (const File& file : files) count += holds_images(file) ? file.extents[0] : 0;
  if (count <= others) return {};
  roles_of_folders(files);
  std::vector<IdxHalf> halves;
  std::vector<std::string> names;
  for (const File& file : files) {
    if (!holds_images(file)) continue;
    halves.push_back(
        {file.role.value_or(Role::whole), file.path, labels_for(file, files), file.extents[0], is_gray(file)});
    names.push_back(printable(file.name));
  }
  if (halves.size() == 1) halves[0].role = Role::whole;
  const auto nameless = [](const IdxHalf& half) { return half.role == Role::whole; };
  if (halves.size() == 2 && std::any_of(halves.begin(), halves.end(), nameless)) {
    IdxHalf &a = halves[0], &b = halves[1];
    if (nameless(a) && nameless(b)) {
      a.role = a.count >= b.count ? Role::train : Role::test;
      b.role = a.role == Role::train ? Role::test : Role::train;
    } else {
      IdxHalf &named = nameless(a) ? b : a, &other = nameless(a) ? a : b;
      other.role = named.role == Role::train ? Role::test : Role::train;
    }
  }
  std::set<Role> roles;
  for (const IdxHalf& half : halves) {
    if (!roles.insert(half.role).second || (halves.size() > 1 && nameless(half))) {
      if (names.size() > 6) names.resize(6);
      throw Error(
          fmt::format("{}: there are several sets of IDX images ({}): give the file of one, or a folder of its own",
                      printable(fs::path(half.images).parent_path().string()), fmt::join(names, ", ")));
    }
  }
  return halves;
}

IdxHalf with_labels_beside(const std::string& images) {
  const std::optional<File> file = look_at(images);
  if (!file || !holds_images(*file)) idx(images);  // says what is wrong with it
  const fs::path folder = fs::path(images).parent_path();
  std::vector<std::string> paths;
  std::error_code error;
  for (fs::directory_iterator at(folder.empty() ? "." : folder, error), end; !error && at != end; at.increment(error)) {
    const std::string path = (folder / at->path().filename()).string();
    if (at->is_regular_file(error) && kind_of_content(AT_FDCWD, path).what == FileKind::What::idx)
      paths.push_back(path);
  }
  std::sort(paths.begin(), paths.end());
  std::vector<File> files;
  for (const std::string& path : paths)
    if (auto other = look_at(path)) files.push_back(std::move(*other));
  return {Role::whole, images, labels_for(*file, files), file->extents[0], is_gray(*file)};
}

Source open_idx(const IdxHalf& half, const OpenOptions& options) {
  Source source = idx(half.images, half.labels);
  name_fashion(source);
  const bool gray = source.channels == 1;
  source = with_channels(std::move(source), options.channels);
  if (gray && source.channels == 3) source.summary += ", as three equal channels";
  if (!gray && source.channels == 1) source.summary += ", of which the luma";
  return source;
}

Source open_idx(const std::string& name, const std::vector<IdxHalf>& halves, const OpenOptions& options) {
  const auto train =
      std::find_if(halves.begin(), halves.end(), [](const IdxHalf& half) { return half.role == Role::train; });
  const IdxHalf& taken = train == halves.end() ? halves.front() : *train;
  Source source = open_idx(taken, options);
  for (const IdxHalf& half : halves) {
    if (&half == &taken) continue;
    source.summary += fmt::format("; left out: the {} of {}, which are to judge by (give that file to take them)",
                                  half.count, printable(fs::path(half.images).filename().string()));
  }
  source.name = printable(name);
  return source;
}

LabelledSet labelled_idx(const std::string& name, const std::vector<IdxHalf>& halves, const OpenOptions& options) {
  LabelledSet set{.name = printable(name), .parts = {}, .rest = ""};
  for (const IdxHalf& half : halves) {
    const auto open = [half, options](std::span<const std::string>) {
      Source source = open_idx(half, options);
      source.summary.clear();
      // Classes are bytes, of which some may not occur; a file of one class has one, whatever its number.
      const std::set<int> seen(source.labels.begin(), source.labels.end());
      if (seen.size() == 1) {
        source.class_names = {source.class_names[static_cast<size_t>(*seen.begin())]};
        std::fill(source.labels.begin(), source.labels.end(), 0);
      }
      return source;
    };
    set.parts.push_back(
        {half.role, half.role == Role::whole ? "" : printable(fs::path(half.images).filename().string()), open});
    if (half.gray && options.channels == 3) set.rest = "gray images as three equal channels";
  }
  return set;
}

}  // namespace saccade::data
