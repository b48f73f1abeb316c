#pragma once

/// @file
/// --method, and the flags of the method that it names.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/ssl/methods/methods.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "flag_checks.h"
#include "run_settings.h"

namespace saccade::program {

/// The method that the arguments name, or else the settings they are to be completed with, or else the first there is.
/// Throws CLI::ValidationError when there is no such method, Error when a run that goes on was started with another.
inline ssl::Method choose_method(const std::vector<std::string>& arguments) {
  const std::string given = argument_of(arguments, "--method"), run = argument_of(arguments, "--run"),
                    config = argument_of(arguments, "--config");
  std::string name = given.empty() ? ssl::methods().front().name : given;
  std::error_code none;
  if (std::filesystem::exists(config, none)) {
    std::map<std::string, std::string> settings;
    try {
      settings = settings_of_file(config);
    } catch (const Error&) {  // said when it is read for good
    }
    const std::string before =
        settings.contains("method") ? settings.at("method") : ssl::methods().front().name;  // earlier versions had one
    if (!given.empty() && given != before && !run.empty() && config == (std::filesystem::path(run) / "config.toml"))
      throw Error(
          fmt::format("{} was started with other settings: method (was {}, now {}). Go on with the old ones, take "
                      "another folder, or start over with --fresh.",
                      run, before, given));
    if (given.empty()) name = before;
  }
  try {
    return ssl::method(name);
  } catch (const Error& error) {
    throw CLI::ValidationError("--method", error.what());
  }
}

/// --method itself, whose value is known already.
inline void add_method_flag(CLI::App& app, ssl::Method& method, const char* group) {
  std::vector<std::string> names;
  std::string help = "What teaches:";
  for (const ssl::Method& each : ssl::methods()) {
    help += fmt::format("{} {}, {}", names.empty() ? "" : ";", each.name, each.about);
    names.push_back(each.name);
  }
  app.add_option("--method", method.name, help)->group(group)->check(CLI::IsMember(names))->capture_default_str();
}

/// The flag of a setting.
inline void add_setting(CLI::App& app, const ssl::Setting& setting, const char* group) {
  std::visit(
      [&](auto* place) {
        CLI::Option* option =
            app.add_option("--" + setting.name, *place, setting.help)->group(group)->capture_default_str();
        if (!setting.otherwise.text.empty()) option->default_str(setting.otherwise.text);
        if (setting.range) option->check(number(setting.range->holds, setting.range->expected));
      },
      setting.value);
}

/// Gives settings that nobody set what the run leads to; the configuration then shows that.
inline void settle(CLI::App& app, const ssl::Method& method, const ssl::RunFacts& facts) {
  const auto flag = [&](const ssl::Setting& s) { return app.get_option_no_throw("--" + s.name); };
  method.settle(facts, [&](const ssl::Setting& s) { return flag(s) != nullptr && flag(s)->count() > 0; });
  for (const ssl::Setting& s : method.settings)
    if (s.otherwise.find && flag(s) != nullptr && flag(s)->count() == 0) flag(s)->default_str(s.text());
}

/// Throws Error, naming the flag, if a setting does not go with the run.
inline void check_settings(const ssl::Method& method, const ssl::RunFacts& facts) {
  if (!method.misfit) return;
  const auto misfit = method.misfit(facts);
  if (!misfit) return;
  const auto setting = std::ranges::find(method.settings, misfit->setting, &ssl::Setting::name);
  throw Error(fmt::format("--{} {}: expected {}", misfit->setting, setting->text(), misfit->expected));
}

/// Whose setting that is, if it is none of this method; empty if it is nobody's.
inline std::string owner_of(const std::string& setting, const ssl::Method& method) {
  std::vector<std::string> owners;
  for (const ssl::Method& each : ssl::methods())
    if (std::ranges::find(each.settings, setting, &ssl::Setting::name) != each.settings.end())
      owners.push_back(each.name);
  if (owners.empty() || std::ranges::find(owners, method.name) != owners.end()) return "";
  return fmt::format("is a setting of {}, and the method is {}", fmt::join(owners, " and "), method.name);
}

/// Says of flags and settings in files that are another method's whose they are, instead of that nobody knows them.
/// To be called once all flags are there.
/// @param parts  see ConfigFile
inline void refuse_settings_of_others(CLI::App& app, const ssl::Method& method,
                                      const std::vector<std::string>& arguments, bool parts = false) {
  app.config_formatter(std::make_shared<ConfigFile>(
      app, [method](const std::string& key) { return owner_of(key, method); }, parts));
  for (const std::string& argument : arguments) {
    const std::string flag = argument.substr(0, argument.find('='));
    if (!flag.starts_with("--") || app.get_option_no_throw(flag) != nullptr) continue;
    if (const std::string words = owner_of(flag.substr(2), method); !words.empty())
      throw CLI::ValidationError(flag + " " + words);
  }
}

}  // namespace saccade::program
