#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/evaluate.h>
#include <saccade/data/files.h>
#include <saccade/data/labelled.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <unordered_set>

namespace saccade::data {

namespace fs = std::filesystem;

LabelledSet labelled_folder(Listing given, const OpenOptions& options) {
  if (given.images.empty()) no_image_in(given);
  if (!given.idx_files.empty()) given.passed_over.add("IDX", std::ssize(given.idx_files));
  const auto listing = std::make_shared<const Listing>(std::move(given));
  const auto tree = std::make_shared<const FolderTree>(*listing, listing->images);
  const Layout layout = layout_of(*tree);
  LabelledSet set{.name = printable(listing->root), .parts = {}, .rest = words_of_rest(*listing)};
  int64_t elsewhere = std::ssize(listing->images);
  for (const Layout::Part& part : layout.parts) {
    const int64_t within = tree->count_below(part.folder);
    elsewhere -= within;
    const auto open = [=](std::span<const std::string> known_classes) {
      const std::string base = class_folder(*tree, part.folder, known_classes);
      std::vector<Listing::File> files;
      for (const Listing::File& file : listing->images) {
        const auto name = name_below(base, listing->folders[static_cast<size_t>(file.folder)]);
        if (name && !name->empty()) files.push_back(file);
      }
      const int64_t without_class = within - std::ssize(files), repeats = drop_repeats(*listing, files);
      std::vector<std::string> classes;
      for (const Listing::File& file : files)
        classes.emplace_back(*name_below(base, listing->folders[static_cast<size_t>(file.folder)]));
      Source source = image_files(*listing, std::move(files), options);
      set_classes(source, classes);
      source.name = printable(listing->root + (part.folder.empty() ? "" : "/" + part.folder));
      if (without_class > 0) source.summary = fmt::format("{} in no folder of a class", words_of_count(without_class));
      if (repeats > 0) source.summary += fmt::format("{}{} linked twice", without_class > 0 ? ", " : "", repeats);
      return source;
    };
    set.parts.push_back({part.role, part.folder.empty() ? "" : printable(part.folder) + "/", open});
  }
  Census others;
  for (const std::string& folder : layout.others) {
    others.add("in " + printable(folder) + "/", tree->count_below(folder));
    elsewhere -= tree->count_below(folder);
  }
  if (elsewhere > 0) others.add("in no folder", elsewhere);
  if (!others.empty())
    set.rest = fmt::format("images beside these: {}{}{}", others.words(3), set.rest.empty() ? "" : "; ", set.rest);
  return set;
}

namespace {

/// "40 images of 2 classes (cat 20, dog 20)", of bounded length.
std::string words_of(const Source& source) {
  std::vector<int64_t> counts(source.class_names.size());
  for (const int label : source.labels) ++counts[static_cast<size_t>(label)];
  std::string classes;
  constexpr size_t kShown = 8;
  for (size_t i = 0; i < std::min(counts.size(), kShown); ++i)
    classes += fmt::format("{}{} {}", i == 0 ? "" : ", ", printable(source.class_names[i]), counts[i]);
  if (counts.size() > kShown) classes += fmt::format(" and {} others", counts.size() - kShown);
  return fmt::format("{} of {} class{} ({}{}{})", words_of_count(source.count), counts.size(),
                     counts.size() == 1 ? "" : "es", classes, source.summary.empty() ? "" : "; ", source.summary);
}

/// A table beside the images may be what has the labels.
std::string table_in(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> tables;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string extension = at->path().extension().string();
    if (extension == ".csv" || extension == ".tsv") tables.push_back(at->path().string());
  }
  std::sort(tables.begin(), tables.end());
  return tables.empty() ? "" : fmt::format(", or give the table of paths and labels: {}", printable(tables.front()));
}

[[noreturn]] void no_labels(const LabelledSet& set, const Source& best) {
  if (best.num_classes() == 1) {
    throw Error(fmt::format(
        "{}: all images that have a label are of one class, {}: there is nothing to tell apart; give a folder with a "
        "folder for each of two classes or more{}",
        best.name, printable(best.class_names[0]), table_in(set.name)));
  }
  std::vector<std::string> names;
  for (const auto& part : set.parts)
    if (!part.shown.empty()) names.push_back(part.shown);
  const std::string where = names.empty() ? "" : fmt::format(" in {}", fmt::join(names, ", "));
  throw Error(
      fmt::format("{}: there are no labels{} to evaluate with; put the images of each class into a folder of its own, "
                  "or give a CSV "
                  "of path and label, or a folder of IDX files with their labels{}",
                  set.name, where, table_in(set.name)));
}

/// Which sample it is, however its path is written.
std::string identity(const Source& source, const std::string& canonical_name, int64_t i) {
  const std::string key = source.key(i);
  struct stat info {};
  if (::stat(key.c_str(), &info) == 0) return fmt::format("{}:{}", info.st_dev, info.st_ino);
  return key.starts_with(source.name) ? canonical_name + key.substr(source.name.size()) : key;
}

int64_t count_shared(const Source& train, const Source& test) {
  std::unordered_set<std::string> learned;
  const auto canonical = [](const Source& source) {
    std::error_code error;
    const fs::path path = fs::canonical(source.name, error);
    return error ? source.name : path.string();
  };
  const std::string of_train = canonical(train), of_test = canonical(test);
  for (int64_t i = 0; i < train.size(); ++i) learned.insert(identity(train, of_train, i));
  int64_t shared = 0;
  for (int64_t i = 0; i < test.size(); ++i) shared += learned.contains(identity(test, of_test, i)) ? 1 : 0;
  return shared;
}

/// A class of `test` that `train` has not, empty if there is none.
std::string unknown_class(const Source& train, const Source& test) {
  for (const std::string& name : test.class_names)
    if (std::find(train.class_names.begin(), train.class_names.end(), name) == train.class_names.end()) return name;
  return "";
}

/// Parts in the order in which they are tried for a use.
std::vector<const LabelledSet::Part*> in_order(const LabelledSet& set, std::initializer_list<Role> roles) {
  std::vector<const LabelledSet::Part*> parts;
  for (const Role role : roles) {
    for (const auto& part : set.parts)
      if (part.role == role) parts.push_back(&part);
  }
  return parts;
}

/// Folders number their classes each by itself.
void number_as(const Source& train, Source& test) {
  for (int& label : test.labels) {
    const std::string& name = test.class_names[static_cast<size_t>(label)];
    const auto at = std::find(train.class_names.begin(), train.class_names.end(), name);
    label = static_cast<int>(at - train.class_names.begin());
  }
  test.class_names = train.class_names;
}

struct Chosen {
  const LabelledSet::Part* part = nullptr;
  Source source;
};

Chosen choose_train(const LabelledSet& set) {
  Source best;
  for (const auto* part : in_order(set, {Role::whole, Role::train, Role::val, Role::test})) {
    Source source = part->open({});
    if (source.num_classes() > 1) return {part, std::move(source)};
    if (source.num_classes() > best.num_classes()) best = std::move(source);
  }
  no_labels(set, best);
}

/// The part to judge by: none if nothing but `train` has labels, and that is allowed.
Chosen choose_test(const LabelledSet& set, const Chosen& train, bool is_other_path) {
  std::string refusal;
  for (const auto* part : in_order(set, {Role::whole, Role::test, Role::val, Role::train})) {
    if (part == train.part || (part->role == Role::train && !is_other_path)) continue;
    Source source = part->open(train.source.class_names);
    const std::string unknown = unknown_class(train.source, source);
    const bool only_a_folder = source.num_classes() == 1 && !unknown.empty() && part->role != Role::whole;
    if (source.num_classes() == 0 || only_a_folder) continue;
    if (unknown.empty()) return {part, std::move(source)};
    if (refusal.empty())
      refusal = fmt::format("{}: class {} does not occur in {}", source.name, printable(unknown), train.source.name);
  }
  if (!refusal.empty()) throw Error(refusal + "; what is judged must be of the classes that are learned");
  if (is_other_path) no_labels(set, {});
  return {};
}

}  // namespace

