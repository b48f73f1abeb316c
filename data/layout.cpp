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

namespace {

/// The folders among `names` that are splits, if any are.
std::vector<Layout::Part> splits_of(const FolderTree& tree, const std::string& base,
                                    const std::vector<std::string>& names) {
  using Parts = std::vector<Layout::Part>;
  std::map<std::string, Parts> manners;  // "train" and "val", or "train2017" and "val2017"
  Parts all;
  bool exact = false;
  for (const std::string& name : names) {
    if (const auto split = split_name(name)) {
      all.push_back({split->role, joined(base, name)});
      manners[split->rest].push_back(all.back());
      exact |= split->exact;
    }
  }
  const auto count = [](const Parts& parts, Role role) {
    return std::count_if(parts.begin(), parts.end(), [&](const Layout::Part& part) { return part.role == role; });
  };
  const auto is_pair = [&](const Parts& parts) {
    return count(parts, Role::train) > 0 && count(parts, Role::val) + count(parts, Role::test) > 0;
  };
  for (const auto& [rest, parts] : manners)
    if (is_pair(parts)) return parts;
  // Of several manners, or without a counterpart, the names may be those of classes, which have no classes within.
  const bool once = std::all_of(all.begin(), all.end(), [&](const auto& part) { return count(all, part.role) == 1; });
  const bool has_classes = std::any_of(all.begin(), all.end(), [&](const Layout::Part& part) {
    return tree.below(class_folder(tree, part.folder)).size() > 1;
  });
  return once && has_classes && (exact || is_pair(all)) ? all : Parts{};
}

}  // namespace

Layout layout_of(const FolderTree& tree) {
  std::string base;
  for (;;) {
    const std::vector<std::string> names = tree.below(base);
    if (names.size() > 1) {
      Layout layout{splits_of(tree, base, names), {}};
      if (layout.parts.empty()) break;
      for (const std::string& name : names) {
        const std::string folder = joined(base, name);
        const bool is_part = std::any_of(layout.parts.begin(), layout.parts.end(),
                                         [&](const Layout::Part& part) { return part.folder == folder; });
        if (!is_part) layout.others.push_back(folder);
      }
      return layout;
    }
    if (names.empty()) break;
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
