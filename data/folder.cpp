#include <fmt/format.h>
#include <saccade/data/files.h>
#include <saccade/data/layout.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>

namespace saccade::data {
namespace {

std::string with_rest(const std::string& words, const Listing& listing) {
  const std::string rest = words_of_rest(listing);
  return rest.empty() ? words : words + "; " + rest;
}

/// All images of a listing, each file once, with a summary.
Source all_images(Listing& listing, const OpenOptions& options) {
  if (listing.images.empty()) no_image_in(listing);
  if (const int64_t repeats = drop_repeats(listing, listing.images); repeats > 0)
    listing.passed_over.add("linked twice", repeats);
  if (!listing.idx_files.empty()) listing.passed_over.add("IDX", std::ssize(listing.idx_files));
  Source source = image_files(listing, listing.images, options);
  source.summary = with_rest(fmt::format("{}: {} ({})", printable(listing.root), words_of_count(source.count),
                                         words_of_kinds(listing, listing.images)),
                             listing);
  return source;
}

}  // namespace

void no_image_in(const Listing& listing) {
  throw Error(with_rest(
      fmt::format("{}: the folder and those below it hold no image that is read (JPEG, PNG, WebP, BMP, GIF, PNM)",
                  printable(listing.root)),
      listing));
}

std::string words_of_count(int64_t images) { return fmt::format("{} image{}", images, images == 1 ? "" : "s"); }

std::string words_of_kinds(const Listing& listing, const std::vector<Listing::File>& files) {
  std::vector<int64_t> counts(listing.kinds.size());
  for (const Listing::File& file : files) ++counts[static_cast<size_t>(file.kind)];
  Census kinds;
  for (size_t i = 0; i < counts.size(); ++i)
    if (counts[i] > 0) kinds.add(listing.kinds[i], counts[i]);
  return kinds.words();
}

Source image_files(std::string name, const std::string& folder, int64_t count,
                   std::function<std::string(int64_t)> path_of, const OpenOptions& options) {
  if (options.channels != 0 && options.channels != 1 && options.channels != 3)
    throw Error(fmt::format("images: expected 1 or 3 channels, got {}", options.channels));
  Source source;
  source.name = printable(name);
  source.count = count;
  source.channels = options.channels == 1 ? 1 : 3;
  source.files = [folder, count, path_of] { return stored_files(folder, count, path_of); };
  source.key = [path_of](int64_t i) { return printable(path_of(i)); };
  source.read = [path_of, options, channels = source.channels, remarked = std::make_shared<std::atomic<bool>>(false)](
                    int64_t i, double useful_side, Image& out) {
    thread_local std::vector<uint8_t> bytes;
    const std::string path = path_of(i);
    try {
      read_file(path, options.limits.max_file_bytes, bytes);
    } catch (const Error& reason) {
      throw Error(printable(reason.what()));
    }
    try {
      decode(bytes, {.channels = channels, .useful_side = useful_side, .exif = options.exif, .limits = options.limits},
             out);
    } catch (const Error& reason) {
      throw Error(fmt::format("{}: {}", printable(path), reason.what()));
    }
    // Cameras and scanners have 10, 12 or 14 bits; some programs leave the rest of the 16 empty.
    constexpr uint8_t kDark = 64;
    if (options.remark && !*remarked && has_16_bit_samples(bytes)) {
      const uint8_t brightest = *std::max_element(out.pixels.begin(), out.pixels.end());
      if (brightest < kDark && !remarked->exchange(true))
        options.remark(fmt::format(
            "{}: samples of 16 bits are taken as 8, and this image's then never exceed {} of 255: it is seen as dark "
            "as "
            "that. If the images have 10, 12 or 14 bits, multiply their values by 64, 16 or 4 first. (Said once.)",
            printable(path), brightest));
    }
  };
  return source;
}

Source image_files(const Listing& listing, std::vector<Listing::File> files, const OpenOptions& options) {
  struct Names {
    std::string root;
    std::vector<std::string> folders;
    std::vector<std::pair<int32_t, std::string>> files;
  };
  auto names = std::make_shared<Names>(Names{listing.root, listing.folders, {}});
  names->files.reserve(files.size());
  for (Listing::File& file : files) names->files.emplace_back(file.folder, std::move(file.name));
  const auto count = static_cast<int64_t>(names->files.size());
  const auto path_of = [names = std::shared_ptr<const Names>(names)](int64_t i) {
    const auto& [folder, name] = names->files[static_cast<size_t>(i)];
    const std::string& below = names->folders[static_cast<size_t>(folder)];
    return names->root + "/" + below + (below.empty() ? "" : "/") + name;
  };
  return image_files(listing.root, listing.root, count, path_of, options);
}

void set_classes(Source& source, const std::vector<std::string>& class_of) {
  std::map<std::string_view, int> numbers;
  for (const std::string& name : class_of)
    if (!name.empty()) numbers.emplace(name, 0);
  source.labels.clear();
  source.class_names.clear();
  if (numbers.empty()) return;
  for (auto& [name, number] : numbers) {
    number = source.num_classes();
    source.class_names.emplace_back(name);
  }
  source.labels.reserve(class_of.size());
  for (const std::string& name : class_of) source.labels.push_back(name.empty() ? -1 : numbers.at(name));
}

Source folder(const std::string& path, const OpenOptions& options) {
  Listing listing = list_tree(path);
  Source source = all_images(listing, options);
  std::vector<std::string> classes;
  for (const Listing::File& file : listing.images)
    classes.emplace_back(*name_below("", listing.folders[static_cast<size_t>(file.folder)]));
  set_classes(source, classes);
  return source;
}

Source folder_images(Listing listing, const OpenOptions& options) {
  Source source = all_images(listing, options);
  const FolderTree tree(listing, listing.images);
  const Layout layout = layout_of(tree);
  std::vector<std::string> bases;  // folders whose sub-folders are classes
  for (const Layout::Part& part : layout.parts) {
    std::string base = class_folder(tree, part.folder);
    // The only folder of a split says no more than the split.
    if (layout.parts.size() == 1 || tree.below(base).size() > 1) bases.push_back(std::move(base));
  }
  std::vector<std::string> of_folder(listing.folders.size());
  for (size_t i = 0; i < of_folder.size(); ++i) {
    for (const std::string& base : bases)
      if (const auto name = name_below(base, listing.folders[i])) of_folder[i] = *name;
  }
  std::vector<std::string> classes;
  classes.reserve(listing.images.size());
  for (const Listing::File& file : listing.images) classes.push_back(of_folder[static_cast<size_t>(file.folder)]);
  set_classes(source, classes);
  return source;
}

}  // namespace saccade::data
