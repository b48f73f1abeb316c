#pragma once

/// @file
/// The flags of how images are opened.

#include <fmt/format.h>
#include <saccade/data/source.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <string>

namespace saccade::program {

struct ImageFlags {
  int64_t max_pixels = data::DecodeLimits{}.max_pixels;
  bool exif = true;

  void flags(CLI::App& app) {
    app.add_option("--max-pixels", max_pixels, "Images with more (width x height) are left out, and listed by name")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 33))
        ->capture_default_str()
        ->group("Images");
    app.add_option("--exif", exif, "Turn images upright as their EXIF orientation says")
        ->capture_default_str()
        ->group("Images");
  }
  /// @param channels  as data::OpenOptions has them
  data::OpenOptions options(int channels) const {
    return {.channels = channels,
            .limits = data::DecodeLimits::of_pixels(max_pixels),
            .exif = exif,
            .remark = [](const std::string& sentence) { fmt::print(stderr, "{}\n", sentence); }};
  }
};

}  // namespace saccade::program
