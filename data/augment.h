#pragma once

#include <saccade/core/random.h>
#include <saccade/data/image.h>
#include <saccade/kernels/pixels.h>

#include <cstdint>
#include <vector>

/// Augmentations of 8-bit images. Each gives, to the last bit, what Pillow gives (and torchvision through
/// it): tests/data holds them to its results. They depend on nothing but their arguments, on every instruction set.
namespace saccade::data {

/// An image in work: one plane (H, W) a channel, 1 (gray) or 3 (red, green, blue), because colour operations then run
/// over whole vectors. Planes follow one another, with some bytes of slack behind the last for vector stores.
struct Planes {
  int height = 0, width = 0, channels = 0;
  std::vector<uint8_t> pixels;

  static constexpr size_t kSlack = 64;
  /// Takes a new size, keeping the memory where it suffices. The contents are then undefined.
  void resize(int h, int w, int c) {
    height = h;
    width = w;
    channels = c;
    const size_t needed = plane_size() * static_cast<size_t>(c) + kSlack;
    if (pixels.size() < needed) pixels.resize(needed);
  }
  size_t plane_size() const { return static_cast<size_t>(height) * static_cast<size_t>(width); }
  uint8_t* plane(int c) { return pixels.data() + plane_size() * static_cast<size_t>(c); }
  const uint8_t* plane(int c) const { return pixels.data() + plane_size() * static_cast<size_t>(c); }
};

/// A rectangle of pixels of an image.
struct Box {
  int top = 0, left = 0, height = 0, width = 0;
  friend bool operator==(const Box&, const Box&) = default;
};

/// A rectangle of pixels of an image that is never made whole, so that it may be of any size.
struct Window {
  int64_t top = 0, left = 0;
  int height = 0, width = 0;
};

struct Range {
  float low = 0, high = 0;
  friend bool operator==(const Range&, const Range&) = default;
};

/// Chooses the part of an image that a random resized crop shows: area fraction uniform in `scale`, aspect ratio
/// log-uniform in `aspect`, sides rounded half to even, position uniform; after ten tries that do not fit, a centre
/// crop, cut only where the image's own aspect lies outside the range (torchvision's RandomResizedCrop).
Box random_resized_box(int height, int width, Range scale, Range aspect, Philox& random);

/// Cuts `box` out of the image, scales it to (height, width) and optionally mirrors it left to right: bilinear with
/// antialiasing, i.e. a triangle filter as wide as the reduction, in 22-bit fixed point, horizontally and then
/// vertically, 8 bits in between. Equal to Pillow's image.crop(box).resize((width, height), BILINEAR)
/// (where only the height shrinks, Pillow from 12 on starts vertically and may differ by one level).
/// Throws saccade::Error when the box is empty or not inside the image, or the size is not positive.
void resized_crop(const Image& image, const Box& box, int height, int width, bool mirror, Planes& out);
/// The part `window` of what resized_crop() would give, bit for bit, for any (height, width): only what the window
/// shows is computed. Throws saccade::Error as it does, and for a window that is empty or not inside (height, width).
void resized_window(const Image& image, const Box& box, int64_t height, int64_t width, const Window& window,
                    bool mirror, Planes& out);

/// @name In place. Gray images keep their colour: saturation, hue and grayscale do nothing to them.
/// @{
/// black + factor * (image - black), clamped. factor >= 0.
void adjust_brightness(Planes& image, float factor);
/// m + factor * (image - m), clamped, m the mean gray level rounded to an integer.
void adjust_contrast(Planes& image, float factor);
/// gray + factor * (image - gray), clamped, gray the grayscale image.
void adjust_saturation(Planes& image, float factor);
/// Turns the colour circle by `shift` in [-0.5, 0.5] of it, in 8-bit HSV: (hue + trunc(255 * shift)) mod 256.
void adjust_hue(Planes& image, float shift);
/// Every channel becomes (19595 R + 38470 G + 7471 B + 32768) >> 16.
void to_gray(Planes& image);
/// Gaussian blur of standard deviation `sigma` in pixels, as three extended box blurs a direction (Gwosdek et al.,
/// "Theoretical foundations of Gaussian convolution by extended box filtering", 2011), rounded to 8 bits after each.
void gaussian_blur(Planes& image, float sigma);
/// Levels of `threshold` and above are turned over: 255 - level. 256: none.
void solarize(Planes& image, int threshold);
/// @}

/// What makes (byte / 255 - mean) / std of a byte.
/// @param mean,std  one number a channel, of 1 to 3
kernels::PixelScale pixel_scale(const float* mean, const float* std, int channels);
/// The image in such numbers, as f32 (H, W, C) rows.
void normalize(const Planes& image, const float* mean, const float* std, float* out);
/// The image as it is, as bytes (H, W, C).
void interleave(const Planes& image, uint8_t* out);

}  // namespace saccade::data
