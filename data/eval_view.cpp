#include <fmt/format.h>
#include <saccade/data/eval_view.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cmath>

namespace saccade::data {
namespace {

void show(const EvalView& settings, const Image& image, Planes& out) {
  const int size = settings.size;
  if (settings.whole) {
    resized_crop(image, {0, 0, image.height, image.width}, size, size, false, out);
    return;
  }
  const bool upright = image.width <= image.height;
  const int64_t longer =
      int64_t{settings.resize} * std::max(image.height, image.width) / std::min(image.height, image.width);
  const int64_t height = upright ? longer : settings.resize, width = upright ? settings.resize : longer;
  const auto middle = [size](int64_t side) {
    return static_cast<int64_t>(std::nearbyint(static_cast<double>(side - size) / 2));
  };
  // The longer side may be far more than memory holds: only the middle is made.
  resized_window(image, {0, 0, image.height, image.width}, height, width, {middle(height), middle(width), size, size},
                 false, out);
}

template <class Number>
void show_as(const EvalView& settings, const Image& image, Number* out) {
  Philox none(0);
  Number* const places[] = {out};
  make_crops(settings, image, none, places);
}

}  // namespace

void EvalView::check() const {
  if (size < 1 || resize < size || resize > 8192) {
    throw Error(fmt::format("EvalView: expected 0 < size <= resize <= 8192, got size {} and resize {}", size, resize));
  }
  check_deviations(std);
}

EvalView::operator View() const {
  check();
  return {.crops = segments(1),
          .make =
              [settings = *this](const Image& image, Philox&, const View::Put& put) {
                thread_local Planes planes;
                show(settings, image, planes);
                put(planes);
              },
          .mean = mean,
          .std = std};
}

void make_view(const EvalView& settings, const Image& image, float* out) { show_as(settings, image, out); }
void make_view(const EvalView& settings, const Image& image, uint8_t* out) { show_as(settings, image, out); }

}  // namespace saccade::data
