#include <fmt/format.h>
#include <saccade/data/printable.h>
#include <saccade/data/unreadable.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

namespace saccade::data {
namespace {

std::string_view file_name(std::string_view key) { return key.substr(key.rfind('/') + 1); }

/// The reason without the sample's name, and with each number as #.
std::string kind_of(const Failure& failure) {
  std::string_view reason = failure.reason;
  if (reason.starts_with(failure.key + ": ")) reason.remove_prefix(failure.key.size() + 2);
  std::string kind;
  for (const char c : reason) {
    if (c < '0' || c > '9')
      kind += c;
    else if (!kind.ends_with('#'))
      kind += '#';
  }
  return kind;
}

/// Takes the text up to `end` from the front of `text`; false if there is no `end`.
bool take(std::string_view& text, char end, std::string_view& field) {
  const size_t at = text.find(end);
  if (at == std::string_view::npos) return false;
  field = text.substr(0, at);
  text.remove_prefix(at + 1);
  return true;
}
bool take(std::string_view& text, char end, int64_t& number) {
  std::string_view digits;
  if (!take(text, end, digits)) return false;
  const auto [stop, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return error == std::errc{} && stop == digits.data() + digits.size() && number >= 0;
}

}  // namespace

std::string table_of_reasons(const std::vector<Failure>& failures, const std::string& root) {
  std::map<std::string, std::vector<const Failure*>> kinds;
  for (const Failure& failure : failures) kinds[kind_of(failure)].push_back(&failure);
  std::vector<std::pair<std::string, std::vector<const Failure*>>> rows(kinds.begin(), kinds.end());
  std::stable_sort(rows.begin(), rows.end(),
                   [](const auto& a, const auto& b) { return a.second.size() > b.second.size(); });
  std::string table;
  for (const auto& [kind, of_kind] : rows) {
    table += fmt::format("{:8}  {} (", of_kind.size(), kind);
    const size_t named = std::min<size_t>(of_kind.size(), 3);
    for (size_t i = 0; i < named; ++i) {
      std::string_view name = of_kind[i]->key;
      if (name.starts_with(root + "/")) name.remove_prefix(root.size() + 1);
      table += fmt::format("{}{}", i == 0 ? "" : ", ", name);
    }
    table += of_kind.size() > named ? ", ...)\n" : ")\n";
  }
  return table;
}

void Unreadable::add(int64_t index, int64_t epoch, int64_t iteration, const std::string& reason) {
  const std::lock_guard lock(mutex_);
  Unread& at = found_.try_emplace(index, Unread{epoch, iteration, printable(reason)}).first->second;
  at.epoch = std::min(at.epoch, epoch);
  at.iteration = std::min(at.iteration, iteration);
  count_ = static_cast<int64_t>(found_.size());
}

bool Unreadable::met(int64_t index, int64_t epoch, int64_t iteration) {
  if (count_ == 0) return false;
  const std::lock_guard lock(mutex_);
  const auto at = found_.find(index);
  if (at == found_.end() || at->second.epoch > epoch) return false;
  at->second.iteration = std::min(at->second.iteration, iteration);
  return true;
}

bool Unreadable::contains(int64_t index, int64_t epoch) const {
  if (count_ == 0) return false;
  const std::lock_guard lock(mutex_);
  const auto at = found_.find(index);
  return at != found_.end() && at->second.epoch <= epoch;
}

UnreadSamples Unreadable::before(int64_t epoch) const {
  const std::lock_guard lock(mutex_);
  UnreadSamples earlier = found_;
  std::erase_if(earlier, [&](const auto& entry) { return entry.second.epoch >= epoch; });
  return earlier;
}

std::vector<Failure> Unreadable::list(const Source& source) const {
  const std::lock_guard lock(mutex_);
  std::vector<Failure> failures;
  for (const auto& [index, found] : found_) failures.push_back({index, source.key(index), found.reason});
  return failures;
}

std::string Unreadable::state(const Source& source, int64_t iteration) const {
  const std::lock_guard lock(mutex_);
  std::string text;
  for (const auto& [index, found] : found_) {
    if (found.iteration >= iteration) continue;
    text += fmt::format("{}\t{}\t{}\t{}\t{}\n", index, found.epoch, found.iteration,
                        printable(file_name(source.key(index))), found.reason);
  }
  return text;
}

namespace {

UnreadSamples parse(const std::string& state, const Source& source) {
  UnreadSamples found;
  for (std::string_view rest = state; !rest.empty();) {
    int64_t index = 0, epoch = 0, iteration = 0;
    std::string_view name, reason;
    if (!take(rest, '\t', index) || !take(rest, '\t', epoch) || !take(rest, '\t', iteration) ||
        !take(rest, '\t', name) || !take(rest, '\n', reason))
      throw Error(fmt::format("{}: what a checkpoint says of its unreadable images is not understood", source.name));
    if (index < source.size() && printable(file_name(source.key(index))) == name)
      found[index] = {epoch, iteration, std::string(reason)};
  }
  return found;
}

}  // namespace

void Unreadable::merge(const std::vector<std::string>& states, const Source& source) {
  for (const std::string& state : states)
    for (const auto& [index, found] : parse(state, source)) add(index, found.epoch, found.iteration, found.reason);
}

void Unreadable::restore(const std::string& state, const Source& source) {
  UnreadSamples found = parse(state, source);
  const std::lock_guard lock(mutex_);
  found_ = std::move(found);
  count_ = static_cast<int64_t>(found_.size());
}

bool UnreadableLimit::exceeded(int64_t known, int64_t tried, int64_t failed, bool first_epoch) const {
  if ((first_epoch ? tried : count) < kLeastTried) return false;
  const double others = static_cast<double>(count - known), n = static_cast<double>(tried);
  const double allowed = share * static_cast<double>(count) - static_cast<double>(known) + 1e-6;
  double most = allowed;
  if (drawn && allowed >= 0 && allowed < others) {
    const double p = allowed / others;
    most = std::min(most, p * n + 5 * std::sqrt(n * p * (1 - p) * (others - n) / std::max(others - 1, 1.)));
  }
  return static_cast<double>(failed) > most;
}

int64_t UnreadableLimit::most_in_vain() const {
  if (share >= 1 || count < kLeastTried) return std::numeric_limits<int64_t>::max();
  const double enough = std::log(1e-9) / std::log(share);  // share^enough = 1e-9
  return std::max(kLeastTried, static_cast<int64_t>(enough) + 1);
}

}  // namespace saccade::data
