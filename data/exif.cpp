#include <saccade/data/exif.h>

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::data {

int exif_orientation(std::span<const uint8_t> exif) {
  using namespace std::string_view_literals;
  const auto begins_with = [&](std::string_view text) {
    return exif.size() >= text.size() && std::equal(text.begin(), text.end(), exif.begin(),
                                                    [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; });
  };
  if (begins_with("Exif\0\0"sv)) exif = exif.subspan(6);
  const bool little = begins_with("II*\0"sv);
  if ((!little && !begins_with("MM\0*"sv)) || exif.size() < 8) return 1;
  const auto number = [&](uint64_t at, unsigned count) {
    uint32_t value = 0;
    for (unsigned i = 0; i < count; ++i)
      value |= static_cast<uint32_t>(exif[at + i]) << (8 * (little ? i : count - 1 - i));
    return value;
  };
  const uint64_t directory = number(4, 4);
  if (directory + 2 > exif.size()) return 1;
  const uint64_t entries = std::min<uint64_t>(number(directory, 2), (exif.size() - directory - 2) / 12);
  uint32_t orientation = 1;
  for (uint64_t i = 0; i < entries; ++i) {
    const uint64_t entry = directory + 2 + 12 * i;  // tag, type, count, value
    const uint32_t type = number(entry + 2, 2);
    const bool is_short = type == 3 || type == 8, is_long = type == 4 || type == 9;
    if (number(entry, 2) == 0x0112 && (is_short || is_long) && number(entry + 4, 4) == 1)
      orientation = number(entry + 8, is_short ? 2 : 4);
  }
  return orientation >= 1 && orientation <= 8 ? static_cast<int>(orientation) : 1;
}

namespace {

/// out(y, x) is the pixel at from + y * down + x * right. In tiles, so that rows and columns both stay in the cache.
template <int kChannels>
void gather(const uint8_t* from, std::ptrdiff_t down, std::ptrdiff_t right, int height, int width, uint8_t* out) {
  constexpr int kTile = 32;
  for (int top = 0; top < height; top += kTile) {
    for (int left = 0; left < width; left += kTile) {
      for (int y = top; y < std::min(top + kTile, height); ++y) {
        uint8_t* to =
            out + (static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(left)) * kChannels;
        const uint8_t* pixel = from + y * down + left * right;
        for (int x = left; x < std::min(left + kTile, width); ++x, to += kChannels, pixel += right)
          std::copy_n(pixel, kChannels, to);
      }
    }
  }
}

}  // namespace

void make_upright(Image& image, int orientation) {
  if (orientation < 2 || orientation > 8) return;
  const bool right_to_left = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool bottom_to_top = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const bool rows_are_columns = orientation >= 5;
  std::ptrdiff_t right = image.channels, down = right * image.width;
  const uint8_t* from = image.pixels.data();
  if (right_to_left) {
    from += right * (image.width - 1);
    right = -right;
  }
  if (bottom_to_top) {
    from += down * (image.height - 1);
    down = -down;
  }
  if (rows_are_columns) {
    std::swap(right, down);
    std::swap(image.height, image.width);
  }
  std::vector<uint8_t> upright(image.pixels.size());
  const auto turn = image.channels == 3 ? gather<3> : gather<1>;
  turn(from, down, right, image.height, image.width, upright.data());
  image.pixels.swap(upright);
}

}  // namespace saccade::data
