#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/data/fingerprint.h>
#include <saccade/data/printable.h>
#include <saccade/kernels/error.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>
#include <utility>

namespace saccade::data {
namespace {

std::string escaped(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '\\' || c == '\n') out += '\\';
    out += c == '\n' ? 'n' : c;
  }
  return out;
}

std::string unescaped(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool escape = text[i] == '\\' && i + 1 < text.size();
    if (escape) ++i;
    out += escape && text[i] == 'n' ? '\n' : text[i];
  }
  return out;
}

std::string lines_of(const std::vector<StoredFile>& files) {
  std::string lines;
  for (const StoredFile& file : files) lines += fmt::format("{}\t{}\n", file.bytes, escaped(file.name));
  return lines;
}

std::string hash_of(std::string_view lines) {
  const XXH128_hash_t hash = XXH3_128bits(lines.data(), lines.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

/// The next line, without its end; none where the text ends within it.
bool take_line(std::string_view& text, std::string_view& line) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return false;
  line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return true;
}

bool take_number(std::string_view text, int64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && number >= 0;
}

}  // namespace

std::string Fingerprint::hash() const { return hash_of(lines_of(files)); }

std::string absolute_path(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code none;
  const fs::path absolute = fs::absolute(path, none);
  fs::path normal = absolute.lexically_normal();
  // `..` after a link leads elsewhere than its letters say.
  if (!fs::equivalent(absolute, normal, none)) normal = fs::weakly_canonical(absolute, none);
  std::string text = normal.string();
  while (text.size() > 1 && text.ends_with('/')) text.pop_back();
  return text;
}

Fingerprint fingerprint(const Source& source, const std::string& path) {
  Fingerprint found{.path = absolute_path(path), .images = source.size(), .files = {}};
  if (source.files) found.files = source.files();
  return found;
}

std::string to_text(const Fingerprint& fingerprint, std::string_view start) {
  const std::string lines = lines_of(fingerprint.files);
  return fmt::format("{}\npath\t{}\nimages\t{}\nchanged\t{}\nxxh3_128\t{}\n{}", start, escaped(fingerprint.path),
                     fingerprint.images, fingerprint.was_changed ? 1 : 0, hash_of(lines), lines);
}

Fingerprint parse_fingerprint(std::string_view text, const std::string& name) {
  Fingerprint out;
  const auto damaged = [&] { return Error(fmt::format("{}: is no list of a run's images, or damaged", name)); };
  std::string_view line;
  if (!take_line(text, line)) throw damaged();
  const auto take_field = [&](std::string_view key) {
    if (!take_line(text, line) || !line.starts_with(key) || line.substr(key.size(), 1) != "\t") throw damaged();
    return line.substr(key.size() + 1);
  };
  int64_t changed = 0;
  out.path = unescaped(take_field("path"));
  if (!take_number(take_field("images"), out.images) || !take_number(take_field("changed"), changed)) throw damaged();
  out.was_changed = changed != 0;
  const std::string_view hash = take_field("xxh3_128");  // of what then is left
  if (hash != hash_of(text)) throw damaged();
  while (!text.empty()) {
    StoredFile file;
    if (!take_line(text, line)) throw damaged();
    const size_t tab = line.find('\t');
    if (tab == std::string_view::npos || !take_number(line.substr(0, tab), file.bytes)) throw damaged();
    file.name = unescaped(line.substr(tab + 1));
    out.files.push_back(std::move(file));
  }
  return out;
}

Changes changes(const Fingerprint& before, const Fingerprint& now) {
  const auto same = [](const StoredFile& a, const StoredFile& b) { return a.name == b.name && a.bytes == b.bytes; };
  Changes found;
  if (std::ranges::equal(before.files, now.files, same)) return found;
  std::vector<StoredFile> old_files = before.files, new_files = now.files;
  std::ranges::sort(old_files, {}, &StoredFile::name);
  std::ranges::sort(new_files, {}, &StoredFile::name);
  auto was = old_files.begin(), is = new_files.begin();
  while (was != old_files.end() || is != new_files.end()) {
    if (is == new_files.end() || (was != old_files.end() && was->name < is->name)) {
      found.removed.push_back((was++)->name);
    } else if (was == old_files.end() || is->name < was->name) {
      found.added.push_back((is++)->name);
    } else {
      if (was->bytes != is->bytes) found.replaced.push_back(is->name);
      ++was, ++is;
    }
  }
  found.reordered = !found.any();
  return found;
}

std::string Changes::words() const {
  std::vector<std::string> parts;
  for (const auto& [names, what] : {std::pair{&added, "added"}, {&removed, "removed"}, {&replaced, "replaced"}}) {
    if (names->empty()) continue;
    std::string list;
    for (size_t i = 0; i < std::min<size_t>(names->size(), 3); ++i)
      list += (i == 0 ? "" : ", ") + printable((*names)[i].substr(0, 200));
    parts.push_back(fmt::format("{} {} ({}{})", names->size(), what, list, names->size() > 3 ? ", ..." : ""));
  }
  if (reordered) parts.emplace_back("the same files in another order");
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace saccade::data
