#include <fmt/format.h>
#include <saccade/data/multi_crop.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace saccade::data {
namespace {

/// Of an image's channels: a gray one takes the average of the three.
struct Statistics {
  std::array<float, 3> mean, std;
  template <class Settings>
  Statistics(const Settings& settings, int channels) : mean(settings.mean), std(settings.std) {
    if (channels == 3) return;
    mean[0] = (mean[0] + mean[1] + mean[2]) / 3;
    std[0] = (std[0] + std[1] + std[2]) / 3;
  }
};

template <class Settings>
void finish(const Settings& settings, const Planes& planes, float* out) {
  const Statistics s(settings, planes.channels);
  normalize(planes, s.mean.data(), s.std.data(), out);
}
template <class Settings>
void finish(const Settings&, const Planes& planes, uint8_t* out) {
  interleave(planes, out);
}

template <class Settings>
kernels::PixelScale scale_of(const Settings& settings, int channels) {
  const Statistics s(settings, channels);
  return pixel_scale(s.mean.data(), s.std.data(), channels);
}

void jitter(const MultiCrop& settings, Philox& random, Planes& planes) {
  const auto factor = [&](float strength) { return random.uniform(std::max(0.0f, 1 - strength), 1 + strength); };
  // All numbers are drawn whatever the image, so that the stream does not depend on its channels.
  int order[4] = {0, 1, 2, 3};
  for (uint32_t i = 3; i > 0; --i) std::swap(order[i], order[random.below(i + 1)]);
  const float brightness = factor(settings.brightness), contrast = factor(settings.contrast),
              saturation = factor(settings.saturation), hue = random.uniform(-settings.hue, settings.hue);
  for (const int operation : order) {
    if (operation == 0 && settings.brightness > 0) adjust_brightness(planes, brightness);
    if (operation == 1 && settings.contrast > 0) adjust_contrast(planes, contrast);
    if (operation == 2 && settings.saturation > 0) adjust_saturation(planes, saturation);
    if (operation == 3 && settings.hue > 0) adjust_hue(planes, hue);
  }
}

void check_statistics(const std::array<float, 3>& std) {
  for (const float s : std) {
    if (!(s > 0)) throw Error(fmt::format("std: expected a positive number, got {}", s));
  }
}

template <class Number>
void crops_of(const MultiCrop& settings, const Image& image, Philox& random, std::span<Number* const> out) {
  thread_local Planes planes;
  size_t next = 0;
  for (const CropSpec& spec : settings.crops) {
    for (int i = 0; i < spec.count; ++i) {
      const Box box = random_resized_box(image.height, image.width, spec.scale, settings.aspect, random);
      const bool mirror = random.uniform() < settings.flip_p;
      resized_crop(image, box, spec.size, spec.size, mirror, planes);
      if (random.uniform() < settings.jitter_p) jitter(settings, random, planes);
      if (random.uniform() < settings.grayscale_p) to_gray(planes);
      if (random.uniform() < settings.blur_p) {
        gaussian_blur(planes, random.uniform(settings.blur_sigma.low, settings.blur_sigma.high));
      }
      finish(settings, planes, out[next++]);
    }
  }
}

template <class Number>
void view_of(const EvalView& settings, const Image& image, Number* out) {
  thread_local Planes planes;
  if (settings.whole) {
    resized_crop(image, {0, 0, image.height, image.width}, settings.size, settings.size, false, planes);
    finish(settings, planes, out);
    return;
  }
  const bool upright = image.width <= image.height;
  const int64_t longer =
      int64_t{settings.resize} * std::max(image.height, image.width) / std::min(image.height, image.width);
  const int64_t height = upright ? longer : settings.resize, width = upright ? settings.resize : longer;
  const int size = settings.size;
  const auto middle = [size](int64_t side) {
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(side - size) / 2));
  };
  // The longer side may be far more than memory holds: only the middle is made.
  resized_window(image, {0, 0, image.height, image.width}, height, width, {middle(height), middle(width), size, size},
                 false, planes);
  finish(settings, planes, out);
}

}  // namespace

int MultiCrop::crops_per_image() const {
  int count = 0;
  for (const CropSpec& spec : crops) count += spec.count;
  return count;
}

