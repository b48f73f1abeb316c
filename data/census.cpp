#include <fmt/format.h>
#include <saccade/data/census.h>
#include <saccade/data/printable.h>

#include <algorithm>
#include <vector>

namespace saccade::data {

void Census::add(std::string_view kind, int64_t count) {
  const auto at = counts_.find(kind);
  if (at != counts_.end()) {
    at->second += count;
  } else {
    counts_.emplace(kind, count);
  }
}

int64_t Census::total() const {
  int64_t total = 0;
  for (const auto& [kind, count] : counts_) total += count;
  return total;
}

std::string Census::words(size_t kinds) const {
  std::vector<std::pair<std::string_view, int64_t>> sorted(counts_.begin(), counts_.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string words;
  int64_t rest = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const auto& [kind, count] = sorted[i];
    if (i < kinds) {
      words += fmt::format("{}{} {}", i == 0 ? "" : ", ", count, printable(kind));
    } else {
      rest += count;
    }
  }
  if (rest > 0) words += fmt::format(" and {} other{}", rest, rest == 1 ? "" : "s");
  return words;
}

}  // namespace saccade::data
