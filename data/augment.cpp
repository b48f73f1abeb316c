#include <fmt/format.h>
#include <saccade/data/augment.h>
#include <saccade/data/simd/pixel_loops.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace saccade::data {

const PixelLoops& pixel_loops() {
  switch (kernels::cpu_isa()) {
    case kernels::Isa::avx512:
      return avx512::pixel_loops;
    case kernels::Isa::avx2:
      return avx2::pixel_loops;
    case kernels::Isa::baseline:
      break;
  }
  return baseline::pixel_loops;
}

namespace {

/// Memory of one thread, kept from image to image.
struct Scratch {
  std::vector<double> weights;
  std::vector<int32_t> first[2], fixed[2], quads;
  std::vector<uint8_t> quad_row, filtered, rows, line[2];
  std::vector<const uint8_t*> taps;
};

Scratch& scratch() {
  thread_local Scratch memory;
  return memory;
}

std::array<const uint8_t*, 3> planes_of(const Planes& image) {
  std::array<const uint8_t*, 3> planes{};
  for (int c = 0; c < image.channels; ++c) planes[static_cast<size_t>(c)] = image.plane(c);
  return planes;
}

template <class T>
T* at_least(std::vector<T>& memory, size_t count) {
  if (memory.size() < count) memory.resize(count);
  return memory.data();
}

/// The filter of some outputs, and the range of inputs that they see, from which table.first counts.
struct Filter {
  FilterTable table;
  int low, high;
};

/// Weights of a triangle as wide as the reduction (but at least one pixel each side), normalised in double and rounded
/// to fixed point, as Pillow does, for `count` of the outputs from `begin` on. Direction 0 is down, 1 across, which
/// also gets each weight four times.
Filter triangle_filter(int inputs, int64_t outputs, int64_t begin, int count, bool mirror, int direction) {
  Scratch& memory = scratch();
  const double scale = static_cast<double>(inputs) / static_cast<double>(outputs);
  const double support = std::max(scale, 1.0);
  int taps = static_cast<int>(2 * support) + 1;
  int padded = count;
  if (direction == 1) {
    taps = (taps + 3) / 4 * 4;
    padded = (count + 3) / 4 * 4;
  }
  int32_t* first = at_least(memory.first[direction], static_cast<size_t>(padded));
  int32_t* fixed = at_least(memory.fixed[direction], static_cast<size_t>(padded) * taps);
  double* weights = at_least(memory.weights, static_cast<size_t>(taps));
  const double inverse = 1.0 / support;
  int lowest = inputs, highest = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t output = mirror ? outputs - 1 - (begin + i) : begin + i;
    const double centre = (static_cast<double>(output) + 0.5) * scale;
    const int low = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int seen = std::min(static_cast<int>(centre + support + 0.5), inputs) - low;
    double total = 0;
    for (int t = 0; t < seen; ++t) {
      weights[t] = std::max(1.0 - std::abs((t + low - centre + 0.5) * inverse), 0.0);
      total += weights[t];
    }
    first[i] = low;
    lowest = std::min(lowest, low);
    highest = std::max(highest, low + seen);
    int32_t* row = fixed + static_cast<size_t>(i) * taps;
    for (int t = 0; t < seen; ++t) row[t] = static_cast<int32_t>(0.5 + weights[t] / total * (1 << kWeightBits));
    std::fill(row + seen, row + taps, 0);
  }
  for (int i = 0; i < count; ++i) first[i] -= lowest;
  std::fill(first + count, first + padded, 0);
  std::fill(fixed + static_cast<size_t>(count) * taps, fixed + static_cast<size_t>(padded) * taps, 0);
  int32_t* quads = nullptr;
  if (direction == 1) {
    const size_t weight_count = static_cast<size_t>(padded) * taps;
    quads = at_least(memory.quads, weight_count * 4);
    for (size_t i = 0; i < weight_count; ++i) std::fill_n(quads + 4 * i, 4, fixed[i]);
  }
  return {{first, fixed, quads, taps, padded}, lowest, highest};
}

/// Box radius of an extended box blur of variance sigma^2 / passes. Single precision where Pillow has it.
float box_radius(float sigma, int passes) {
  const float variance = sigma * sigma / static_cast<float>(passes);
  const float length = static_cast<float>(std::sqrt(12.0 * variance + 1.0));
  const float whole = static_cast<float>(std::floor((length - 1.0) / 2.0));
  float part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  part /= 6 * (variance - (whole + 1) * (whole + 1));
  return whole + part;
}

}  // namespace

