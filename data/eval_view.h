#pragma once

#include <saccade/data/view.h>

#include <array>
#include <cstdint>

namespace saccade::data {

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
  /// Throws what check() throws.
  operator View() const;  // NOLINT(google-explicit-constructor): it is one
};

/// An image in that view, as size x size pixels of its channels: normalised, or bytes.
void make_view(const EvalView& settings, const Image& image, float* out);
void make_view(const EvalView& settings, const Image& image, uint8_t* out);

}  // namespace saccade::data
