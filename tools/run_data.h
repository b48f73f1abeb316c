#pragma once

/// @file
/// The images that a run was started with, and those that it finds when it goes on.

#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/input_file.h>
#include <saccade/data/fingerprint.h>
#include <saccade/data/printable.h>
#include <saccade/ssl/report/run_folder.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "run_settings.h"

namespace saccade::program {

struct RunData {
  std::string if_changed = "refuse";
  data::Fingerprint now;
  bool has_changed = false;  ///< since the last sitting, which was accepted
  std::string notice;        ///< what there is to say of it; may be empty

  void flags(CLI::App& app) {
    app.add_option("--data-changed", if_changed,
                   "A run that goes on and finds other images than before: refuse, or accept (the result is then not "
                   "that of an unbroken run)")
        ->check(CLI::IsMember({"refuse", "accept"}))
        ->configurable(false)
        ->capture_default_str()
        ->group("Run");
  }

  /// Throws Error, with what has changed, unless the images are those that the run was started with, or that is
  /// accepted.
  /// @param run   its folder; nothing is compared where no run stands that can go on, or it is to start over (fresh)
  /// @param path  that the source was opened with
  void compare(const std::filesystem::path& run, bool fresh, const data::Source& source, const std::string& path);
  /// Writes down which they are.
  void store(const ssl::RunFolder& folder) const {
    io::write_file_atomically(folder.data(), data::to_text(now, ssl::RunFolder::kDataStart));
  }
};

/// Throws Error when the images of a run that goes on are not where they were.
inline void check_data_is_there(const CLI::App& app, const std::string& run, const std::string& path) {
  std::error_code none;
  if (!std::filesystem::exists(path, none) && ssl::RunFolder::holds_checkpoint(run))
    throw Error(fmt::format("{}: there is no such folder or file; if it has moved: {} --run {} --data WHERE",
                            data::printable(path), app.get_name(), shell_quoted(run)));
}

inline void RunData::compare(const std::filesystem::path& run, bool fresh, const data::Source& source,
                             const std::string& path) {
  now = data::fingerprint(source, path);
  if (fresh || !ssl::RunFolder::holds_checkpoint(run)) return;
  const std::filesystem::path list = run / "data.tsv";
  std::string change, before;
  if (std::filesystem::exists(list)) {
    const io::InputFile file(list);
    std::string text(file.size(), '\0');
    file.read(0, text.data(), text.size());
    const data::Fingerprint was = data::parse_fingerprint(text, list.string());
    now.was_changed = was.was_changed;
    before = was.path;
    const data::Changes found = data::changes(was, now);
    if (found.any() || was.images != now.images)
      change = fmt::format("{} images then, {} now{}", was.images, now.images, found.any() ? ": " + found.words() : "");
  } else {  // an earlier version knew only where they lie
    std::error_code none;
    const auto settings = settings_of_file(run / "config.toml");
    before = settings.contains("data") ? settings.at("data") : "";
    if (std::filesystem::equivalent(before, path, none))
      before = now.path;
    else
      change = "which lay elsewhere, and were not written down";
  }
  if (!change.empty() && if_changed != "accept")
    throw Error(fmt::format(
        "the images of {} are not those that {} was started with{} ({}). Take those, start another "
        "run in another folder, or go on with --data-changed accept: the result is then not that "
        "of an unbroken run.",
        data::printable(path), run.string(), before == now.path ? "" : ", in " + data::printable(before), change));
  if (!change.empty()) {
    now.was_changed = has_changed = true;
    notice = fmt::format(
        "The images have changed ({}), which was accepted: from here on the bits are no longer those "
        "of an unbroken run.",
        change);
  } else if (before != now.path) {
    notice = fmt::format("The images have moved from {} to {} and are the same by name and size.",
                         data::printable(before), data::printable(now.path));
  }
}

}  // namespace saccade::program
