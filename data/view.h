#pragma once

#include <saccade/core/random.h>
#include <saccade/data/augment.h>
#include <saccade/data/image.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/segments.h>

#include <array>
#include <cstdint>
#include <functional>
#include <span>

namespace saccade::data {

/// What is made of each image: crops for training, or the one view for evaluation. A value: a view of your own is this
/// struct with `crops` and `make` filled in, and goes wherever a MultiCrop or an EvalView goes:
///
///     data::View halves{.crops = {{2, 32, 32}}, .make = [](const auto& image, Philox&, const auto& put) {
///                         data::Planes half;
///                         for (const int left : {0, image.width / 2}) {
///                           resized_crop(image, {0, left, image.height, image.width / 2}, 32, 32, false, half);
///                           put(half);
///                         }
///                       }};
struct View {
  /// Takes one crop, of 8-bit pixels: a copy goes to its place, normalised.
  using Put = std::function<void(const Planes& crop)>;

  /// The crops of one image, in the order in which they are put: n of h x w pixels each. A crop has the channels of its
  /// image.
  Segments crops;
  /// Puts the crops of one image. It is called by several threads at once, and what it puts is to depend on nothing but
  /// the image and the random numbers, which are the sample's own: then batches have the same bits whatever makes them.
  /// An Error that it throws ends Loader::next() with the image's name.
  std::function<void(const Image& image, Philox& random, const Put& put)> make;
  /// Side (see DecodeOptions) that an image must have for no crop to lack detail: a JPEG that is far larger is decoded
  /// at a reduced size, which is quicker. 0: always in full.
  double useful_side = 0;
  /// Of red, green and blue in [0, 1] (ImageNet's). Gray images take the average of the three.
  std::array<float, 3> mean = {0.485f, 0.456f, 0.406f};
  std::array<float, 3> std = {0.229f, 0.224f, 0.225f};

  /// One segment a resolution, for `batch` images.
  Segments segments(int64_t batch) const;
  /// Throws saccade::Error when there is nothing to make, or a number is out of range.
  void check() const;
};

/// Makes all crops of one image, in their order, as normalised f32 (h, w, C).
/// Throws saccade::Error when `make` puts another number of crops than the view says, or one of another size.
/// @param random  the only source of chance
/// @param out     where each crop goes: as many pointers as there are crops
void make_crops(const View& view, const Image& image, Philox& random, std::span<float* const> out);
/// The same crops before they are normalised: bytes, which pixel_scale() makes the same numbers of.
void make_crops(const View& view, const Image& image, Philox& random, std::span<uint8_t* const> out);

/// What normalising is in this view, for images of 1 or 3 channels.
kernels::PixelScale pixel_scale(const View& view, int channels);

/// Throws saccade::Error unless all are positive.
void check_deviations(const std::array<float, 3>& std);

}  // namespace saccade::data