LabelledPair labelled_pair(const std::string& train_path, const std::string& test_path, const OpenOptions& options) {
  const LabelledSet train_set = labelled_set(train_path, options);
  Chosen train = choose_train(train_set);
  const bool two_paths = !test_path.empty();
  const LabelledSet test_set = two_paths ? labelled_set(test_path, options) : LabelledSet{};
  Chosen test =
      choose_test(two_paths ? test_set : train_set, train, two_paths);  // the set itself: parts are told by place

  LabelledPair pair;
  const auto shown = [](const LabelledSet::Part& part, const char* whole) {
    return part.shown.empty() ? std::string(whole) : part.shown;
  };
  pair.summary = fmt::format("{}: ", train_set.name);
  if (test.part == nullptr) {
    std::vector<int64_t> kept, held_out;
    for (int64_t i = 0; i < train.source.size(); ++i) (i % 5 == 4 ? held_out : kept).push_back(i);
    if (held_out.empty())
      throw Error(train.source.name + ": too few labelled images to hold some out for judging, five at least");
    pair.summary += fmt::format("{}{}, every fifth to judge by",
                                train.part->shown.empty() ? "" : train.part->shown + " has ", words_of(train.source));
    pair.test = subset(train.source, held_out);
    pair.train = subset(train.source, kept);
  } else {
    const int64_t shared = count_shared(train.source, test.source);
    if (shared == test.source.size()) {
      throw Error(fmt::format(
          "{}: all images to be judged by are among those to learn from ({}); leave --test away to hold some out",
          test.source.name, train.source.name));
    }
    pair.summary += fmt::format("{}{} to learn from; {}{}{} to judge by",
                                train.part->shown.empty() ? "" : train.part->shown + " has ", words_of(train.source),
                                two_paths ? test_set.name + ": " : "",
                                test.part->shown.empty() ? "" : test.part->shown + " has ", words_of(test.source));
    if (shared > 0) pair.summary += fmt::format(", {} of which are among those to learn from", shared);
    pair.train = std::move(train.source);
    pair.test = std::move(test.source);
    number_as(pair.train, pair.test);
  }
  const auto add = [&](const std::string& words) {
    if (!words.empty()) pair.summary += "; " + words;
  };
  const auto add_others = [&](const LabelledSet& set) {
    for (const auto& part : set.parts) {
      if (&part == train.part || &part == test.part) continue;
      const Source source = part.open(pair.train.class_names);
      const bool labelled =
          source.num_classes() > 1 || (source.num_classes() == 1 && unknown_class(pair.train, source).empty());
      add(fmt::format("{} {}", shown(part, "the rest"), labelled ? "is left out" : "has no labels"));
    }
    add(set.rest);
  };
  add_others(train_set);
  if (two_paths) add_others(test_set);
  return pair;
}

}  // namespace saccade::data
