#pragma once

#include <saccade/data/source.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// What a run learns from, so that one that goes on can tell whether it still is the same: the names and sizes of all
/// files, in the order of the samples. Their content is not looked at.
struct Fingerprint {
  std::string path;          ///< of the source, absolute
  int64_t images = 0;        ///< samples
  bool was_changed = false;  ///< the run has learned from other files before, which somebody agreed to
  std::vector<StoredFile> files;

  /// XXH3-128 of names and sizes, in hexadecimal digits.
  std::string hash() const;
};

/// Looks at the size of each file: 200,000 take 0.4 s of the processor.
/// @param path  that the source was opened with
Fingerprint fingerprint(const Source& source, const std::string& path);

/// A path from the root, without `.`, `..` and a slash at its end, however it was spelled. Links in it stay.
std::string absolute_path(const std::string& path);

/// As a text that begins with `start`: a line for each file, of its size and name. And back; throws saccade::Error,
/// with the file's name, for what is none, or was changed.
std::string to_text(const Fingerprint& fingerprint, std::string_view start);
Fingerprint parse_fingerprint(std::string_view text, const std::string& name);

/// How files differ from those before.
struct Changes {
  std::vector<std::string> added, removed, replaced;  ///< names, in code point order; replaced: of another size
  bool reordered = false;                             ///< the same files, in another order
  bool any() const { return reordered || !added.empty() || !removed.empty() || !replaced.empty(); }
  /// "2 added (a.jpg, b.jpg), 1 replaced (c.jpg)".
  std::string words() const;
};
Changes changes(const Fingerprint& before, const Fingerprint& now);

}  // namespace saccade::data
