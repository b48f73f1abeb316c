#pragma once

#include <saccade/core/random.h>
#include <saccade/data/augment.h>
#include <saccade/data/image.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/segments.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// `count` crops of size x size pixels, each showing a part of the image whose area fraction is uniform in `scale`.
struct CropSpec {
  int count = 0;
  int size = 0;
  Range scale = {0.14f, 1.0f};
};

/// SwAV's multi-crop augmentation (Caron et al., "Unsupervised learning of visual features by contrasting cluster
/// assignments", 2020): per crop, independently, a random resized crop, a mirror image, colour jitter, grayscale,
/// Gaussian blur, each with its probability and in this order. Gray images are jittered in brightness and contrast
/// only.
struct MultiCrop {
  std::vector<CropSpec> crops;
  Range aspect = {3.0f / 4.0f, 4.0f / 3.0f};
  float flip_p = 0.5f;
  /// Colour jitter: factors of brightness, contrast and saturation are uniform in [max(0, 1 - s), 1 + s], the turn of
  /// the hue in [-hue, hue]; the four are applied in random order.
  float jitter_p = 0.8f;
  float brightness = 0.8f, contrast = 0.8f, saturation = 0.8f, hue = 0.2f;
  float grayscale_p = 0.2f;
  float blur_p = 0.5f;
  Range blur_sigma = {0.1f, 2.0f};  ///< pixels of the crop
  /// Of red, green and blue in [0, 1] (ImageNet's). Gray images take the average of the three.
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};
  std::array<float, 3> std = {0.229f, 0.224f, 0.225f};

  int crops_per_image() const;
  /// One segment a resolution, for `batch` images.
  Segments segments(int64_t batch) const;
  /// Side (see DecodeOptions) below which some crop could be an enlargement.
  double useful_side() const;
  /// Throws saccade::Error with the field's name when a number is out of range.
  void check() const;
};

/// The augmentation with SwAV's settings for these crops, e.g. multi_crop({{2, 224, {.14, 1.}}, {6, 96, {.05, .14}}}).
MultiCrop multi_crop(std::vector<CropSpec> crops);

/// Reads "2x224+6x96", or with scales "2x224@0.14-1+6x96@0.05-0.14". Without them: 0.14-1 for the first resolution and
/// 0.05-0.14 for the others, or 0.08-1 if there is but one. Throws saccade::Error.
std::vector<CropSpec> parse_crops(std::string_view text);

/// Makes all crops of one image, in the order of `crops`, as normalised f32 (size, size, C).
/// @param random  the only source of chance
/// @param out     where each crop goes: crops_per_image() pointers
void make_crops(const MultiCrop& settings, const Image& image, Philox& random, std::span<float* const> out);
/// The same crops before they are normalised: bytes, which pixel_scale() makes the same numbers of.
void make_crops(const MultiCrop& settings, const Image& image, Philox& random, std::span<uint8_t* const> out);

/// What an image looks like for evaluation: the shorter side scaled to `resize`, the middle size x size pixels of that,
/// normalised. An image of size x size pixels with resize = size is taken as it is.
struct EvalView {
  int resize = 256;
  int size = 224;
  bool whole = false;  ///< all of the image scaled to size x size pixels, whatever its shape; resize is not looked at
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};
  std::array<float, 3> std = {0.229f, 0.224f, 0.225f};

  Segments segments(int64_t batch) const { return {{batch, size, size}}; }
  void check() const;
};

void make_view(const EvalView& settings, const Image& image, float* out);
void make_view(const EvalView& settings, const Image& image, uint8_t* out);

/// What normalising is with these settings, for images of 1 or 3 channels.
kernels::PixelScale pixel_scale(const MultiCrop& settings, int channels);
kernels::PixelScale pixel_scale(const EvalView& settings, int channels);

}  // namespace saccade::data
