#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/nn/description.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <type_traits>

namespace saccade::nn {
namespace {

template <class T>
T parse_number(const DescribedSetting& s) {
  T number{};
  const char* const last = s.value.data() + s.value.size();
  const auto [end, error] = std::from_chars(s.value.data(), last, number);
  if (error != std::errc() || end != last)
    fail(fmt::format("{}: {}=\"{}\" is not a{} number", s.family, s.key, s.value,
                     std::is_integral_v<T> ? " whole" : ""));
  return number;
}

/// Number of single-character edits between two words.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, substituted}));
    }
  }
  return row.back();
}

}  // namespace

Description parse_description(std::string_view family, std::string_view text) {
  const size_t colon = text.find(':');
  Description description{.name = text.substr(0, colon), .settings = {}};
  std::string_view rest = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      fail(fmt::format("{}: \"{}\" in \"{}\", expected key=value", family, item, text));
    description.settings.push_back({family, item.substr(0, equals), item.substr(equals + 1)});
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
  }
  return description;
}

int64_t DescribedSetting::whole_number() const { return parse_number<int64_t>(*this); }

double DescribedSetting::number() const { return parse_number<double>(*this); }

size_t DescribedSetting::one_of(std::initializer_list<std::string_view> words) const {
  const auto* const found = std::ranges::find(words, value);
  if (found == words.end())
    fail(fmt::format("{}: {}=\"{}\", expected one of {}", family, key, value, fmt::join(words, ", ")));
  return static_cast<size_t>(found - words.begin());
}

Stem DescribedSetting::stem() const {
  return std::array{Stem::simple, Stem::cifar, Stem::resnet}[one_of({"simple", "cifar", "resnet"})];
}

void DescribedSetting::refuse(std::string_view known) const {
  fail(fmt::format("{}: unknown key \"{}\", expected one of {}", family, key, known));
}

std::vector<std::string> nearest(std::vector<std::string> names, std::string_view name) {
  std::ranges::stable_sort(names, {}, [&](const std::string& n) { return edit_distance(n, name); });
  names.resize(std::min<size_t>(names.size(), 3));
  return names;
}

}  // namespace saccade::nn
