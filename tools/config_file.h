#pragma once

/// @file
/// Settings in files: read for --config, written into a run's folder, and compared when a run goes on.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/io/toml.h>
#include <saccade/kernels/error.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <istream>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::program {

/// How files written before settings were TOML begin.
inline bool is_old_config(std::string_view text) {
  return text.starts_with("# Learns features from a folder of images without labels (SwAV).\n") ||
         text.starts_with("# SwAV pre-training on Fashion-MNIST, and what the features are worth\n");
}

/// Their settings: a line each, texts in either kind of quotes with nothing escaped.
inline std::vector<io::TomlSetting> parse_old_config(std::string_view text) {
  const auto unquoted = [](std::string_view value) {
    const bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value.ends_with(value[0]);
    return std::string(quoted ? value.substr(1, value.size() - 2) : value);
  };
  std::vector<io::TomlSetting> settings;
  int64_t number = 0;
  for (const std::string& line : CLI::detail::split(std::string(text), '\n')) {
    ++number;
    const size_t equals = line.find('=');
    if (line.starts_with('#') || equals == std::string::npos) continue;
    io::TomlSetting setting{.key = line.substr(0, equals), .values = {}, .line = number};
    const std::string_view value = std::string_view(line).substr(equals + 1);
    if (value.starts_with('[') && value.ends_with(']'))
      for (const std::string& each : CLI::detail::split(std::string(value.substr(1, value.size() - 2)), ','))
        setting.values.push_back(unquoted(CLI::detail::trim_copy(each)));
    else
      setting.values.push_back(unquoted(value));
    settings.push_back(std::move(setting));
  }
  return settings;
}

/// The settings in a file. Throws Error, with its name and the line, for what is none.
inline std::vector<io::TomlSetting> parse_config(std::istream& file, const std::string& name) {
  constexpr size_t most = 1 << 20;
  std::string text(most + 1, '\0');
  file.read(text.data(), std::ssize(text));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > most) throw Error(fmt::format("{}: is too large to be a file of settings", name));
  return is_old_config(text) ? parse_old_config(text) : io::parse_toml(text, name);
}

/// What CLI11 reads and writes settings with.
class ConfigFile : public CLI::Config {
 public:
  /// @param whose  what to say of a key that is no flag of the program; empty: that it is unknown
  /// @param parts  such files are another program's, of whose settings this one has a part: the others are passed over
  explicit ConfigFile(const CLI::App& app, std::function<std::string(const std::string& key)> whose = {},
                      bool parts = false)
      : app_(app), whose_(std::move(whose)), parts_(parts) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& file) const override {
    const std::string name = app_.get_config_ptr()->as<std::string>();
    std::vector<CLI::ConfigItem> items;
    for (const io::TomlSetting& setting : parse_config(file, name)) {
      const CLI::Option* option = app_.get_option_no_throw("--" + setting.key);
      if (option == nullptr || !option->get_configurable()) {
        const std::string words = whose_ ? whose_(setting.key) : "";
        if (words.empty() && parts_) continue;
        throw CLI::ConfigError(words.empty()
                                   ? fmt::format("{}, line {}: unknown key, {}", name, setting.line, setting.key)
                                   : fmt::format("{}, line {}: {} {}", name, setting.line, setting.key, words));
      }
      items.emplace_back();
      items.back().name = setting.key;
      items.back().inputs = setting.values;
    }
    return items;
  }

  std::string to_config(const CLI::App* app, bool defaults_too, bool with_description, std::string) const override {
    std::string text;
    if (with_description) text = fmt::format("# Settings of {}, as TOML: --config reads them.\n", app->get_name());
    for (const CLI::Option* option : app->get_options()) {
      std::string value;
      if (option->get_configurable()) value = value_of(*option, defaults_too);
      if (value.empty()) continue;
      if (with_description) text += fmt::format("\n# {}: {}\n", option->get_group(), option->get_description());
      text += fmt::format("{} = {}\n", option->get_single_name(), value);
    }
    return text;
  }

 private:
  /// Empty where there is none.
  static std::string value_of(const CLI::Option& option, bool defaults_too) {
    std::vector<std::string> values = option.reduced_results();
    const bool one = option.get_expected_max() <= 1;
    if (values.empty() && defaults_too) {
      const std::string known = option.get_default_str();
      if (known.empty()) return option.get_expected_min() == 0 ? "false" : "";
      if (!one && known.starts_with('[') && known.ends_with(']'))
        values = CLI::detail::split(known.substr(1, known.size() - 2), ',');
      else
        values = {known};
    }
    if (values.empty()) return "";
    return one ? io::toml_value(values.front()) : io::toml_array(values);
  }

  const CLI::App& app_;
  std::function<std::string(const std::string& key)> whose_;
  bool parts_;
};

/// Settings by name, lists joined by commas.
inline std::map<std::string, std::string> by_name(const std::vector<io::TomlSetting>& settings) {
  std::map<std::string, std::string> all;
  for (const io::TomlSetting& setting : settings) all[setting.key] = fmt::format("{}", fmt::join(setting.values, ","));
  return all;
}
inline std::map<std::string, std::string> settings_of_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(fmt::format("{} cannot be read", path.string()));
  return by_name(parse_config(file, path.string()));
}
inline std::map<std::string, std::string> settings_of(const CLI::App& app) {
  return by_name(io::parse_toml(app.config_to_str(true), "the settings"));
}

/// Whether two settings say the same: 0.05 and 5e-2 do, and true and 1.
inline bool same_setting(const std::string& one, const std::string& other) {
  const auto number = [](const std::string& text) -> std::optional<double> {
    double value = 0;
    if (text == "true" || text == "false") return text == "true" ? 1 : 0;
    if (text.empty() || !CLI::detail::lexical_cast(text, value)) return std::nullopt;
    return value;
  };
  return one == other || (number(one).has_value() && number(one) == number(other));
}

}  // namespace saccade::program
