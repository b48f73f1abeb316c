#pragma once

#include <saccade/core/random.h>
#include <saccade/data/loader.h>
#include <saccade/data/multi_crop.h>

#include <cstdint>
#include <cstring>
#include <string>

namespace saccade::data {

/// Images of different sizes and contents, made when they are read.
inline Source made_up(int64_t count, int channels = 3) {
  Source source;
  source.name = "made up";
  source.count = count;
  source.channels = channels;
  for (int64_t i = 0; i < count; ++i) source.labels.push_back(static_cast<int>(i % 10));
  source.key = [](int64_t i) { return "image " + std::to_string(i); };
  source.read = [channels](int64_t i, double, Image& out) {
    Philox random(99, static_cast<uint64_t>(i));
    out.resize(20 + static_cast<int>(i % 17), 31 - static_cast<int>(i % 13), channels);
    for (auto& p : out.pixels) p = static_cast<uint8_t>(random.next_u32());
  };
  return source;
}

inline MultiCrop small_crops() { return multi_crop({{2, 16, {.14f, 1.f}}, {3, 8, {.05f, .14f}}}); }

inline bool same_bits(const Batch& a, const Batch& b) {
  return a.indices == b.indices && a.labels == b.labels && a.epoch == b.epoch && a.iteration == b.iteration &&
         a.images.segments() == b.images.segments() && a.images.bytes() == b.images.bytes() &&
         std::memcmp(a.images.raw(), b.images.raw(), a.images.bytes()) == 0;
}

}  // namespace saccade::data
