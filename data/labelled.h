#pragma once

#include <saccade/data/idx_files.h>
#include <saccade/data/layout.h>
#include <saccade/data/listing.h>
#include <saccade/data/source.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace saccade::data {

/// What a path holds, with labels, in the parts that it comes in.
struct LabelledSet {
  struct Part {
    Role role;
    std::string shown;  ///< its name in messages, empty for the whole
    /// The samples that have a label, perhaps none; the summary says what was left out. Classes known from elsewhere
    /// help to tell labels from other folders.
    std::function<Source(std::span<const std::string> known_classes)> open;
  };
  std::string name;  ///< of the path
  std::vector<Part> parts;
  std::string rest;  ///< what belongs to no part, in words; may be empty
};

LabelledSet labelled_folder(Listing listing, const OpenOptions& options);
LabelledSet labelled_idx(const std::string& name, const std::vector<IdxHalf>& halves, const OpenOptions& options);
LabelledSet labelled_table(const std::string& path, const OpenOptions& options);
/// Whatever a path given by a person holds.
LabelledSet labelled_set(const std::string& path, const OpenOptions& options);

}  // namespace saccade::data
