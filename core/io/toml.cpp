#include <fmt/format.h>
#include <saccade/core/io/toml.h>
#include <saccade/core/utf8.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <system_error>
#include <utility>

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

std::string utf8_of(uint32_t code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  const int more = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  const uint32_t mark = more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0;
  std::string out(1, static_cast<char>(mark | code_point >> (6 * more)));
  for (int i = more; i-- > 0;) out += static_cast<char>(0x80 | (code_point >> (6 * i) & 0x3f));
  return out;
}

bool is_digit(char c, int base = 10) {
  constexpr std::string_view digits = "0123456789abcdef";
  const size_t value = digits.find(c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c);
  return value < static_cast<size_t>(base);
}

/// Takes underscores out of a number. False where one does not stand between two digits.
bool without_underscores(std::string_view text, int base, std::string& out) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_')
      out += text[i];
    else if (i == 0 || i + 1 == text.size() || !is_digit(text[i - 1], base) || !is_digit(text[i + 1], base))
      return false;
  }
  return true;
}

/// Whether a decimal number without sign is written as TOML wants it: digits on both sides of a point, and no zero
/// before other digits.
bool is_decimal(std::string_view text, bool& is_real) {
  const auto digits = [&] {
    size_t count = 0;
    for (; !text.empty() && is_digit(text[0]); ++count) text.remove_prefix(1);
    return count;
  };
  const bool zero = text.starts_with('0');
  const size_t whole = digits();
  if (whole == 0 || (zero && whole > 1)) return false;
  is_real = !text.empty();
  if (text.starts_with('.')) {
    text.remove_prefix(1);
    if (digits() == 0) return false;
  }
  if (text.starts_with('e') || text.starts_with('E')) {
    text.remove_prefix(1);
    if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
    if (digits() == 0) return false;
  }
  return text.empty();
}

/// What a value without quotes is, as text. False where it is none.
bool bare_value(std::string_view text, std::string& out) {
  if (text == "true" || text == "false") {
    out = text;
    return true;
  }
  const bool has_sign = text.starts_with('+') || text.starts_with('-');
  std::string digits = text.starts_with('-') ? "-" : "";
  if (has_sign) text.remove_prefix(1);
  if (text == "inf" || text == "nan") {
    out = digits + std::string(text);
    return true;
  }
  int base = 10;
  if (!has_sign && text.starts_with("0x")) base = 16;
  if (!has_sign && text.starts_with("0o")) base = 8;
  if (!has_sign && text.starts_with("0b")) base = 2;
  if (base != 10) text.remove_prefix(2);
  const size_t sign = digits.size();
  if (!without_underscores(text, base, digits)) return false;
  bool is_real = false;
  if (base == 10 && !is_decimal(std::string_view(digits).substr(sign), is_real)) return false;
  if (base != 10 && !is_digit(digits.empty() ? '-' : digits[0], base)) return false;
  const char *from = digits.data(), *to = from + digits.size();
  int64_t integer = 0;
  double real = 0;
  const auto [end, error] = is_real ? std::from_chars(from, to, real) : std::from_chars(from, to, integer, base);
  if (error != std::errc() || end != to) return false;
  out = is_real ? fmt::format("{}", real) : fmt::format("{}", integer);
  return true;
}

/// Reads a document from its first byte to its last. Nothing that is taken nests, so nothing here calls itself.
class Reader {
 public:
  Reader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  std::vector<TomlSetting> settings() {
    check_characters();
    take("\xef\xbb\xbf");
    std::vector<TomlSetting> settings;
    std::set<std::string> keys;
    for (skip_lines(); !at_end(); skip_lines()) {
      if (peek() == '[') refuse("sections in brackets are not taken, settings are all of the form key = value");
      TomlSetting setting{.key = key(), .values = {}, .line = line_};
      if (!keys.insert(setting.key).second) refuse(fmt::format("{} is set twice", setting.key));
      skip_blanks();
      if (peek() == '.') refuse("a key in parts, with a dot between them, is none of the settings");
      if (!take('=')) refuse(fmt::format("there is no = after {}", setting.key));
      skip_blanks();
      if (take('['))
        setting.values = array(setting.key);
      else
        setting.values.push_back(value(setting.key));
      skip_blanks();
      skip_comment();
      if (!at_end() && !take_line_end()) refuse(fmt::format("there is more after the value of {}", setting.key));
      settings.push_back(std::move(setting));
    }
    return settings;
  }

 private:
  [[noreturn]] void refuse(std::string_view why) const {
    throw Error(fmt::format("{}, line {}: {}", name_, line_, why));
  }

  /// All is UTF-8, and its only control characters are tabs and ends of lines.
  void check_characters() {
    for (std::string_view rest = text_; !rest.empty();) {
      const size_t length = utf8_length(rest);
      if (length == 0) refuse("this is no UTF-8, which TOML is");
      const auto c = static_cast<unsigned char>(rest[0]);
      if ((c < 0x20 && c != '\t' && c != '\n' && !rest.starts_with("\r\n")) || c == 0x7f)
        refuse(fmt::format("there is the control character {:#04x}, which TOML does not allow", c));
      line_ += c == '\n';
      rest.remove_prefix(length);
    }
    line_ = 1;
  }

