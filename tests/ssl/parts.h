#pragma once

#include <saccade/core/batch.h>
#include <saccade/core/ops.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/trunk.h>

#include <cstdint>
#include <memory>
#include <vector>

/// Batches in parts, and a network to which it is all the same.
namespace saccade::testing {

/// A trunk without batch norm: each image's features are its own.
class PlainTrunk : public nn::Trunk {
 public:
  explicit PlainTrunk(uint64_t seed = 1) {
    const nn::Init init{.seed = seed};
    stem_ = add_child(
        "stem", std::make_shared<nn::Conv2d>(1, 16, nn::Conv2d::Options{.kernel = 3, .stride = 2}, init / "stem"));
    second_ = add_child(
        "second", std::make_shared<nn::Conv2d>(16, 24, nn::Conv2d::Options{.kernel = 3, .groups = 2}, init / "second"));
  }
  int64_t out_channels() const override { return 24; }

 protected:
  Tensor stem(const Tensor& images) override { return relu((*second_)(relu((*stem_)(images)))); }

 private:
  std::shared_ptr<Module> stem_, second_;
};

/// Rows [first, last) of each crop of a batch: a batch of so many of its images.
inline Batch part_of(const Batch& whole, int64_t first, int64_t last) {
  Batch part;
  Segments segments;
  for (const Segment& s : whole.images.segments()) segments.push_back({s.n / whole.size() * (last - first), s.h, s.w});
  const DeviceScope device(whole.images.device());
  const TagScope tag(Tag::batch);
  part.images = Tensor::images(segments, whole.images.dim(1));
  int64_t from = 0, to = 0;
  for (const Segment& s : whole.images.segments())
    for (int64_t crop = 0; crop < s.n / whole.size(); ++crop) {
      const int64_t pixels = s.h * s.w, size = last - first;
      part.images.slice(to, to + size * pixels)
          .copy_from(whole.images.slice(from + first * pixels, from + last * pixels));
      from += whole.size() * pixels;
      to += size * pixels;
    }
  part.indices.assign(whole.indices.begin() + first, whole.indices.begin() + last);
  return part;
}

inline std::vector<Batch> parts_of(const Batch& whole, int64_t count) {
  std::vector<Batch> parts;
  const int64_t size = whole.size() / count;
  for (int64_t i = 0; i < count; ++i) parts.push_back(part_of(whole, i * size, (i + 1) * size));
  return parts;
}

}  // namespace saccade::testing
