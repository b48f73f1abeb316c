#pragma once

/// @file
/// The images that a run was started with, and those that it finds when it goes on.

#include <fmt/format.h>
#include <saccade/data/printable.h>
#include <saccade/ssl/report/run_folder.h>
#include <saccade/vision/run_images.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "run_settings.h"

namespace saccade::program {

/// The flag that says what to do when they differ.
struct RunData {
  std::string if_changed = "refuse";

  void flags(CLI::App& app) {
    app.add_option("--data-changed", if_changed,
                   "A run that goes on and finds other images than before: refuse, or accept (the result is then not "
                   "that of an unbroken run)")
        ->check(CLI::IsMember({"refuse", "accept"}))
        ->configurable(false)
        ->capture_default_str()
        ->group("Run");
  }

  /// See vision::compare_images(). An earlier version wrote down only where images lie, among the settings.
  vision::RunImages compare(const std::filesystem::path& run, bool fresh, const data::Source& source,
                            const std::string& path) const {
    std::string before;
    if (!fresh && ssl::RunFolder::holds_checkpoint(run) && !std::filesystem::exists(run / "data.tsv")) {
      const auto settings = settings_of_file(run / "config.toml");
      before = settings.contains("data") ? settings.at("data") : "";
    }
    return vision::compare_images(run, source, path,
                                  {.fresh = fresh,
                                   .accept_changed = if_changed == "accept",
                                   .how_to_accept = "--data-changed accept",
                                   .path_before = before});
  }
};

/// Throws Error when the images of a run that goes on are not where they were.
inline void check_data_is_there(const CLI::App& app, const std::string& run, const std::string& path) {
  std::error_code none;
  if (!std::filesystem::exists(path, none) && ssl::RunFolder::holds_checkpoint(run))
    throw Error(fmt::format("{}: there is no such folder or file; if it has moved: {} --run {} --data WHERE",
                            data::printable(path), app.get_name(), shell_quoted(run)));
}

}  // namespace saccade::program