  bool at_end() const { return at_ == text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[at_]; }
  bool starts_with(std::string_view what) const { return text_.substr(at_).starts_with(what); }
  bool take(std::string_view what) {
    if (!starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  bool take(char c) { return take(std::string_view(&c, 1)); }
  bool take_line_end() {
    if (!take('\n') && !take("\r\n")) return false;
    ++line_;
    return true;
  }
  void skip_blanks() { at_ = std::min(text_.find_first_not_of(" \t", at_), text_.size()); }
  void skip_comment() {
    if (peek() == '#') at_ = std::min(text_.find_first_of("\r\n", at_), text_.size());
  }
  void skip_lines() {
    do {
      skip_blanks();
      skip_comment();
    } while (take_line_end());
  }

  std::string key() {
    if (starts_with(R"(""")") || starts_with("'''")) refuse("a key is of one line");
    if (peek() == '"' || peek() == '\'') return string();
    constexpr std::string_view bare = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const size_t first = std::exchange(at_, std::min(text_.find_first_not_of(bare, at_), text_.size()));
    if (at_ == first) refuse("expected key = value");
    return std::string(text_.substr(first, at_ - first));
  }

  std::vector<std::string> array(const std::string& key) {
    std::vector<std::string> values;
    for (skip_lines(); !take(']'); skip_lines()) {
      values.push_back(value(key));
      skip_lines();
      if (take(']')) break;
      if (!take(',')) refuse(fmt::format("the list of {} goes on without a comma, or does not end", key));
    }
    return values;
  }

  std::string value(const std::string& key) {
    if (peek() == '"' || peek() == '\'') return string();
    std::string result;
    if (peek() == '{') {
      if (!bytes(result)) refuse(fmt::format("{} is neither a text, a number, true or false, nor a list of such", key));
      return result;
    }
    const size_t end = std::min(text_.find_first_of(" \t\r\n,]}#", at_), text_.size());
    if (!bare_value(text_.substr(at_, end - at_), result))
      refuse(fmt::format("the value of {} is neither a number, true or false, nor a list of such; texts are in quotes",
                         key));
    at_ = end;
    return result;
  }

  /// `{bytes = "%ff"}`, as toml_value() writes it. False for any other table.
  bool bytes(std::string& out) {
    if (!take('{')) return false;
    skip_blanks();
    if (!take("bytes")) return false;
    skip_blanks();
    if (!take('=')) return false;
    skip_blanks();
    if ((peek() != '"' && peek() != '\'') || !percent_decode(string(), out)) return false;
    skip_blanks();
    return take('}');
  }

  /// All four kinds: in double quotes with escapes, in single ones as it is; in three of each over several lines.
  std::string string() {
    const int64_t first_line = line_;
    const char quote = peek();
    const std::string three(3, quote);
    const bool is_long = take(three);
    if (is_long)
      take_line_end();  // right behind the quotes it is not part of the text
    else
      take(quote);
    std::string result;
    while (is_long ? !take(three) : !take(quote)) {
      if (at_end() || (!is_long && (peek() == '\n' || peek() == '\r'))) {
        line_ = first_line;
        refuse("the text that begins here does not end");
      }
      if (take_line_end())
        result += '\n';
      else if (quote == '"' && take('\\'))
        escape(is_long, result);
      else
        result += text_[at_++];
    }
    for (int more = 0; is_long && more < 2 && take(quote); ++more) result += quote;  // of five, the last three end it
    return result;
  }

  void escape(bool is_long, std::string& out) {
    if (const size_t before = at_; is_long) {
      skip_blanks();
      if (take_line_end()) {  // the text goes on with the next character that is no space
        do skip_blanks();
        while (take_line_end());
        return;
      }
      at_ = before;
    }
    constexpr std::string_view letters = "btnfr\"\\", meant = "\b\t\n\f\r\"\\";
    if (const size_t which = at_end() ? letters.npos : letters.find(peek()); which != letters.npos) {
      ++at_;
      out += meant[which];
      return;
    }
    const size_t digits = take('u') ? 4 : take('U') ? 8 : 0;
    const std::string_view hex = text_.substr(at_, digits);
    uint32_t code_point = 0;
    const auto [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code_point, 16);
    if (digits == 0 || error != std::errc() || end != hex.data() + digits || code_point > 0x10ffff ||
        (code_point >= 0xd800 && code_point < 0xe000))
      refuse(R"(a backslash goes before one of b t n f r " \ uXXXX UXXXXXXXX; in 'single quotes' it is itself)");
    at_ += digits;
    out += utf8_of(code_point);
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

std::vector<TomlSetting> parse_toml(std::string_view text, const std::string& name) {
  return Reader(text, name).settings();
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
