#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/files.h>
#include <saccade/data/labelled.h>
#include <saccade/data/printable.h>
#include <saccade/data/table.h>
#include <saccade/data/table_paths.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>

namespace saccade::data {
namespace {

constexpr int64_t kMaxTableBytes = int64_t{2} << 30;

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return text;
}

/// Whether a table whose labels are not clear is refused.
enum class Labels : uint8_t { needed, welcome };

struct Entry {
  int64_t line;
  std::string path, class_name;
  Role role = Role::whole;
};

struct ImageTable {
  std::string name, folder;  ///< to print; it lies in
  std::vector<Entry> entries;
  std::string path_column, label_column;  ///< in words; no labels: empty
  int64_t repeats = 0;
};

/// The column that names most files, and the share of its values that do. Classes that are numbers may be names of a
/// few files, too.
std::pair<size_t, double> path_column(const Table& table, const TablePaths& paths) {
  const size_t step = std::max<size_t>(1, table.rows.size() / 200);
  std::pair<size_t, double> best{0, 0};
  size_t most = 0;
  for (size_t column = 0; column < table.rows[0].fields.size(); ++column) {
    double found = 0, tried = 0;
    std::set<std::string> files;
    for (size_t i = table.rows.size() > 1 ? 1 : 0; i < table.rows.size(); i += step, ++tried) {
      if (const std::string file = paths.find(table.rows[i].fields[column]); !file.empty()) {
        files.insert(file);
        ++found;
      }
    }
    if (files.size() > most) best = {column, found / tried}, most = files.size();
  }
  return best;
}

std::set<std::string> values_of(const Table& table, size_t column, size_t first_row) {
  std::set<std::string> values;
  for (size_t i = first_row; i < table.rows.size(); ++i) values.insert(table.rows[i].fields[column]);
  return values;
}

bool is_split_column(const std::set<std::string>& values) {
  return std::all_of(values.begin(), values.end(), [](const std::string& value) {
    const auto split = split_name(value);
    return split && split->exact;
  });
}

/// "column 2, species" or, without a header, "column 2".
std::string words_of_column(const Table& table, bool has_header, size_t column) {
  return has_header ? fmt::format("column {}, {}", column + 1, printable(table.rows[0].fields[column]))
                    : fmt::format("column {}", column + 1);
}

std::optional<size_t> label_column(const std::string& name, const Table& table, bool has_header,
                                   std::vector<size_t> candidates, Labels labels) {
  if (candidates.size() > 1 && has_header) {
    for (const char* usual :
         {"label", "labels", "class", "class_name", "classname", "category", "target", "species", "y"}) {
      for (const size_t column : candidates)
        if (lower(table.rows[0].fields[column]) == usual) return column;
    }
  }
  if (candidates.size() > 1) {  // numbers of rows and the like are no classes, nor is what is the same throughout
    std::erase_if(candidates, [&](size_t column) {
      const size_t values = values_of(table, column, has_header ? 1 : 0).size();
      return values <= 1 || values == table.rows.size() - (has_header ? 1 : 0);
    });
  }
  if (candidates.size() > 1 && labels == Labels::needed) {
    std::vector<std::string> names;
    for (const size_t column : candidates) names.push_back(words_of_column(table, has_header, column));
    throw Error(
        fmt::format("{}: which column is the label? It could be {}; call it 'label' in the first line, or leave "
                    "two columns, path and label",
                    name, fmt::join(names, "; ")));
  }
  return candidates.size() == 1 ? std::optional(candidates[0]) : std::nullopt;
}

void split_at_last_space(Table& table) {
  for (Table::Row& row : table.rows) {
    const std::string whole = row.fields[0];
    const size_t space = whole.find_last_of(" ");
    if (space != std::string::npos) row.fields = {whole.substr(0, space), whole.substr(space + 1)};
  }
  std::erase_if(table.rows, [&](const Table::Row& row) {
    return row.fields.size() != 2 && table.rows[0].fields.size() == 2 && row.fields[0].starts_with('#');
  });
}

[[noreturn]] void missing(const std::string& name, const TablePaths& paths, const std::string& value,
                          const std::vector<int64_t>& lines) {
  std::vector<int64_t> some(lines.begin(), lines.begin() + std::min<std::ptrdiff_t>(std::ssize(lines), 8));
  const std::string others = lines.size() == 1
                                 ? ""
                                 : fmt::format(" ({} lines name none: {}{})", lines.size(), fmt::join(some, ", "),
                                               lines.size() > some.size() ? ", ..." : "");
  throw Error(fmt::format("{}, line {}: {} {}{}; paths count from the folder of the table", name, lines[0],
                          paths.is_ambiguous(value) ? "there are several files called" : "there is no file",
                          printable(value), others));
}

ImageTable read_image_table(const std::string& path, Labels needed) {
  ImageTable out{.name = printable(path),
                 .folder = std::filesystem::path(path).parent_path().string(),
                 .entries = {},
                 .path_column = "",
                 .label_column = ""};
  std::vector<uint8_t> bytes;
  read_file(path, kMaxTableBytes, bytes);
  Table table = parse_table(out.name, std::string(bytes.begin(), bytes.end()));
  if (table.rows.empty()) throw Error(fmt::format("{}: is empty, expected a table of paths and labels", out.name));

  TablePaths paths(path);
  auto [column, share] = path_column(table, paths);
  if (share < 0.5 && table.delimiter == '\0') {
    split_at_last_space(table);
    for (const Table::Row& row : table.rows)
      if (row.fields.size() != table.rows[0].fields.size())
        throw Error(fmt::format("{}, line {}: expected {} fields as in the first line, got {}", out.name, row.line,
                                table.rows[0].fields.size(), row.fields.size()));
    std::tie(column, share) = path_column(table, paths);
  }
  if (share < 0.5) {
    paths.widen();
    std::tie(column, share) = path_column(table, paths);
  }
  if (share == 0) {
    const Table::Row& row = table.rows[table.rows.size() > 1 ? 1 : 0];
    throw Error(fmt::format(
        "{}, line {}: no column names image files: is {} one? Expected a table (CSV, TSV) of paths, from its folder or "
        "absolute, and labels",
        out.name, row.line, printable(row.fields[0].substr(0, 100))));
  }

  const std::string& first = table.rows[0].fields[column];
  const bool looks_like_a_path = first.find('/') != std::string::npos || first.find('.') != std::string::npos;
  const bool has_header = paths.find(first).empty() && !looks_like_a_path && table.rows.size() > 1;
  const size_t first_row = has_header ? 1 : 0;
  std::optional<size_t> splits;
  std::vector<size_t> candidates;
  for (size_t i = 0; i < table.rows[0].fields.size(); ++i) {
    if (i == column) continue;
    const bool named = has_header && lower(table.rows[0].fields[i]) == "split";
    if (named || (!splits && table.rows[0].fields.size() > 2 && is_split_column(values_of(table, i, first_row)))) {
      splits = i;
    } else {
      candidates.push_back(i);
    }
  }
  const auto labels = label_column(out.name, table, has_header, candidates, needed);
  out.path_column = words_of_column(table, has_header, column);
  if (labels) out.label_column = words_of_column(table, has_header, *labels);

  std::vector<int64_t> absent;
  std::string absent_value;
  std::map<std::pair<std::string, Role>, size_t> seen;
  for (size_t i = first_row; i < table.rows.size(); ++i) {
    const Table::Row& row = table.rows[i];
    Entry entry{row.line, paths.find(row.fields[column]), labels ? row.fields[*labels] : ""};
    if (entry.path.empty()) {
      if (absent.empty()) absent_value = row.fields[column];
      absent.push_back(row.line);
      continue;
    }
    if (splits && needed == Labels::needed) {
      const auto split = split_name(row.fields[*splits]);
      if (!split || !split->exact)
        throw Error(fmt::format("{}, line {}: the split is '{}', expected train, val or test", out.name, row.line,
                                printable(row.fields[*splits])));
      entry.role = split->role;
    }
    const auto [at, is_new] = seen.emplace(std::make_pair(entry.path, entry.role), out.entries.size());
    if (is_new) {
      out.entries.push_back(std::move(entry));
      continue;
    }
    ++out.repeats;
    Entry& before = out.entries[at->second];
    if (before.class_name == entry.class_name) continue;
    if (needed == Labels::needed)
      throw Error(fmt::format("{}, line {}: {} is of class {} here and of class {} in line {}; leave one of the lines",
                              out.name, entry.line, printable(entry.path), printable(entry.class_name),
                              printable(before.class_name), before.line));
    before.class_name.clear();
  }
  if (!absent.empty()) missing(out.name, paths, absent_value, absent);
  return out;
}

Source source_of(const ImageTable& table, const std::vector<Entry>& entries, const OpenOptions& options) {
  auto paths = std::make_shared<std::vector<std::string>>();
  std::vector<std::string> classes;
  for (const Entry& entry : entries) {
    paths->push_back(entry.path);
    classes.push_back(entry.class_name);
  }
  const auto count = static_cast<int64_t>(paths->size());
  Source source = image_files(
      table.name, table.folder, count, [paths](int64_t i) { return (*paths)[static_cast<size_t>(i)]; }, options);
  set_classes(source, classes);
  return source;
}

}  // namespace

