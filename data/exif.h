#pragma once

#include <saccade/data/image.h>

#include <cstdint>
#include <span>

namespace saccade::data {

/// The orientation, 1 to 8, that EXIF data give in their first directory (tag 0x0112): a TIFF structure of either byte
/// order, with or without "Exif\0\0" in front. 1, upright, where they give none or are damaged. Reads nothing outside
/// of `exif` and looks at each entry once.
int exif_orientation(std::span<const uint8_t> exif);

/// Turns and mirrors an image that is stored in an orientation so that it is upright: orientation 6, say, by 90 degrees
/// clockwise. 1, and any number that is none of 2 to 8, leaves it.
void make_upright(Image& image, int orientation);

}  // namespace saccade::data