Box random_resized_box(int height, int width, Range scale, Range aspect, Philox& random) {
  const double area = static_cast<double>(height) * width;
  const double log_low = std::log(static_cast<double>(aspect.low)),
               log_high = std::log(static_cast<double>(aspect.high));
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * (scale.low + (static_cast<double>(scale.high) - scale.low) * random.uniform_double());
    const double ratio = std::exp(log_low + (log_high - log_low) * random.uniform_double());
    const double w = std::nearbyint(std::sqrt(target * ratio)), h = std::nearbyint(std::sqrt(target / ratio));
    if (w > 0 && w <= width && h > 0 && h <= height) {
      Box box{0, 0, static_cast<int>(h), static_cast<int>(w)};
      box.top = static_cast<int>(random.below(static_cast<uint32_t>(height - box.height + 1)));
      box.left = static_cast<int>(random.below(static_cast<uint32_t>(width - box.width + 1)));
      return box;
    }
  }
  Box box{0, 0, height, width};
  const double ratio = static_cast<double>(width) / height;
  if (ratio < aspect.low) {
    box.height =
        std::min(height, std::max(1, static_cast<int>(std::nearbyint(width / static_cast<double>(aspect.low)))));
  } else if (ratio > aspect.high) {
    box.width =
        std::min(width, std::max(1, static_cast<int>(std::nearbyint(height * static_cast<double>(aspect.high)))));
  }
  box.top = (height - box.height) / 2;
  box.left = (width - box.width) / 2;
  return box;
}

void resized_crop(const Image& image, const Box& box, int height, int width, bool mirror, Planes& out) {
  resized_window(image, box, height, width, {0, 0, height, width}, mirror, out);
}

void resized_window(const Image& image, const Box& box, int64_t height, int64_t width, const Window& window,
                    bool mirror, Planes& out) {
  if (box.height <= 0 || box.width <= 0 || box.top < 0 || box.left < 0 || box.top + box.height > image.height ||
      box.left + box.width > image.width) {
    throw Error(fmt::format("resized_crop: a box of {} x {} at ({}, {}) is not inside an image of {} x {}", box.height,
                            box.width, box.top, box.left, image.height, image.width));
  }
  if (height <= 0 || width <= 0)
    throw Error(fmt::format("resized_crop: expected a positive size, got {} x {}", height, width));
  if (window.height <= 0 || window.width <= 0 || window.top < 0 || window.left < 0 ||
      window.top > height - window.height || window.left > width - window.width) {
    throw Error(fmt::format("resized_window: {} x {} at ({}, {}) is not inside {} x {}", window.height, window.width,
                            window.top, window.left, height, width));
  }
  const int channels = image.channels;
  if (channels != 1 && channels != 3)
    throw Error(fmt::format("resized_crop: expected 1 or 3 channels, got {}", channels));

  const PixelLoops& loops = pixel_loops();
  Scratch& memory = scratch();
  const Filter across = triangle_filter(box.width, width, window.left, window.width, mirror, 1);
  const Filter down = triangle_filter(box.height, height, window.top, window.height, false, 0);
  const int seen_rows = down.high - down.low, seen_columns = across.high - across.low;

  // Horizontally, in pixels of four bytes: the channels of a colour row, or four gray rows at a time. The result is
  // planes of (seen_rows, window.width), in rows padded for the vector loads of the second pass.
  const size_t stride = (static_cast<size_t>(window.width) + 15) / 16 * 16;
  const size_t plane = stride * static_cast<size_t>(seen_rows);
  uint8_t* rows = at_least(memory.rows, plane * static_cast<size_t>(channels));
  const size_t padded = 4 * (static_cast<size_t>(seen_columns) + across.table.taps);
  if (memory.quad_row.size() < padded) memory.quad_row.resize(padded, 0);
  uint8_t* quads = memory.quad_row.data();
  uint8_t* filtered = at_least(memory.filtered, 4 * static_cast<size_t>(across.table.outputs));
  const int step = channels == 3 ? 1 : 4;
  for (int y = 0; y < seen_rows; y += step) {
    const auto source = [&](int row) {
      return image.row(box.top + down.low + std::min(row, seen_rows - 1)) +
             static_cast<size_t>(box.left + across.low) * channels;
    };
    uint8_t* to[4] = {};
    int count;
    if (channels == 3) {
      count = 3;
      for (int c = 0; c < 3; ++c) to[c] = rows + c * plane + y * stride;
      loops.rgb_to_quads(source(y), seen_columns, quads);
    } else {
      count = std::min(4, seen_rows - y);
      for (int i = 0; i < count; ++i) to[i] = rows + (y + i) * stride;
      const uint8_t* const from[4] = {source(y), source(y + 1), source(y + 2), source(y + 3)};
      loops.rows_to_quads(from, seen_columns, quads);
    }
    loops.filter_quads(quads, across.table, filtered);
    loops.split_quads(filtered, window.width, count, to);
  }

  // Vertically, into the planes. Rows are written in order, so what a vector store spills over the end of one is
  // overwritten by the next, and the last row's spill falls into the slack. Taps beyond the last row have weight 0:
  // they are left out.
  out.resize(window.height, window.width, channels);
  for (int c = 0; c < channels; ++c) {
    for (int y = 0; y < window.height; ++y) {
      const int taps = std::min(down.table.taps, seen_rows - down.table.first[y]);
      loops.filter_rows(rows + c * plane + down.table.first[y] * stride, stride,
                        down.table.weights + static_cast<size_t>(y) * down.table.taps, taps, window.width,
                        out.plane(c) + static_cast<size_t>(y) * window.width);
    }
  }
}

