#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace saccade::data {

/// What a file is, as far as its name and its first bytes tell.
struct FileKind {
  enum class What : uint8_t {
    image,        ///< of a format that decode() reads
    idx,          ///< an IDX file, plain or gzipped
    undecodable,  ///< an image of another format
    other,
  } what = What::other;
  /// ".jpg"; ".bin (JPEG)" where the extension is not that of an image, "JPEG" where there is none; of `other` files
  /// the extension, or why nothing is known: "empty", "without an extension"
  std::string words;
};

/// Whether a name is one that systems and programs leave beside people's files and do not show: `__MACOSX`, `@eaDir`,
/// `Thumbs.db`, `lost+found`, ... in any case. (Names that begin with a dot are hidden in any case.)
bool is_system_name(std::string_view name);

/// By the extension where that is one of images or of what people keep beside them (.txt, .mov, .zip, ...); any other
/// file is opened and told by its first bytes.
/// @param folder  descriptor of the folder it lies in
FileKind kind_of_file(int folder, const std::string& name);

/// By the first bytes alone.
/// @param folder  descriptor of the folder that a relative path counts from, or AT_FDCWD
FileKind kind_of_content(int folder, const std::string& path);

}  // namespace saccade::data
