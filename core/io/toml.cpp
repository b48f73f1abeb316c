#include <fmt/format.h>
#include <saccade/core/io/toml.h>
#include <saccade/core/utf8.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <charconv>
#include <system_error>

#define TOML_ENABLE_FORMATTERS 0
#include <toml++/toml.h>

namespace saccade::io {
namespace {

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (c == '\n')
      out += "\\n";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    else
      out += c;
  }
  return out + "\"";
}

std::string percent_encoded(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const size_t length = utf8_length(bytes);
    if (length == 0 || bytes[0] == '%')
      out += fmt::format("%{:02x}", static_cast<unsigned char>(bytes[0]));
    else
      out += bytes.substr(0, length);
    bytes.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

/// False where a percent sign is not followed by two digits.
bool percent_decode(std::string_view text, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    unsigned value = 0;
    const char *from = text.data() + i + 1, *to = text.data() + std::min(i + 3, text.size());
    const auto [end, error] = std::from_chars(from, to, value, 16);
    if (error != std::errc() || end != from + 2) return false;
    out += static_cast<char>(value);
    i += 2;
  }
  return true;
}

/// Whether TOML takes the text bare, and what it makes of it is written in the same way.
bool is_bare(std::string_view text) {
  if (text == "true" || text == "false") return true;
  const char* end = text.data() + text.size();
  int64_t integer = 0;
  if (const auto [at, error] = std::from_chars(text.data(), end, integer); error == std::errc() && at == end)
    return fmt::format("{}", integer) == text;
  double number = 0;
  const auto [at, error] = std::from_chars(text.data(), end, number);
  return error == std::errc() && at == end && std::isfinite(number) && fmt::format("{}", number) == text;
}

class Document {
 public:
  explicit Document(const std::string& name) : name_(name) {}

  std::vector<TomlSetting> settings(const toml::table& table) const {
    std::vector<TomlSetting> out;
    for (const auto& [key, node] : table) {
      TomlSetting setting{.key = std::string(key.str()), .values = {}, .line = line_of(node)};
      if (const toml::array* array = node.as_array())
        for (const toml::node& element : *array) setting.values.push_back(value(setting.key, element));
      else
        setting.values.push_back(value(setting.key, node));
      out.push_back(std::move(setting));
    }
    std::ranges::stable_sort(out, {}, &TomlSetting::line);
    return out;
  }

  [[noreturn]] void refuse(int64_t line, std::string_view why) const {
    throw Error(fmt::format("{}, line {}: {}", name_, line, why));
  }

 private:
  static int64_t line_of(const toml::node& node) { return static_cast<int64_t>(node.source().begin.line); }

  std::string value(const std::string& key, const toml::node& node) const {
    if (const auto* text = node.as_string()) return text->get();
    if (const auto* integer = node.as_integer()) return fmt::format("{}", integer->get());
    if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
    if (const auto* truth = node.as_boolean()) return truth->get() ? "true" : "false";
    if (const toml::table* table = node.as_table(); table != nullptr && table->size() == 1)
      if (const auto* bytes = (*table)["bytes"].as_string()) {
        std::string out;
        if (percent_decode(bytes->get(), out)) return out;
      }
    refuse(line_of(node), fmt::format("{} is neither a string, a number, true or false, nor a list of such", key));
  }

  const std::string& name_;
};

}  // namespace

std::vector<TomlSetting> parse_toml(std::string_view text, const std::string& name) {
  const Document document(name);
  try {
    return document.settings(toml::parse(text));
  } catch (const toml::parse_error& error) {
    document.refuse(static_cast<int64_t>(error.source().begin.line), error.description());
  }
}

std::string toml_value(std::string_view text) {
  if (is_bare(text)) return std::string(text);
  if (is_utf8(text)) return quoted(text);
  return fmt::format("{{bytes = {}}}", quoted(percent_encoded(text)));
}

std::string toml_array(std::span<const std::string> texts) {
  std::string out;
  for (const std::string& text : texts) out += (out.empty() ? "" : ", ") + toml_value(text);
  return "[" + out + "]";
}

}  // namespace saccade::io
