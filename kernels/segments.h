#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace saccade {

/// One resolution of a ragged image batch: n images of h x w pixels, stored as n*h*w consecutive rows of channels
/// (NHWC).
struct Segment {
  int64_t n = 0, h = 0, w = 0;
  int64_t rows() const { return n * h * w; }
  friend bool operator==(const Segment&, const Segment&) = default;
};

/// The segments of a ragged image tensor, in storage order. A plain NHWC batch has one.
using Segments = std::vector<Segment>;

inline int64_t total_rows(std::span<const Segment> segments) {
  int64_t rows = 0;
  for (const Segment& s : segments) rows += s.rows();
  return rows;
}

inline int64_t total_images(std::span<const Segment> segments) {
  int64_t images = 0;
  for (const Segment& s : segments) images += s.n;
  return images;
}

}  // namespace saccade
