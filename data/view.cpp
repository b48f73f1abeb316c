#include <fmt/format.h>
#include <saccade/data/view.h>
#include <saccade/kernels/error.h>

#include <functional>

namespace saccade::data {
namespace {

/// Of an image's channels: a gray one takes the average of the three.
struct Statistics {
  std::array<float, 3> mean, std;
  Statistics(const View& view, int channels) : mean(view.mean), std(view.std) {
    if (channels == 3) return;
    mean[0] = (mean[0] + mean[1] + mean[2]) / 3;
    std[0] = (std[0] + std[1] + std[2]) / 3;
  }
};

void write(const View& view, const Planes& crop, float* out) {
  const Statistics s(view, crop.channels);
  normalize(crop, s.mean.data(), s.std.data(), out);
}
void write(const View&, const Planes& crop, uint8_t* out) { interleave(crop, out); }

template <class Number>
void put_crops(const View& view, const Image& image, Philox& random, std::span<Number* const> out) {
  size_t count = 0;
  auto size = view.crops.begin();
  int64_t of_this_size = 0;
  const auto put = [&](const Planes& crop) {
    if (count == out.size()) throw Error(fmt::format("view: expected {} crops of an image, got more", count));
    if (of_this_size == size->n) ++size, of_this_size = 0;
    if (crop.height != size->h || crop.width != size->w || crop.channels != image.channels) {
      throw Error(fmt::format("view: crop {}: expected {} x {} pixels of {} channels, got {} x {} of {}", count + 1,
                              size->h, size->w, image.channels, crop.height, crop.width, crop.channels));
    }
    write(view, crop, out[count]);
    ++count, ++of_this_size;
  };
  view.make(image, random, std::cref(put));
  if (count != out.size()) throw Error(fmt::format("view: expected {} crops of an image, got {}", out.size(), count));
}

}  // namespace

Segments View::segments(int64_t batch) const {
  Segments all = crops;
  for (Segment& s : all) s.n *= batch;
  return all;
}

void View::check() const {
  if (!make) throw Error("view: expected a function that makes the crops of an image, got none");
  if (crops.empty()) throw Error("view: expected one crop at least, got none");
  for (const Segment& s : crops) {
    if (s.n < 1 || s.h < 1 || s.w < 1 || s.h > 8192 || s.w > 8192) {
      throw Error(fmt::format(
          "view: expected a positive number of crops, of 1 to 8192 pixels a side, got {} of {} x {}", s.n, s.h, s.w));
    }
  }
  if (!(useful_side >= 0))
    throw Error(fmt::format("view: useful_side: expected 0 or a number of pixels, got {}", useful_side));
  check_deviations(std);
}

void make_crops(const View& view, const Image& image, Philox& random, std::span<float* const> out) {
  put_crops(view, image, random, out);
}
void make_crops(const View& view, const Image& image, Philox& random, std::span<uint8_t* const> out) {
  put_crops(view, image, random, out);
}

kernels::PixelScale pixel_scale(const View& view, int channels) {
  const Statistics s(view, channels);
  return pixel_scale(s.mean.data(), s.std.data(), channels);
}

void check_deviations(const std::array<float, 3>& std) {
  for (const float s : std) {
    if (!(s > 0)) throw Error(fmt::format("std: expected a positive number, got {}", s));
  }
}

}  // namespace saccade::data
