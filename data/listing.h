#pragma once

#include <saccade/data/census.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::data {

/// The files of a folder and all folders below it, told apart into images and the rest, without decoding any.
///
/// A file is an image by its content: one whose extension is neither that of images nor of what people keep beside
/// them (.txt, .mov, .zip, ...) is opened and judged by its first bytes. Hidden files and folders are passed over, and
/// what systems leave (`__MACOSX`, `@eaDir`, `Thumbs.db`, ...). Links are followed, but never in a circle; a file that
/// several lead to is listed for each of them, until drop_repeats().
struct Listing {
  struct File {
    int32_t folder;     ///< index into `folders`
    int32_t kind;       ///< index into `kinds`
    bool linked;        ///< a link leads to it, or to a folder around it
    uint64_t dev, ino;  ///< which file it is on this machine
    std::string name;
  };
  std::string root;                  ///< as it was given, without a slash at its end
  std::vector<std::string> folders;  ///< paths below the root ("" is the root): by first name, then by path
  std::vector<File> images;          ///< in order of folder, then name, by code point
  std::vector<File> idx_files;       ///< files that start as IDX files do, plain or gzipped; likewise
  std::vector<std::string> kinds;    ///< ".jpg", or "JPEG" where the name says nothing
  Census passed_over;                ///< what is no image, or not to be seen
  Census undecodable;                ///< images of formats that are not read: TIFF, HEIC, ...
  std::vector<std::pair<std::string, std::string>> closed;  ///< folders that cannot be listed, and why

  std::string path_of(const File& file) const;
};

/// Lists what is below `root`. 200,000 files take a fraction of a second when the system has their names in memory.
/// Throws saccade::Error when the root is missing, is no folder or cannot be listed.
Listing list_tree(const std::string& root);

/// Leaves each file once: of several links to it the first, or none if the file itself is there too. Returns how many
/// were dropped.
int64_t drop_repeats(const Listing& listing, std::vector<Listing::File>& files);

/// What a listing did not take, and why: "passed over: 12 .mov, 3 .txt; ...". Empty if it took everything.
std::string words_of_rest(const Listing& listing);

}  // namespace saccade::data