Source table_images(const std::string& path, const OpenOptions& options) {
  const ImageTable table = read_image_table(path, Labels::welcome);
  Source source = source_of(table, table.entries, options);
  source.summary = fmt::format("{}: {}, paths from {}{}", table.name, words_of_count(source.count), table.path_column,
                               table.label_column.empty() ? "" : ", classes from " + table.label_column);
  if (table.repeats > 0) source.summary += fmt::format("; passed over: {} repeated lines", table.repeats);
  return source;
}

LabelledSet labelled_table(const std::string& path, const OpenOptions& options) {
  const auto table = std::make_shared<ImageTable>(read_image_table(path, Labels::needed));
  LabelledSet set{.name = table->name, .parts = {}, .rest = ""};
  const auto before = std::ssize(table->entries);
  std::erase_if(table->entries, [](const Entry& entry) { return entry.class_name.empty(); });
  // Class by class, so that every fifth is of all classes.
  std::stable_sort(table->entries.begin(), table->entries.end(),
                   [](const Entry& a, const Entry& b) { return a.class_name < b.class_name; });
  std::vector<std::string> rest;
  if (!table->label_column.empty())
    rest.push_back(fmt::format("paths from {}, classes from {}", table->path_column, table->label_column));
  if (const auto without = before - std::ssize(table->entries); without > 0)
    rest.push_back(fmt::format("{} lines have no class", without));
  if (table->repeats > 0) rest.push_back(fmt::format("{} lines are repeated", table->repeats));
  set.rest = fmt::format("{}", fmt::join(rest, "; "));
  std::set<Role> roles;
  for (const Entry& entry : table->entries) roles.insert(entry.role);
  if (roles.empty()) roles.insert(Role::whole);
  for (const Role role : roles) {
    const char* shown = role == Role::train ? "train" : role == Role::val ? "val" : role == Role::test ? "test" : "";
    const auto open = [table, role, options](std::span<const std::string>) {
      std::vector<Entry> entries;
      for (const Entry& entry : table->entries)
        if (entry.role == role) entries.push_back(entry);
      return source_of(*table, entries, options);
    };
    set.parts.push_back({role, shown, open});
  }
  return set;
}

}  // namespace saccade::data
