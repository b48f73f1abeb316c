#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/layer.h>
#include <saccade/nn/description.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>

#include <algorithm>
#include <array>

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
  if (model == models.end()) {
    std::vector<std::string> names = regnet_names();
    std::ranges::copy(resnet_names(), std::back_inserter(names));
    fail(fmt::format("regnet: there is no model \"{}\"; the nearest names are {}", text,
                     fmt::join(nearest(std::move(names), name), ", ")));
  }
  spec.depth = model->depth;
  spec.w0 = model->w0;
  spec.wa = model->wa;
  spec.wm = model->wm;
  spec.group_width = model->group_width;
  return spec;
}

void override_one(RegNetSpec& spec, const DescribedSetting& setting) {
  const std::string_view key = setting.key;
  if (key == "d")
    spec.depth = setting.whole_number();
  else if (key == "w0")
    spec.w0 = setting.number();
  else if (key == "wa")
    spec.wa = setting.number();
  else if (key == "wm")
    spec.wm = setting.number();
  else if (key == "g")
    spec.group_width = setting.whole_number();
  else if (key == "se")
    spec.se_ratio = setting.number();
  else if (key == "b")
    spec.bottleneck = setting.number();
  else if (key == "stem_width")
    spec.stem_width = setting.whole_number();
  else if (key == "in")
    spec.in_channels = setting.whole_number();
  else if (key == "stem")
    spec.stem = setting.stem();
  else if (key == "rounding")
    spec.rounding = setting.one_of({"pycls", "tv"}) == 0 ? Rounding::pycls : Rounding::torchvision;
  else
    setting.refuse("d, w0, wa, wm, g, se, b, stem, stem_width, in, rounding");
}

}  // namespace

std::vector<std::string> regnet_names() {
  std::vector<std::string> names(models.size());
  std::ranges::transform(models, names.begin(), [](const Model& model) { return std::string(model.name); });
  return names;
}

RegNetSpec regnet_spec(std::string_view description) {
  const Description parts = parse_description("regnet", description);
  RegNetSpec spec = base(parts.name);
  for (const DescribedSetting& setting : parts.settings) override_one(spec, setting);
  stages(spec);  // checks the ranges
  return spec;
}

}  // namespace saccade::nn
