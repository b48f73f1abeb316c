#pragma once

/// @file
/// Files that a program writes in the end, looked at before its work.

#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <initializer_list>
#include <string>

namespace saccade::program {

/// Throws Error when a file cannot be written, is one of the inputs, or exists and is not to be replaced.
/// @param flag  that asks for it, for messages
inline void check_output(const std::string& flag, const std::filesystem::path& path, bool overwrite,
                         std::initializer_list<std::filesystem::path> inputs = {}) {
  namespace fs = std::filesystem;
  std::error_code none;
  const std::string name = path.string();
  if (path.filename().empty() || fs::is_directory(path, none))
    throw Error(fmt::format("{} {}: is a folder; give the name of a file", flag, name));
  for (const fs::path& input : inputs)
    if (fs::equivalent(path, input, none)) throw Error(fmt::format("{} {}: is what is read", flag, name));
  const bool exists = fs::exists(fs::symlink_status(path, none));
  if (exists && !overwrite) throw Error(fmt::format("{} {}: exists already; --overwrite replaces it", flag, name));
  if (exists && !fs::is_regular_file(path, none))
    throw Error(fmt::format("{} {}: is no regular file, and is not replaced", flag, name));
  const io::AtomicFile trial(path);  // is removed again
}

}  // namespace saccade::program
