#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/data/decode.h>
#include <saccade/data/file_kind.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <unordered_set>

namespace saccade::data {
namespace {

using What = FileKind::What;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return out;
}

/// ".jpg" of "a.b.JPG"; empty if what follows the last dot could be anything.
std::string extension_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot == 0 || dot + 1 == name.size() || name.size() - dot > 16) return "";
  std::string extension = lower(name.substr(dot));
  const bool plain = std::all_of(extension.begin() + 1, extension.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  });
  return plain ? extension : "";
}

bool is_of_images(const std::string& extension) {
  static const std::unordered_set<std::string> kImages{".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".ppm", ".pgm", ".pbm",
                                                       ".pnm", ".bmp",  ".dib", ".webp", ".gif", ".tif", ".tiff"};
  return kImages.contains(extension);
}

/// What cameras call their raw files, many of which are a TIFF whose first image is a small copy.
bool is_of_cameras(const std::string& extension) {
  static const std::unordered_set<std::string> kCameras{".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff",
                                                        ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".pef",
                                                        ".raw", ".rwl", ".sr2", ".srf", ".srw"};
  return kCameras.contains(extension);
}

bool is_of_others(const std::string& extension) {
  static const std::unordered_set<std::string> kOthers{
      ".txt", ".md",  ".csv",  ".tsv",  ".json", ".jsonl", ".xml", ".yaml",  ".yml",   ".html", ".htm",  ".pdf",
      ".doc", ".log", ".ini",  ".toml", ".xmp",  ".aae",   ".py",  ".sh",    ".ipynb", ".mat",  ".docx", ".xlsx",
      ".mov", ".mp4", ".m4v",  ".avi",  ".mkv",  ".webm",  ".3gp", ".mpg",   ".mpeg",  ".wav",  ".mp3",  ".m4a",
      ".zip", ".tar", ".tgz",  ".bz2",  ".xz",   ".zst",   ".rar", ".7z",    ".npy",   ".npz",  ".pkl",  ".pt",
      ".pth", ".h5",  ".hdf5", ".onnx", ".mdb",  ".lmdb",  ".db",  ".sqlite"};
  return kOthers.contains(extension);
}

/// Two zero bytes, a type, the number of extents, the first of them not zero.
bool is_idx(std::string_view bytes) {
  if (bytes.size() < 8 || bytes[0] != 0 || bytes[1] != 0) return false;
  const auto type = static_cast<uint8_t>(bytes[2]), extents = static_cast<uint8_t>(bytes[3]);
  const bool known = type == 0x08 || type == 0x09 || (type >= 0x0b && type <= 0x0e);
  return known && extents >= 1 && extents <= 4 && std::memcmp(bytes.data() + 4, "\0\0\0\0", 4) != 0;
}

FileKind kind_of_start(std::string_view start) {
  const Format format = detect_format({reinterpret_cast<const uint8_t*>(start.data()), start.size()});
  switch (format) {
    case Format::unknown:
      return is_idx(start) ? FileKind{What::idx, "IDX"} : FileKind{};
    case Format::icon:
    case Format::pdf:
    case Format::video:
    case Format::html:
    case Format::lfs_pointer:
    case Format::apple_double:
    case Format::archive:
    case Format::numpy:
    case Format::hdf5:
      return {};
    default:
      return {decodable(format) ? What::image : What::undecodable, std::string(name_of(format))};
  }
}

}  // namespace

bool is_system_name(std::string_view name) {
  static const std::unordered_set<std::string> kNames{
      "__macosx",    "__pycache__",       "@eadir",      "@recycle",   "@recently-snapshot",        "#recycle",
      "#snapshot",   "$recycle.bin",      "recycler",    "lost+found", "system volume information", "thumbs.db",
      "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"};
  return kNames.contains(lower(name));
}

FileKind kind_of_content(int folder, const std::string& path) {
  const int fd = ::openat(folder, path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return {What::other, errno == EACCES ? "that may not be read" : "that cannot be opened"};
  std::array<char, kFormatBytes> bytes{};
  ssize_t got = 0;
  do got = ::read(fd, bytes.data(), bytes.size());
  while (got < 0 && errno == EINTR);
  if (got > 2 && bytes[0] == '\x1f' && bytes[1] == '\x8b' && ::lseek(fd, 0, SEEK_SET) == 0) {
    const gzFile file = gzdopen(fd, "rb");
    if (file == nullptr) return ::close(fd), FileKind{};
    gzbuffer(file, 512);
    const int within = gzread(file, bytes.data(), static_cast<unsigned>(bytes.size()));
    gzclose(file);
    const bool holds_idx = is_idx({bytes.data(), static_cast<size_t>(std::max(within, 0))});
    return holds_idx ? FileKind{What::idx, "IDX"} : FileKind{};
  }
  ::close(fd);
  if (got < 0) return {What::other, "that cannot be read"};
  if (got == 0) return {What::other, "empty"};
  return kind_of_start({bytes.data(), static_cast<size_t>(got)});
}

FileKind kind_of_file(int folder, const std::string& name) {
  std::string extension = extension_of(name);
  if (is_of_images(extension)) return {What::image, std::move(extension)};
  if (is_of_others(extension)) return {What::other, std::move(extension)};
  FileKind kind = kind_of_content(folder, name);
  if (is_of_cameras(extension) && kind.words == name_of(Format::tiff))
    kind = {What::undecodable, std::string(name_of(Format::camera_raw))};
  if (kind.what != What::other) {
    if (!extension.empty()) kind.words = fmt::format("{} ({})", extension, kind.words);
  } else if (kind.words.empty()) {
    kind.words = extension.empty() ? "without an extension" : extension;
  }
  return kind;
}

}  // namespace saccade::data
