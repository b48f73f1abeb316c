#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::io {

/// One `key = value` of a settings file. Numbers, true and false are given as text.
struct TomlSetting {
  std::string key;
  std::vector<std::string> values;  ///< one, or those of an array
  int64_t line = 0;                 ///< in the file, from 1
};

/// The settings of a TOML document that is flat: strings, numbers, booleans and arrays of these. Strings that are no
/// UTF-8, which TOML cannot hold, are read as toml_value() writes them. In order of their lines.
/// @param name  of the file, for messages
/// Throws saccade::Error, with name and line, for what is no TOML and for what is not flat.
std::vector<TomlSetting> parse_toml(std::string_view text, const std::string& name);

/// A text as a TOML value from which parse_toml() makes the same bytes: bare where it is an integer, a number in its
/// shortest form, true or false; else a string. Bytes that are no UTF-8 make it `{bytes = "..."}`, with %NN for these
/// and for the percent sign.
std::string toml_value(std::string_view text);
/// Texts as a TOML array.
std::string toml_array(std::span<const std::string> texts);

}  // namespace saccade::io
