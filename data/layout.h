#pragma once

#include <saccade/data/listing.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// What a part of a data set is for.
enum class Role : uint8_t { whole, train, val, test };

/// The role that a name gives: train or training, val, valid, validation or dev, test or testing, in any case.
/// `exact` is false where that is a part of the name (`training_set`, `val2017`); `rest` is the name without it.
struct SplitName {
  Role role;
  bool exact;
  std::string rest;
};
std::optional<SplitName> split_name(std::string_view name);

/// How many images lie in the folders below a root.
class FolderTree {
 public:
  FolderTree(const Listing& listing, std::span<const Listing::File> files);
  /// Sub-folders of a folder that have images in or below them, in code point order. "" is the root.
  std::vector<std::string> below(const std::string& folder) const;
  int64_t count_below(const std::string& folder) const;  ///< in it and all below it

 private:
  std::map<std::string, int64_t> counts_;  // of folders with images in them
};

/// Parts that a folder's sub-folders are by their names, or the one part that it is as a whole.
struct Layout {
  struct Part {
    Role role;
    std::string folder;  ///< below the root
  };
  std::vector<Part> parts;          ///< in code point order
  std::vector<std::string> others;  ///< folders with images that lie beside the parts, and are none
};

/// Looks through folders that hold a single folder with others in it, then for sub-folders that are splits by their
/// names: one to train with and one to judge by, called in the same manner; or, if there are classes in one of them,
/// such a pair of any manner, or one that is called exactly as a split is.
Layout layout_of(const FolderTree& tree);

/// The folder whose sub-folders are the classes: `folder` itself, or one within if there is no other beside it. One
/// whose only sub-folder is a known class is not looked through, nor is one whose only sub-folder has none itself.
std::string class_folder(const FolderTree& tree, std::string folder, std::span<const std::string> known_classes = {});

/// The first name of a path below a folder; empty if the path is that folder, nullopt if it lies elsewhere.
std::optional<std::string_view> name_below(std::string_view folder, std::string_view path);

}  // namespace saccade::data
