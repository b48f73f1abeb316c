#include <fmt/format.h>
#include <saccade/data/multi_crop.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

namespace saccade::data {
namespace {

/// The settings that are one number from 0 to `high`: in text, of all crops, and of some.
struct Setting {
  const char* name;
  const char* field;
  float MultiCrop::*all;
  std::optional<float> CropSettings::*own;
  float high;
};
constexpr Setting kSettings[] = {
    {"flip", "flip_p", &MultiCrop::flip_p, &CropSettings::flip_p, 1},
    {"jitter", "jitter_p", &MultiCrop::jitter_p, &CropSettings::jitter_p, 1},
    {"brightness", "brightness", &MultiCrop::brightness, &CropSettings::brightness, 10},
    {"contrast", "contrast", &MultiCrop::contrast, &CropSettings::contrast, 10},
    {"saturation", "saturation", &MultiCrop::saturation, &CropSettings::saturation, 10},
    {"hue", "hue", &MultiCrop::hue, &CropSettings::hue, 0.5f},
    {"gray", "grayscale_p", &MultiCrop::grayscale_p, &CropSettings::grayscale_p, 1},
    {"blur", "blur_p", &MultiCrop::blur_p, &CropSettings::blur_p, 1},
    {"solarize", "solarize_p", &MultiCrop::solarize_p, &CropSettings::solarize_p, 1},
};

void jitter(const MultiCrop& all, const CropSettings& own, Philox& random, Planes& planes) {
  const float brightness_s = own.brightness.value_or(all.brightness), contrast_s = own.contrast.value_or(all.contrast),
              saturation_s = own.saturation.value_or(all.saturation), hue_s = own.hue.value_or(all.hue);
  const auto factor = [&](float strength) { return random.uniform(std::max(0.0f, 1 - strength), 1 + strength); };
  // All numbers are drawn whatever the image, so that the stream does not depend on its channels.
  int order[4] = {0, 1, 2, 3};
  for (uint32_t i = 3; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  const float brightness = factor(brightness_s), contrast = factor(contrast_s), saturation = factor(saturation_s),
              hue = random.uniform(-hue_s, hue_s);
  for (const int operation : order) {
    if (operation == 0 && brightness_s > 0) adjust_brightness(planes, brightness);
    if (operation == 1 && contrast_s > 0) adjust_contrast(planes, contrast);
    if (operation == 2 && saturation_s > 0) adjust_saturation(planes, saturation);
    if (operation == 3 && hue_s > 0) adjust_hue(planes, hue);
  }
}

void make_crop(const MultiCrop& all, const CropSpec& spec, const Image& image, Philox& random, Planes& planes) {
  const CropSettings& own = spec.own;
  const Box box = random_resized_box(image.height, image.width, spec.scale, all.aspect, random);
  const bool mirror = random.uniform() < own.flip_p.value_or(all.flip_p);
  resized_crop(image, box, spec.size, spec.size, mirror, planes);
  if (random.uniform() < own.jitter_p.value_or(all.jitter_p)) jitter(all, own, random, planes);
  if (random.uniform() < own.grayscale_p.value_or(all.grayscale_p)) to_gray(planes);
  if (random.uniform() < own.blur_p.value_or(all.blur_p)) {
    const Range sigma = own.blur_sigma.value_or(all.blur_sigma);
    gaussian_blur(planes, random.uniform(sigma.low, sigma.high));
  }
  // Crops that are never solarised draw no number for it: SwAV's have the random numbers that its recipe names.
  const float solarize_p = own.solarize_p.value_or(all.solarize_p);
  if (solarize_p > 0 && random.uniform() < solarize_p)
    solarize(planes, own.solarize_threshold.value_or(all.solarize_threshold));
}

/// Of each resolution the crops that have it, in the order of `crops`.
Segments resolutions(const std::vector<CropSpec>& crops) {
  Segments segments;
  for (const CropSpec& spec : crops) {
    if (segments.empty() || segments.back().h != spec.size) segments.push_back({0, spec.size, spec.size});
    segments.back().n += spec.count;
  }
  return segments;
}

/// What numbers must be, of all crops (MultiCrop) or of some (CropSpec, told by `whose`).
void check_number(const std::string& whose, const Setting& setting, float value) {
  if (!(value >= 0 && value <= setting.high)) {
    throw Error(fmt::format("multi_crop: {}{}: expected 0 to {}, got {}", whose, setting.field, setting.high, value));
  }
}
void check_sigma(const std::string& whose, Range sigma) {
  if (!(sigma.low >= 0 && sigma.low <= sigma.high && sigma.high <= 100)) {
    throw Error(fmt::format("multi_crop: {}blur_sigma: expected 0 <= low <= high <= 100, got {} to {}", whose,
                            sigma.low, sigma.high));
  }
}
void check_threshold(const std::string& whose, int threshold) {
  if (threshold < 0 || threshold > 256)
    throw Error(fmt::format("multi_crop: {}solarize_threshold: expected 0 to 256, got {}", whose, threshold));
}

void check_crops(const CropSpec& spec) {
  if (spec.count < 1 || spec.size < 1 || spec.size > 4096) {
    throw Error(
        fmt::format("multi_crop: {}x{}: expected a positive count and a size from 1 to 4096", spec.count, spec.size));
  }
  const std::string whose = fmt::format("{}x{}: ", spec.count, spec.size);
  if (!(spec.scale.low > 0 && spec.scale.low <= spec.scale.high && spec.scale.high <= 1)) {
    throw Error(fmt::format("multi_crop: {}expected a scale with 0 < low <= high <= 1, got {} to {}", whose,
                            spec.scale.low, spec.scale.high));
  }
  for (const Setting& setting : kSettings)
    if (const auto value = spec.own.*setting.own) check_number(whose, setting, *value);
  if (spec.own.blur_sigma) check_sigma(whose, *spec.own.blur_sigma);
  if (spec.own.solarize_threshold) check_threshold(whose, *spec.own.solarize_threshold);
}

}  // namespace

int MultiCrop::crops_per_image() const { return static_cast<int>(total_images(segments(1))); }

Segments MultiCrop::segments(int64_t batch) const {
  Segments segments = resolutions(crops);
  for (Segment& s : segments) s.n *= batch;
  return segments;
}

double MultiCrop::useful_side() const {
  double side = 0;
  for (const CropSpec& spec : crops) {
    const double narrowest = std::min<double>(aspect.low, 1.0 / aspect.high);
    side = std::max(side, spec.size / std::sqrt(spec.scale.low * narrowest));
  }
  return side;
}

void MultiCrop::check() const {
  if (crops.empty()) throw Error("multi_crop: expected at least one resolution, got none");
  for (const CropSpec& spec : crops) check_crops(spec);
  if (!(aspect.low > 0 && aspect.low <= aspect.high)) {
    throw Error(fmt::format("multi_crop: aspect: expected 0 < low <= high, got {} to {}", aspect.low, aspect.high));
  }
  for (const Setting& setting : kSettings) check_number("", setting, this->*setting.all);
  check_sigma("", blur_sigma);
  check_threshold("", solarize_threshold);
  check_deviations(std);
}

MultiCrop::operator View() const {
  check();
  return {.crops = segments(1),
          .make =
              [settings = *this](const Image& image, Philox& random, const View::Put& put) {
                thread_local Planes planes;
                for (const CropSpec& spec : settings.crops) {
                  for (int i = 0; i < spec.count; ++i) {
                    make_crop(settings, spec, image, random, planes);
                    put(planes);
                  }
                }
              },
          .useful_side = useful_side(),
          .mean = mean,
          .std = std};
}

MultiCrop multi_crop(std::vector<CropSpec> crops) {
  MultiCrop settings;
  settings.crops = std::move(crops);
  settings.check();
  return settings;
}

MultiCrop simclr_crops(int size, float strength) {
  MultiCrop settings;
  settings.crops = {{2, size, {0.08f, 1.0f}}};
  settings.brightness = settings.contrast = settings.saturation = 0.8f * strength;
  settings.hue = 0.2f * strength;
  settings.check();
  return settings;
}

MultiCrop dino_crops(std::vector<CropSpec> crops) {
  MultiCrop settings;
  settings.brightness = settings.contrast = 0.4f;
  settings.saturation = 0.2f;
  settings.hue = 0.1f;
  int seen = 0;
  for (CropSpec& spec : crops) {
    for (; seen < 2 && spec.count > 0; ++seen, --spec.count) {
      CropSpec global = spec;
      global.count = 1;
      if (!global.own.blur_p) global.own.blur_p = seen == 0 ? 1.0f : 0.1f;
      if (!global.own.solarize_p && seen == 1) global.own.solarize_p = 0.2f;
      settings.crops.push_back(global);
    }
    if (spec.count != 0) settings.crops.push_back(spec);
  }
  settings.check();
  return settings;
}

namespace {

/// Reads one text from its front, and says which part of it cannot be read.
struct CropReader {
  std::string_view text, part, rest;  ///< all of it; the crops that are read; what of them is left

