#include <fmt/format.h>
#include <saccade/data/files.h>
#include <saccade/data/idx_files.h>
#include <saccade/data/labelled.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <span>

namespace saccade::data {
namespace {

namespace fs = std::filesystem;

/// Whether it is a folder; throws if it is nothing.
bool is_folder(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    throw Error(fmt::format("{}: there is no such folder or file", printable(path)));
  if (status.type() == fs::file_type::none)
    throw Error(fmt::format("{}: cannot be looked at: {}", printable(path), error.message()));
  return fs::is_directory(status);
}

/// The IDX files of a listing, if they are what its folder is about; the images beside them are then passed over.
std::vector<IdxHalf> idx_halves(Listing& listing) {
  std::vector<std::string> paths;
  for (const Listing::File& file : listing.idx_files) paths.push_back(listing.path_of(file));
  std::vector<IdxHalf> halves = pair_idx_files(paths, std::ssize(listing.images));
  if (!halves.empty()) {
    for (const Listing::File& file : listing.images)
      listing.passed_over.add(listing.kinds[static_cast<size_t>(file.kind)]);
  } else if (listing.images.empty() && !paths.empty()) {
    idx(paths.front());  // says what is wrong with it
  }
  return halves;
}

/// What a file that a person gave is opened as.
enum class OpenAs : uint8_t { idx, table };

OpenAs kind_of(const std::string& path) {
  std::array<uint8_t, kFormatBytes> start{};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(fmt::format("{}: cannot be opened", printable(path)));
  file.read(reinterpret_cast<char*>(start.data()), std::ssize(start));
  const auto got = static_cast<size_t>(file.gcount());
  if (got == 0) throw Error(fmt::format("{}: is empty", printable(path)));
  const Format format = detect_format(std::span(start).first(got));
  if (decodable(format)) throw Error(fmt::format("{}: is a single image: give the folder it lies in", printable(path)));
  // A compressed file may be an IDX file; if it is not, idx() says so.
  if ((start[0] == 0x1f && start[1] == 0x8b) || (start[0] == 0 && start[1] == 0)) return OpenAs::idx;
  if (format != Format::unknown) throw Error(fmt::format("{}: is {}", printable(path), advice_on(format)));
  return OpenAs::table;
}

}  // namespace

Source open_images(const std::string& path, const OpenOptions& options) {
  if (is_folder(path)) {
    Listing listing = list_tree(path);
    if (const auto halves = idx_halves(listing); !halves.empty()) {
      Source source = open_idx(path, halves, options);
      if (const std::string rest = words_of_rest(listing); !rest.empty()) source.summary += "; " + rest;
      return source;
    }
    return folder_images(std::move(listing), options);
  }
  return kind_of(path) == OpenAs::idx ? open_idx(with_labels_beside(path), options) : table_images(path, options);
}

LabelledSet labelled_set(const std::string& path, const OpenOptions& options) {
  if (is_folder(path)) {
    Listing listing = list_tree(path);
    if (const auto halves = idx_halves(listing); !halves.empty()) {
      LabelledSet set = labelled_idx(path, halves, options);
      if (const std::string rest = words_of_rest(listing); !rest.empty())
        set.rest += (set.rest.empty() ? "" : "; ") + rest;
      return set;
    }
    return labelled_folder(std::move(listing), options);
  }
  return kind_of(path) == OpenAs::idx ? labelled_idx(path, {with_labels_beside(path)}, options)
                                      : labelled_table(path, options);
}

}  // namespace saccade::data