Segments MultiCrop::segments(int64_t batch) const {
  Segments segments;
  for (const CropSpec& spec : crops) segments.push_back({batch * spec.count, spec.size, spec.size});
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
  for (const CropSpec& spec : crops) {
    if (spec.count < 1 || spec.size < 1 || spec.size > 4096) {
      throw Error(
          fmt::format("multi_crop: {}x{}: expected a positive count and a size from 1 to 4096", spec.count, spec.size));
    }
    if (!(spec.scale.low > 0 && spec.scale.low <= spec.scale.high && spec.scale.high <= 1)) {
      throw Error(fmt::format("multi_crop: {}x{}: expected a scale with 0 < low <= high <= 1, got {} to {}", spec.count,
                              spec.size, spec.scale.low, spec.scale.high));
    }
  }
  if (!(aspect.low > 0 && aspect.low <= aspect.high)) {
    throw Error(fmt::format("multi_crop: aspect: expected 0 < low <= high, got {} to {}", aspect.low, aspect.high));
  }
  if (!(blur_sigma.low >= 0 && blur_sigma.low <= blur_sigma.high && blur_sigma.high <= 100)) {
    throw Error(fmt::format("multi_crop: blur_sigma: expected 0 <= low <= high <= 100, got {} to {}", blur_sigma.low,
                            blur_sigma.high));
  }
  const auto in_range = [](const char* name, float value, float high) {
    if (!(value >= 0 && value <= high))
      throw Error(fmt::format("multi_crop: {}: expected 0 to {}, got {}", name, high, value));
  };
  in_range("flip_p", flip_p, 1);
  in_range("jitter_p", jitter_p, 1);
  in_range("grayscale_p", grayscale_p, 1);
  in_range("blur_p", blur_p, 1);
  in_range("brightness", brightness, 10);
  in_range("contrast", contrast, 10);
  in_range("saturation", saturation, 10);
  in_range("hue", hue, 0.5f);
  check_statistics(std);
}

MultiCrop multi_crop(std::vector<CropSpec> crops) {
  MultiCrop settings;
  settings.crops = std::move(crops);
  settings.check();
  return settings;
}

std::vector<CropSpec> parse_crops(std::string_view text) {
  const auto wrong = [&](std::string_view part) {
    return Error(
        fmt::format("crops \"{}\": cannot read \"{}\", expected something like 2x224+6x96 or "
                    "2x224@0.14-1+6x96@0.05-0.14",
                    text, part));
  };
  const auto number = [&](std::string_view& rest, std::string_view part, auto value) {
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (error != std::errc()) throw wrong(part);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    return value;
  };
  std::vector<CropSpec> crops;
  std::vector<bool> has_scale;
  for (size_t at = 0; at <= text.size();) {
    const size_t end = std::min(text.find('+', at), text.size());
    const std::string_view part = text.substr(at, end - at);
    std::string_view rest = part;
    const auto skip = [&](char expected) {
      if (rest.empty() || rest.front() != expected) throw wrong(part);
      rest.remove_prefix(1);
    };
    CropSpec spec;
    spec.count = number(rest, part, 0);
    skip('x');
    spec.size = number(rest, part, 0);
    has_scale.push_back(!rest.empty());
    if (!rest.empty()) {
      skip('@');
      spec.scale.low = number(rest, part, 0.0f);
      skip('-');
      spec.scale.high = number(rest, part, 0.0f);
      if (!rest.empty()) throw wrong(part);
    }
    crops.push_back(spec);
    at = end + 1;
  }
  for (size_t i = 0; i < crops.size(); ++i) {
    if (has_scale[i]) continue;
    crops[i].scale = crops.size() == 1 ? Range{0.08f, 1} : i == 0 ? Range{0.14f, 1} : Range{0.05f, 0.14f};
  }
  return multi_crop(std::move(crops)).crops;
}

void EvalView::check() const {
  if (size < 1 || resize < size || resize > 8192) {
    throw Error(fmt::format("EvalView: expected 0 < size <= resize <= 8192, got size {} and resize {}", size, resize));
  }
  check_statistics(std);
}

void make_crops(const MultiCrop& settings, const Image& image, Philox& random, std::span<float* const> out) {
  crops_of(settings, image, random, out);
}
void make_crops(const MultiCrop& settings, const Image& image, Philox& random, std::span<uint8_t* const> out) {
  crops_of(settings, image, random, out);
}

void make_view(const EvalView& settings, const Image& image, float* out) { view_of(settings, image, out); }
void make_view(const EvalView& settings, const Image& image, uint8_t* out) { view_of(settings, image, out); }

kernels::PixelScale pixel_scale(const MultiCrop& settings, int channels) { return scale_of(settings, channels); }
kernels::PixelScale pixel_scale(const EvalView& settings, int channels) { return scale_of(settings, channels); }

}  // namespace saccade::data
