#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/nn/regnet.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>

namespace saccade::nn {
namespace {

struct Model {
  std::string_view name;
  int64_t depth;
  double w0, wa, wm;
  int64_t group_width;
};

/// Radosavovic et al. 2020, tables 11 and 12 of the appendix; from y_64gf on: timm, Goyal et al. 2021 and 2022 (SEER),
/// ClassyVision. Names starting with y have squeeze-excite.
constexpr std::array models = {
    Model{"x_200mf", 13, 24, 36.44, 2.49, 8},     Model{"x_400mf", 22, 24, 24.48, 2.54, 16},
    Model{"x_600mf", 16, 48, 36.97, 2.24, 24},    Model{"x_800mf", 16, 56, 35.73, 2.28, 16},
    Model{"x_1_6gf", 18, 80, 34.01, 2.25, 24},    Model{"x_3_2gf", 25, 88, 26.31, 2.25, 48},
    Model{"x_4gf", 23, 96, 38.65, 2.43, 40},      Model{"x_6_4gf", 17, 184, 60.83, 2.07, 56},
    Model{"x_8gf", 23, 80, 49.56, 2.88, 120},     Model{"x_12gf", 19, 168, 73.36, 2.37, 112},
    Model{"x_16gf", 22, 216, 55.59, 2.1, 128},    Model{"x_32gf", 23, 320, 69.86, 2.0, 168},
    Model{"y_200mf", 13, 24, 36.44, 2.49, 8},     Model{"y_400mf", 16, 48, 27.89, 2.09, 8},
    Model{"y_600mf", 15, 48, 32.54, 2.32, 16},    Model{"y_800mf", 14, 56, 38.84, 2.4, 16},
    Model{"y_1_6gf", 27, 48, 20.71, 2.65, 24},    Model{"y_3_2gf", 21, 80, 42.63, 2.66, 24},
    Model{"y_4gf", 22, 96, 31.41, 2.24, 64},      Model{"y_6_4gf", 25, 112, 33.22, 2.27, 72},
    Model{"y_8gf", 17, 192, 76.82, 2.19, 56},     Model{"y_12gf", 19, 168, 73.36, 2.37, 112},
    Model{"y_16gf", 18, 200, 106.23, 2.48, 112},  Model{"y_32gf", 20, 232, 115.89, 2.53, 232},
    Model{"y_64gf", 20, 352, 147.48, 2.4, 328},   Model{"y_128gf", 27, 456, 160.83, 2.52, 264},
    Model{"y_256gf", 27, 640, 230.83, 2.53, 373}, Model{"y_256gf_classy", 27, 640, 124.47, 2.04, 848},
    Model{"y_10b", 27, 1744, 620.83, 2.52, 1010},
};

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

std::vector<std::string> nearest(std::string_view name) {
  std::vector<std::string> names = regnet_names();
  std::ranges::stable_sort(names, {}, [&](const std::string& n) { return edit_distance(n, name); });
  names.resize(3);
  return names;
}

/// One spelling: "Y_8.0GF" and "regnet_y_8_0gf" become "y_8gf".
std::string normalize(std::string_view text) {
  std::string name;
  for (const char c : text)
    name += c == '.' || c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name.starts_with("regnet")) name.erase(0, name.starts_with("regnet_") ? 7 : 6);
  if (const size_t zero = name.find("_0gf"); zero != std::string::npos) name.erase(zero, 2);
  return name;
}

RegNetSpec base(std::string_view text) {
  std::string name = normalize(text);
  RegNetSpec spec;
  if (name.ends_with("_tv")) {
    name.resize(name.size() - 3);
    spec.rounding = Rounding::torchvision;
  }
  if (name.starts_with("y")) spec.se_ratio = 0.25;
  if (name == "x" || name == "y") return spec;
  const auto* const model = std::ranges::find(models, name, &Model::name);
  if (model == models.end())
    fail(fmt::format("regnet: there is no model \"{}\"; the nearest names are {}", text,
                     fmt::join(nearest(name), ", ")));
  spec.depth = model->depth;
  spec.w0 = model->w0;
  spec.wa = model->wa;
  spec.wm = model->wm;
  spec.group_width = model->group_width;
  return spec;
}

template <class T>
T number(std::string_view key, std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    fail(fmt::format("regnet: {}=\"{}\" is not a{} number", key, text, std::is_integral_v<T> ? " whole" : ""));
  return value;
}

template <class E>
E choice(std::string_view key, std::string_view text, std::initializer_list<std::pair<std::string_view, E>> choices) {
  std::vector<std::string_view> names;
  for (const auto& [name, value] : choices) {
    if (name == text) return value;
    names.push_back(name);
  }
  fail(fmt::format("regnet: {}=\"{}\", expected one of {}", key, text, fmt::join(names, ", ")));
}

void override_one(RegNetSpec& spec, std::string_view key, std::string_view value) {
  if (key == "d")
    spec.depth = number<int64_t>(key, value);
  else if (key == "w0")
    spec.w0 = number<double>(key, value);
  else if (key == "wa")
    spec.wa = number<double>(key, value);
  else if (key == "wm")
    spec.wm = number<double>(key, value);
  else if (key == "g")
    spec.group_width = number<int64_t>(key, value);
  else if (key == "se")
    spec.se_ratio = number<double>(key, value);
  else if (key == "b")
    spec.bottleneck = number<double>(key, value);
  else if (key == "stem_width")
    spec.stem_width = number<int64_t>(key, value);
  else if (key == "in")
    spec.in_channels = number<int64_t>(key, value);
  else if (key == "stem")
    spec.stem = choice<Stem>(key, value, {{"simple", Stem::simple}, {"cifar", Stem::cifar}, {"resnet", Stem::resnet}});
  else if (key == "rounding")
    spec.rounding = choice<Rounding>(key, value, {{"pycls", Rounding::pycls}, {"tv", Rounding::torchvision}});
  else
    fail(
        fmt::format("regnet: unknown key \"{}\", expected one of d, w0, wa, wm, g, se, b, stem, stem_width, in, "
                    "rounding",
                    key));
}

}  // namespace

std::vector<std::string> regnet_names() {
  std::vector<std::string> names(models.size());
  std::ranges::transform(models, names.begin(), [](const Model& model) { return std::string(model.name); });
  return names;
}

RegNetSpec regnet_spec(std::string_view description) {
  const size_t colon = description.find(':');
  RegNetSpec spec = base(description.substr(0, colon));
  std::string_view rest = colon == std::string_view::npos ? "" : description.substr(colon + 1);
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos)
      fail(fmt::format("regnet: \"{}\" in \"{}\", expected key=value", item, description));
    override_one(spec, item.substr(0, equals), item.substr(equals + 1));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
  }
  stages(spec);  // checks the ranges
  return spec;
}

}  // namespace saccade::nn
