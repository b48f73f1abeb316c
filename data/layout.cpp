#include <saccade/data/layout.h>

#include <algorithm>
#include <array>

namespace saccade::data {
namespace {

std::string joined(const std::string& folder, const std::string& name) {
  return folder.empty() ? name : folder + "/" + name;
}

bool is_letter(char c) { return c >= 'a' && c <= 'z'; }

}  // namespace

std::optional<SplitName> split_name(std::string_view name) {
  std::string text(name);
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  constexpr std::array<std::pair<std::string_view, Role>, 8> kWords{{{"train", Role::train},
                                                                     {"training", Role::train},
                                                                     {"val", Role::val},
                                                                     {"valid", Role::val},
                                                                     {"validation", Role::val},
                                                                     {"dev", Role::val},
                                                                     {"test", Role::test},
                                                                     {"testing", Role::test}}};
  for (size_t first = 0; first < text.size();) {
    size_t last = first;
    while (last < text.size() && is_letter(text[last])) ++last;
    const std::string_view word = std::string_view(text).substr(first, last - first);
    const auto at = std::find_if(kWords.begin(), kWords.end(), [&](const auto& known) { return known.first == word; });
    if (at != kWords.end()) {
      const std::string rest = text.substr(0, first) + "*" + text.substr(last);
      return SplitName{at->second, rest == "*", rest};
    }
    first = std::max(last, first + 1);
  }
  return std::nullopt;
}

FolderTree::FolderTree(const Listing& listing, std::span<const Listing::File> files) {
  int32_t folder = -1;  // files come folder by folder
  int64_t* count = nullptr;
  for (const Listing::File& file : files) {
    if (file.folder != folder) count = &counts_[listing.folders[static_cast<size_t>(folder = file.folder)]];
    ++*count;
  }
}

std::optional<std::string_view> name_below(std::string_view folder, std::string_view path) {
  if (!folder.empty()) {
    if (!path.starts_with(folder)) return std::nullopt;
    path.remove_prefix(folder.size());
    if (!path.empty() && path[0] != '/') return std::nullopt;
    if (!path.empty()) path.remove_prefix(1);
  }
  return path.substr(0, path.find('/'));
}

std::vector<std::string> FolderTree::below(const std::string& folder) const {
  std::vector<std::string> names;
  for (auto at = counts_.lower_bound(folder); at != counts_.end() && at->first.starts_with(folder); ++at) {
    const auto name = name_below(folder, at->first);
    if (name && !name->empty()) names.emplace_back(*name);
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

int64_t FolderTree::count_below(const std::string& folder) const {
  int64_t count = 0;
  for (auto at = counts_.lower_bound(folder); at != counts_.end() && at->first.starts_with(folder); ++at)
    if (name_below(folder, at->first)) count += at->second;
  return count;
}

Layout layout_of(const FolderTree& tree) {
  std::string base;
  for (;;) {
    const std::vector<std::string> names = tree.below(base);
    // Names of one manner ("train" and "val", or "train2017" and "val2017") that are splits.
    std::map<std::string, std::vector<Layout::Part>> manners;
    for (const std::string& name : names)
      if (const auto split = split_name(name)) manners[split->rest].push_back({split->role, joined(base, name)});
    for (const auto& [rest, parts] : manners) {
      const auto count = [&](Role role) {
        return std::count_if(parts.begin(), parts.end(), [&](const Layout::Part& p) { return p.role == role; });
      };
      const auto has_folders = [&](const std::string& folder) { return !tree.below(folder).empty(); };
      const auto is_part = [&](const std::string& folder) {
        return std::any_of(parts.begin(), parts.end(), [&](const auto& part) { return part.folder == folder; });
      };
      const bool trains = count(Role::train) > 0, tests = count(Role::test) > 0, validates = count(Role::val) > 0;
      bool is_split = trains && (tests || validates);
      if (!is_split && rest == "*" && (trains || (tests && validates))) {
        // Without a counterpart the name may be that of a class: a split has classes within, what is beside it has
        // none.
        is_split = std::all_of(parts.begin(), parts.end(), [&](const auto& p) { return has_folders(p.folder); }) &&
                   std::none_of(names.begin(), names.end(), [&](const std::string& name) {
                     return !is_part(joined(base, name)) && has_folders(joined(base, name));
                   });
      }
      if (!is_split || names.size() < 2) continue;
      Layout layout{parts, {}};
      for (const std::string& name : names)
        if (!is_part(joined(base, name))) layout.others.push_back(joined(base, name));
      return layout;
    }
    if (names.size() != 1) break;
    const std::string within = joined(base, names[0]);
    if (tree.below(within).empty()) break;
    base = within;
  }
  return {{{Role::whole, base}}, {}};
}

std::string class_folder(const FolderTree& tree, std::string folder, std::span<const std::string> known_classes) {
  for (;;) {
    const std::vector<std::string> names = tree.below(folder);
    if (names.size() != 1) return folder;
    if (std::find(known_classes.begin(), known_classes.end(), names[0]) != known_classes.end()) return folder;
    const std::string within = joined(folder, names[0]);
    if (tree.below(within).empty()) return folder;
    folder = within;
  }
}

}  // namespace saccade::data
