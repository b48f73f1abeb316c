// What makes batches: crops of bytes to numbers. Memory: each byte once, each number once.

#include <saccade/kernels/cuda/vectors.h>

#include <algorithm>
#include <numeric>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256;

constexpr int most_bytes = 16 << 10, most_lines = 256;

/// A block takes some lines: bytes to shared memory, then numbers in vectors of four.
template <class T>
SACCADE_KERNEL(threads)
lines_to_numbers(int64_t all_lines, int lines_each, int line_bytes, int channels, const uint8_t* crops,
                 PixelScale scale, T* y, bool aligned) {
  SACCADE_SHARED(uint8_t, bytes, most_bytes);
  const int64_t first_line = block_x() * lines_each, left = all_lines - first_line;
  const int n = static_cast<int>(left < lines_each ? left : lines_each) * line_bytes;
  const int64_t begin = first_line * line_bytes;
  const uint8_t* from = crops + begin;
  const int in_words = reinterpret_cast<uintptr_t>(from) % 4 == 0 ? n / 4 : 0;
  for (int i = thread_x(); i < in_words; i += threads) {
    store(reinterpret_cast<uint32_t*>(bytes) + i, load(reinterpret_cast<const uint32_t*>(from) + i));
  }
  for (int i = in_words * 4 + thread_x(); i < n; i += threads) store(bytes + i, load(from + i));
  sync_block();
  const int64_t first = begin / 4 * 4;  // the lines may begin within a vector
  for (int64_t at = first + thread_x() * 4; at < begin + n; at += threads * 4) {
    Floats<4> v{};
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int i = static_cast<int>(at + j - begin);
      if (i < 0 || i >= n) continue;
      const int c = i % line_bytes % channels;
      // Chosen by comparison: an argument that is indexed would have to live in memory.
      const float factor = c == 0   ? scale.factor[0]
                           : c == 1 ? scale.factor[1]
                           : c == 2 ? scale.factor[2]
                                    : scale.factor[3];
      const float offset = c == 0   ? scale.offset[0]
                           : c == 1 ? scale.offset[1]
                           : c == 2 ? scale.offset[2]
                                    : scale.offset[3];
      v.at[j] = rounded_product(static_cast<float>(load(bytes + i)), factor) + offset;
    }
    store_floats<4>(y, at, {begin, begin + n, aligned}, v);
  }
}

/// So many that a block's bytes begin at a multiple of 16, and it has enough to do.
int lines_of_block(int64_t line_bytes) {
  const int64_t fewest = 16 / std::gcd(line_bytes, int64_t{16});
  if (fewest * line_bytes > most_bytes) return 1;
  const int64_t lines = fewest * std::max<int64_t>(1, 4096 / (fewest * line_bytes));
  return static_cast<int>(std::min<int64_t>(lines, most_lines));
}

}  // namespace

void run(Stream stream, const CropsToBatch& c) {
  const uint8_t* bytes = c.bytes;
  auto* to = static_cast<unsigned char*>(c.y);
  for (const Segment& s : c.segments) {
    const int64_t line_bytes = s.w * c.channels, lines = s.n * s.h;
    if (c.channels < 1 || c.channels > 4 || line_bytes > most_bytes) {
      throw Error("crops_to_batch: expected 1 to 4 channels and lines of at most " + std::to_string(most_bytes) +
                  " bytes, got " + std::to_string(c.channels) + " channels and lines of " + std::to_string(line_bytes));
    }
    if (lines * s.w == 0) continue;
    with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
      const int each = lines_of_block(line_bytes);
      launch<lines_to_numbers<T>>(stream, {blocks(divide_up(lines, each))}, {threads}, 0, lines, each,
                                  static_cast<int>(line_bytes), static_cast<int>(c.channels), bytes, c.scale,
                                  reinterpret_cast<T*>(to), aligned(to));
    });
    bytes += lines * line_bytes;
    to += bytes_of(c.dtype, lines * line_bytes);
  }
}

}  // namespace saccade::kernels::cuda
