#pragma once

#include <saccade/data/view.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::data {

/// How some crops are changed, each field as the one of that name in MultiCrop, which holds where nothing is given.
struct CropSettings {
  std::optional<float> flip_p = {}, jitter_p = {}, brightness = {}, contrast = {}, saturation = {}, hue = {};
  std::optional<float> grayscale_p = {}, blur_p = {};
  std::optional<Range> blur_sigma = {};
  std::optional<float> solarize_p = {};
  std::optional<int> solarize_threshold = {};
  friend bool operator==(const CropSettings&, const CropSettings&) = default;
};

/// `count` crops of size x size pixels, each showing a part of the image whose area fraction is uniform in `scale`.
struct CropSpec {
  int count = 0;
  int size = 0;
  Range scale = {0.14f, 1.0f};
  CropSettings own = {};  ///< of these crops alone
  friend bool operator==(const CropSpec&, const CropSpec&) = default;
};

/// The multi-crop augmentation, with SwAV's settings (Caron et al., "Unsupervised learning of visual features by
/// contrasting cluster assignments", 2020): per crop, independently, a random resized crop, a mirror image, colour
/// jitter, grayscale, Gaussian blur, solarisation, each with its probability and in this order. Gray images are
/// jittered in brightness and contrast only.
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
  float solarize_p = 0.0f;
  int solarize_threshold = 128;  ///< see solarize()
  /// Of red, green and blue in [0, 1] (ImageNet's). Gray images take the average of the three.
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};
  std::array<float, 3> std = {0.229f, 0.224f, 0.225f};

  int crops_per_image() const;
  /// One segment a resolution, for `batch` images: neighbours in `crops` that have one size share a segment, whatever
  /// else they differ in.
  Segments segments(int64_t batch) const;
  /// Side (see DecodeOptions) below which some crop could be an enlargement.
  double useful_side() const;
  /// Throws saccade::Error with the field's name when a number is out of range.
  void check() const;
  /// Throws what check() throws.
  operator View() const;  // NOLINT(google-explicit-constructor): it is one
};

/// The augmentation with SwAV's settings for these crops, e.g. multi_crop({{2, 224, {.14, 1.}}, {6, 96, {.05, .14}}}).
MultiCrop multi_crop(std::vector<CropSpec> crops);

/// SimCLR's (Chen et al., "A simple framework for contrastive learning of visual representations", 2020): two crops of
/// 8 to 100 % of the area, with colour jitter of this strength, 1 for ImageNet and 0.5 for CIFAR, which has no blur
/// (blur_p = 0).
MultiCrop simclr_crops(int size, float strength = 1.0f);

/// DINO's (Caron et al., "Emerging properties in self-supervised vision transformers", 2021): jitter of half the
/// strength; the first crop always blurred, the second in one case of ten and solarised in two, all others in every
/// other case. What crops have of their own stays. (The paper resizes bicubically, which is not done here.)
MultiCrop dino_crops(std::vector<CropSpec> crops);

/// Reads crops as a setting: COUNTxSIZE, joined by +, such as "2x224+6x96"; each perhaps with its scale,
/// "2x224@0.14-1+6x96@0.05-0.14", and with settings of its own, "1x96@0.14-1,blur=0.1,solarize=0.2+...". These are
/// flip, jitter, gray, blur and solarize (probabilities), brightness, contrast, saturation and hue (strengths), sigma
/// (a range of pixels, 0.1-2) and threshold. Scales that are not given: 0.14-1 for the first resolution and 0.05-0.14
/// for the others, or 0.08-1 if there is but one. Throws saccade::Error.
std::vector<CropSpec> parse_crops(std::string_view text);
/// The text that parse_crops() makes these crops of: every scale is in it, and all settings that they have.
std::string to_text(const std::vector<CropSpec>& crops);

}  // namespace saccade::data
