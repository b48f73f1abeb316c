#pragma once

/// @file
/// The settings of a training run: found, stored in its folder, and the same when it goes on.

#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/ssl/report/run_folder.h>
#include <saccade/ssl/train/setting_names.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "program.h"

namespace saccade::program {

/// Gives a flag that nobody set the value found for it; the configuration then shows that.
template <class T>
void settle(CLI::App& app, const std::string& flag, T& value, T found) {
  CLI::Option* option = app.get_option(flag);
  if (option->count() > 0) return;
  value = found;
  option->default_str(fmt::format("{}", found));
}

/// Gives a flag another value than it was given; the configuration then shows that.
inline void change(CLI::App& app, const std::string& flag, std::string& value, const std::string& to) {
  CLI::Option* option = app.get_option(flag);
  option->clear();
  option->add_result(to);
  value = to;
}

/// The flags of a program, for advice; what it has no flag for has no name.
inline ssl::SettingNames flag_names(const CLI::App& app) {
  const auto flag = [&](const char* name) { return app.get_option_no_throw(name) == nullptr ? "" : name; };
  ssl::SettingNames names{.lr = flag("--lr"),
                          .epochs = flag("--epochs"),
                          .batch = flag("--batch"),
                          .accumulate = flag("--accumulate"),
                          .precision = flag("--precision"),
                          .crops = flag("--crops"),
                          .jitter = flag("--jitter")};
  names.of_method.emplace();
  for (const CLI::Option* option : app.get_options())
    names.of_method->emplace(option->get_single_name(), "--" + option->get_single_name());
  return names;
}

/// What an argument list says of a flag ("--run photos" or "--run=photos"), empty if nothing.
inline std::string argument_of(const std::vector<std::string>& arguments, const std::string& flag) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == flag && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with(flag + "=")) return arguments[i].substr(flag.size() + 1);
  }
  return "";
}

/// Completes the arguments of a run that goes on with the settings it was started with, unless they name others.
inline void take_stored_settings(std::vector<std::string>& arguments) {
  const std::filesystem::path run = argument_of(arguments, "--run");
  const bool fresh = std::find(arguments.begin(), arguments.end(), "--fresh") != arguments.end();
  if (!run.empty() && !fresh && argument_of(arguments, "--config").empty() && ssl::RunFolder::holds_checkpoint(run) &&
      std::filesystem::exists(run / "config.toml"))
    arguments.insert(arguments.end(), {"--config", (run / "config.toml").string()});
}

/// Throws Error, naming them, if the run was configured with other values than the program has now. Those that do not
/// change what is learned may differ.
inline void check_same_settings(const CLI::App& app, const std::filesystem::path& stored_path,
                                const std::set<std::string>& may_differ) {
  const auto stored = settings_of_file(stored_path);
  auto now = settings_of(app);
  for (const auto& [key, value] : stored) now.try_emplace(key, "");
  std::string differences;
  for (const auto& [key, value] : now) {
    const auto at = stored.find(key);
    const std::string before = at == stored.end() ? "" : at->second;
    // A flag that an earlier version did not have is as it was then: at its default.
    const CLI::Option* option = app.get_option("--" + key);
    if (at == stored.end() && (option->count() == 0 || same_setting(option->get_default_str(), value))) continue;
    if (may_differ.contains(key) || same_setting(before, value)) continue;
    differences += fmt::format("{}{} (was {}, now {})", differences.empty() ? "" : ", ", key,
                               before.empty() ? "not set" : before, value.empty() ? "not set" : value);
  }
  if (!differences.empty())
    throw Error(
        fmt::format("{} was started with other settings: {}. Go on with the old ones, take another folder, or "
                    "start over with --fresh.",
                    stored_path.parent_path().string(), differences));
}

/// Throws Error, before anything is done, when a run may not be written to a folder.
/// @param data  where its images lie
inline void check_run_folder(const std::string& run, const std::string& data) {
  std::error_code none;
  if (std::filesystem::equivalent(run, data, none))
    throw Error(fmt::format("--run and --data are the same folder, {}: a run's files need one of their own", run));
  ssl::RunFolder::check(run);
}

/// Makes a run's folder ready: emptied if the run starts over, else with the settings that it has; they are stored.
inline void prepare(const CLI::App& app, ssl::RunFolder& folder, bool fresh, const std::set<std::string>& may_differ) {
  if (fresh) folder.clear();
  if (ssl::RunFolder::holds_checkpoint(folder.path()))
    check_same_settings(app, folder.config(), may_differ);
  else if (std::filesystem::exists(folder.trunk()))
    throw Error(fmt::format(
        "{} holds a trained network without the checkpoints of its training, which would begin anew and replace it: "
        "take another folder, or start over with --fresh.",
        folder.path().string()));
  io::write_file_atomically(folder.config(), app.config_to_str(true, true));
}

/// An argument as a shell takes it.
inline std::string shell_quoted(const std::string& argument) {
  if (!argument.empty() && argument.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                                      "_-./=:,@+%") == std::string::npos)
    return argument;
  std::string quoted = "'";
  for (const char c : argument) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

}  // namespace saccade::program
