#pragma once

#include <saccade/data/source.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/network.h>

#include <string>
#include <vector>

namespace saccade::vision {

inline constexpr const char* kTiny = "y:d=2,w0=8,wa=8,wm=2,g=8,stem_width=8";

/// Squares of one gray each, of two classes, dark and bright by turns; sample 3 cannot be read.
inline data::Source grays(int64_t count = 8) {
  data::Source source;
  source.name = "grays";
  source.count = count;
  for (int64_t i = 0; i < count; ++i) source.labels.push_back(static_cast<int>(i % 2));
  source.class_names = {"dark", "bright"};
  source.key = [](int64_t i) { return "grays/" + std::to_string(i) + ", \"a\".png"; };
  source.read = [](int64_t i, double, data::Image& out) {
    if (i == 3) throw Error("grays/3: is broken");
    out.resize(20, 30, 3);
    for (auto& p : out.pixels) p = static_cast<uint8_t>(i % 2 == 0 ? 20 + i : 220 + i);
  };
  return source;
}

inline ssl::TrunkInfo tiny_info() {
  return {.trunk = kTiny, .size = 16, .mean = {.5f, .4f, .3f}, .std = {.2f, .3f, .4f}, .view = "whole"};
}

}  // namespace saccade::vision