void adjust_brightness(Planes& image, float factor) {
  pixel_loops().blend_constant(image.plane(0), image.plane_size() * image.channels, 0, factor);
}

void adjust_contrast(Planes& image, float factor) {
  const PixelLoops& loops = pixel_loops();
  const size_t count = image.plane_size();
  if (count == 0) return;
  const uint64_t sum = image.channels == 3 ? loops.sum_gray(image.plane(0), image.plane(1), image.plane(2), count)
                                           : loops.sum(image.plane(0), count);
  const int mean = static_cast<int>(static_cast<double>(sum) / static_cast<double>(count) + 0.5);
  loops.blend_constant(image.plane(0), count * image.channels, mean, factor);
}

void adjust_saturation(Planes& image, float factor) {
  if (image.channels != 3) return;
  pixel_loops().blend_gray(image.plane(0), image.plane(1), image.plane(2), image.plane_size(), factor);
}

void adjust_hue(Planes& image, float shift) {
  if (image.channels != 3) return;
  const int steps = static_cast<int>(static_cast<double>(shift) * 255);
  pixel_loops().shift_hue(image.plane(0), image.plane(1), image.plane(2), image.plane_size(), steps);
}

void to_gray(Planes& image) {
  if (image.channels != 3) return;
  pixel_loops().gray(image.plane(0), image.plane(1), image.plane(2), image.plane_size());
}

void gaussian_blur(Planes& image, float sigma) {
  constexpr int kPasses = 3;
  const float radius = box_radius(sigma, kPasses);
  if (radius == 0) return;
  const int whole = static_cast<int>(radius);
  const uint32_t inner = static_cast<uint32_t>(static_cast<float>(1 << 24) / (radius * 2 + 1));
  const uint32_t edge = ((1u << 24) - static_cast<uint32_t>(whole * 2 + 1) * inner) / 2;
  const PixelLoops& loops = pixel_loops();
  Scratch& memory = scratch();
  const int height = image.height, width = image.width, pad = whole + 1, tap_count = 2 * whole + 3;
  const uint8_t** taps = at_least(memory.taps, static_cast<size_t>(tap_count));

  // Along each row: three passes between two lines that have the edge pixel repeated on both sides.
  uint8_t* lines[2];
  for (int i : {0, 1}) lines[i] = at_least(memory.line[i], static_cast<size_t>(width) + 2 * pad);
  const size_t row_count = static_cast<size_t>(height) * image.channels;
  for (size_t y = 0; y < row_count; ++y) {
    uint8_t* row = image.plane(0) + y * width;
    std::copy_n(row, width, lines[0] + pad);
    for (int pass = 0; pass < kPasses; ++pass) {
      uint8_t* from = lines[pass % 2];
      std::fill_n(from, pad, from[pad]);
      std::fill_n(from + pad + width, pad, from[pad + width - 1]);
      for (int t = 0; t < tap_count; ++t) taps[t] = from + t;
      loops.box_blur(taps, whole, inner, edge, width, pass == kPasses - 1 ? row : lines[(pass + 1) % 2] + pad);
    }
  }

  // Down the columns, a whole row at a time, between the plane and a copy of it.
  uint8_t* copy = at_least(memory.rows, image.plane_size());
  for (int c = 0; c < image.channels; ++c) {
    uint8_t* planes[2] = {copy, image.plane(c)};
    std::copy_n(image.plane(c), image.plane_size(), copy);
    for (int pass = 0; pass < kPasses; ++pass) {  // an odd number, so that the last one ends in the image
      const uint8_t* from = planes[pass % 2];
      uint8_t* to = planes[1 - pass % 2];
      for (int y = 0; y < height; ++y) {
        for (int t = 0; t < tap_count; ++t) {
          taps[t] = from + static_cast<size_t>(std::clamp(y + t - pad, 0, height - 1)) * width;
        }
        loops.box_blur(taps, whole, inner, edge, width, to + static_cast<size_t>(y) * width);
      }
    }
  }
}

void solarize(Planes& image, int threshold) {
  uint8_t* p = image.plane(0);
  for (size_t i = 0, count = image.plane_size() * image.channels; i < count; ++i)
    p[i] = static_cast<uint8_t>(p[i] < threshold ? p[i] : 255 - p[i]);
}

kernels::PixelScale pixel_scale(const float* mean, const float* std, int channels) {
  kernels::PixelScale scale;
  for (int c = 0; c < channels; ++c) {
    scale.factor[c] = 1.0f / (255.0f * std[c]);
    scale.offset[c] = -mean[c] / std[c];
  }
  return scale;
}

void normalize(const Planes& image, const float* mean, const float* std, float* out) {
  const kernels::PixelScale scale = pixel_scale(mean, std, image.channels);
  const auto planes = planes_of(image);
  pixel_loops().interleave(planes.data(), image.channels, image.plane_size(), scale.factor, scale.offset, out);
}

void interleave(const Planes& image, uint8_t* out) {
  const auto planes = planes_of(image);
  pixel_loops().interleave_bytes(planes.data(), image.channels, image.plane_size(), out);
}

}  // namespace saccade::data
