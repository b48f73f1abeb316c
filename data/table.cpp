#include <fmt/format.h>
#include <saccade/data/table.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <array>
#include <string_view>

namespace saccade::data {
namespace {

/// The delimiter that the first row has most of, outside of quotes; 0 if it has none.
char delimiter_of(std::string_view text) {
  constexpr std::array<char, 3> kDelimiters{',', '\t', ';'};
  std::array<int, 3> counts{};
  bool quoted = false;
  for (const char c : text) {
    if (c == '"') quoted = !quoted;
    if (quoted) continue;
    if ((c == '\n' || c == '\r') && *std::max_element(counts.begin(), counts.end()) > 0) break;
    for (size_t i = 0; i < kDelimiters.size(); ++i) counts[i] += c == kDelimiters[i] ? 1 : 0;
  }
  const auto most = std::max_element(counts.begin(), counts.end());
  return *most == 0 ? '\0' : kDelimiters[static_cast<size_t>(most - counts.begin())];
}

std::string trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return std::string(text);
}

class Parser {
 public:
  Parser(const std::string& name, std::string_view text, char delimiter)
      : name_(name), text_(text), delimiter_(delimiter) {}

  std::vector<Table::Row> rows() {
    std::vector<Table::Row> rows;
    while (at_ < text_.size()) {
      Table::Row row{line_, {}};
      row.fields.push_back(field());
      while (at_ < text_.size() && text_[at_] == delimiter_) {
        ++at_;
        row.fields.push_back(field());
      }
      end_line();
      if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  bool at_end_of_line() const { return at_ >= text_.size() || text_[at_] == '\n' || text_[at_] == '\r'; }

  void end_line() {
    if (at_ >= text_.size()) return;
    if (text_[at_] == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n') ++at_;
    ++at_;
    ++line_;
  }

  std::string field() {
    size_t first = at_;
    while (first < text_.size() && text_[first] == ' ') ++first;
    if (first < text_.size() && text_[first] == '"') {
      at_ = first;
      return quoted();
    }
    first = at_;
    while (!at_end_of_line() && text_[at_] != delimiter_) ++at_;
    return trimmed(text_.substr(first, at_ - first));
  }

  std::string quoted() {
    const int64_t begins = line_;
    std::string field;
    for (++at_; at_ < text_.size(); ++at_) {
      if (text_[at_] == '"') {
        if (at_ + 1 < text_.size() && text_[at_ + 1] == '"') {
          field += text_[at_++];
          continue;
        }
        ++at_;
        while (at_ < text_.size() && text_[at_] == ' ') ++at_;
        if (!at_end_of_line() && text_[at_] != delimiter_) {
          throw Error(
              fmt::format("{}, line {}: there is text after a closing quote; a quote within quotes is written "
                          "twice",
                          name_, line_));
        }
        return field;
      }
      line_ += text_[at_] == '\n' ? 1 : 0;
      field += text_[at_];
    }
    throw Error(fmt::format("{}, line {}: the quote that begins here does not end", name_, begins));
  }

  const std::string& name_;
  std::string_view text_;
  char delimiter_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

}  // namespace

Table parse_table(const std::string& name, const std::string& given) {
  std::string_view text = given;
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff"))
    throw Error(fmt::format("{}: is UTF-16, as some programs save tables: save it as CSV in UTF-8", name));
  if (text.find('\0') != std::string_view::npos)
    throw Error(fmt::format("{}: is neither an IDX file nor a table of paths and labels (CSV, TSV)", name));
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  Table table;
  table.delimiter = delimiter_of(text);
  table.rows = Parser(name, text, table.delimiter).rows();
  for (const Table::Row& row : table.rows) {
    const size_t expected = table.rows.front().fields.size();
    if (row.fields.size() != expected) {
      throw Error(
          fmt::format("{}, line {}: expected {} fields as in line {}, got {}; put a field that holds a '{}' in "
                      "double quotes",
                      name, row.line, expected, table.rows.front().line, row.fields.size(),
                      table.delimiter == '\t' ? "tab" : std::string(1, table.delimiter)));
    }
  }
  return table;
}

}  // namespace saccade::data