  [[noreturn]] void wrong() const {
    throw Error(
        fmt::format("crops \"{}\": cannot read \"{}\", expected something like 2x224+6x96 or "
                    "2x224@0.14-1+6x96@0.05-0.14,blur=0.1",
                    text, part));
  }
  void skip(char expected) {
    if (rest.empty() || rest.front() != expected) wrong();
    rest.remove_prefix(1);
  }
  template <class Number>
  Number number() {
    Number value = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (error != std::errc()) wrong();
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    return value;
  }
  Range range() {
    Range range;
    range.low = number<float>();
    skip('-');
    range.high = number<float>();
    return range;
  }

  template <class T>
  void give(std::string_view name, std::optional<T>& setting, T value) {
    if (setting) throw Error(fmt::format("crops \"{}\": {} is given twice in \"{}\"", text, name, part));
    setting = value;
  }
  /// What stands between a comma and the next.
  void setting(CropSettings& own) {
    skip(',');
    const std::string_view name = rest.substr(0, rest.find('='));
    rest.remove_prefix(name.size());
    skip('=');
    if (name == "sigma") return give(name, own.blur_sigma, range());
    if (name == "threshold") return give(name, own.solarize_threshold, number<int>());
    for (const Setting& s : kSettings)
      if (name == s.name) return give(name, own.*s.own, number<float>());
    std::string names;
    for (const Setting& s : kSettings) names += std::string(s.name) + ", ";
    throw Error(
        fmt::format("crops \"{}\": \"{}\" is no setting of crops: expected {}sigma or threshold", text, name, names));
  }
};

}  // namespace

std::vector<CropSpec> parse_crops(std::string_view text) {
  std::vector<CropSpec> crops;
  std::vector<bool> has_scale;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('+', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    CropReader reader{text, part, part};
    CropSpec spec;
    spec.count = reader.number<int>();
    reader.skip('x');
    spec.size = reader.number<int>();
    has_scale.push_back(reader.rest.starts_with('@'));
    if (has_scale.back()) {
      reader.skip('@');
      spec.scale = reader.range();
    }
    while (!reader.rest.empty()) reader.setting(spec.own);
    crops.push_back(spec);
    at = end + 1;
  }
  const Segments sizes = resolutions(crops);
  int64_t seen = 0;
  for (size_t i = 0; i < crops.size(); ++i) {
    const bool first = seen < sizes.front().n;
    seen += crops[i].count;
    if (has_scale[i]) continue;
    crops[i].scale = sizes.size() == 1 ? Range{0.08f, 1} : first ? Range{0.14f, 1} : Range{0.05f, 0.14f};
  }
  return multi_crop(std::move(crops)).crops;
}

std::string to_text(const std::vector<CropSpec>& crops) {
  std::string text;
  for (const CropSpec& spec : crops) {
    text +=
        fmt::format("{}{}x{}@{}-{}", text.empty() ? "" : "+", spec.count, spec.size, spec.scale.low, spec.scale.high);
    for (const Setting& s : kSettings)
      if (const auto value = spec.own.*s.own) text += fmt::format(",{}={}", s.name, *value);
    if (const auto sigma = spec.own.blur_sigma) text += fmt::format(",sigma={}-{}", sigma->low, sigma->high);
    if (const auto threshold = spec.own.solarize_threshold) text += fmt::format(",threshold={}", *threshold);
  }
  return text;
}

}  // namespace saccade::data
