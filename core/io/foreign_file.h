#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/core/io/zip_archive.h>

#include <filesystem>
#include <string>
#include <vector>

/// @file
/// Files that people take for weights, or that hold weights in a way that is not read.

namespace saccade::io {

/// "a git-lfs pointer, not the file itself: fetch it with git lfs pull": what the first bytes are those of, and how to
/// turn it into what is taken. Empty when they are those of no format known here.
std::string foreign_file(const ByteSource& source, const std::filesystem::path& path);

/// The same of a zip archive with these entries; empty when it may be PyTorch's.
std::string foreign_archive(const std::vector<ZipEntry>& entries, const std::filesystem::path& path);

/// The same of a folder in which no weights were found; empty as well.
std::string foreign_folder(const std::filesystem::path& path);

}  // namespace saccade::io
