// What makes batches: random numbers, and crops of bytes to numbers. Memory: each byte once, each number once.

#include <saccade/kernels/cuda/random.h>
#include <saccade/kernels/cuda/vectors.h>

#include <algorithm>
#include <numeric>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256;

SACCADE_KERNEL(threads)
uniform(uint64_t key, uint64_t stream, uint64_t first_block, int64_t n, float* y, bool aligned) {
  const int64_t block = block_x() * threads + thread_x();
  if (block * 4 >= n) return;
  const RandomWords words = philox(key, stream, first_block + static_cast<uint64_t>(block));
  Floats<4> v;
  SACCADE_UNROLL
  for (int i = 0; i < 4; ++i) v.at[i] = static_cast<float>(words.at[i] >> 8) * 0x1p-24f;
  store_floats<4>(y, block * 4, {0, n, aligned}, v);
}

/// 53 bits of two words, in [0, 1).
SACCADE_DEVICE double uniform_of(uint32_t low, uint32_t high) {
  return static_cast<double>((low | static_cast<uint64_t>(high) << 32) >> 11) * 0x1p-53;
}

SACCADE_KERNEL(threads) normal(uint64_t key, uint64_t stream, uint64_t first_block, int64_t n, float* y) {
  const int64_t i = block_x() * threads + thread_x();
  if (i >= n) return;
  const RandomWords words = philox(key, stream, first_block + static_cast<uint64_t>(i));
  const double u = 1. - uniform_of(words.at[0], words.at[1]);
  const double angle = 6.283185307179586 * uniform_of(words.at[2], words.at[3]);
  store(y + i, static_cast<float>(sqrt(-2. * log(u)) * cos(angle)));
}

constexpr int most_bytes = 16 << 10, most_lines = 256;

/// A block takes some lines: bytes to shared memory, then numbers in vectors of four, pixels in reverse where the crop
/// is mirrored.
template <class T>
SACCADE_KERNEL(threads)
lines_to_numbers(int64_t all_lines, int lines_each, int64_t height, int width, int channels, const uint8_t* crops,
                 const uint8_t* mirror, PixelScale scale, T* y, bool aligned) {
  SACCADE_SHARED(uint8_t, bytes, most_bytes);
  SACCADE_SHARED(uint8_t, mirrored, most_lines);
  const int64_t first_line = block_x() * lines_each, left = all_lines - first_line;
  const int lines = static_cast<int>(left < lines_each ? left : lines_each), line_bytes = width * channels;
  const int n = lines * line_bytes;
  const int64_t begin = first_line * line_bytes;
  const uint8_t* from = crops + begin;
  const int in_words = reinterpret_cast<uintptr_t>(from) % 4 == 0 ? n / 4 : 0;
  for (int i = thread_x(); i < in_words; i += threads) {
    store(reinterpret_cast<uint32_t*>(bytes) + i, load(reinterpret_cast<const uint32_t*>(from) + i));
  }
  for (int i = in_words * 4 + thread_x(); i < n; i += threads) store(bytes + i, load(from + i));
  for (int i = thread_x(); i < lines; i += threads) {
    store(mirrored + i, mirror != nullptr ? load(mirror + (first_line + i) / height) : uint8_t{0});
  }
  sync_block();
  const int64_t first = begin / 4 * 4;  // the lines may begin within a vector
  for (int64_t at = first + thread_x() * 4; at < begin + n; at += threads * 4) {
    Floats<4> v{};
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int i = static_cast<int>(at + j - begin);
      if (i < 0 || i >= n) continue;
      const int line = i / line_bytes, in_line = i % line_bytes, c = in_line % channels;
      const int source =
          load(mirrored + line) != 0 ? line * line_bytes + (width - 1 - in_line / channels) * channels + c : i;
      // Chosen by comparison: an argument that is indexed would have to live in memory.
      const float factor = c == 0   ? scale.factor[0]
                           : c == 1 ? scale.factor[1]
                           : c == 2 ? scale.factor[2]
                                    : scale.factor[3];
      const float offset = c == 0   ? scale.offset[0]
                           : c == 1 ? scale.offset[1]
                           : c == 2 ? scale.offset[2]
                                    : scale.offset[3];
      v.at[j] = rounded_product(static_cast<float>(load(bytes + source)), factor) + offset;
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

void philox_uniform(Stream stream, uint64_t key, uint64_t sequence, uint64_t block, int64_t n, float* y) {
  if (n == 0) return;
  launch<uniform>(stream, {blocks(divide_up(n, 4 * threads))}, {threads}, 0, key, sequence, block, n, y, aligned(y));
}

void philox_normal(Stream stream, uint64_t key, uint64_t sequence, uint64_t block, int64_t n, float* y) {
  if (n == 0) return;
  launch<normal>(stream, {blocks(divide_up(n, threads))}, {threads}, 0, key, sequence, block, n, y);
}

void crops_to_batch(Stream stream, int64_t images, int64_t height, int64_t width, int64_t channels,
                    const uint8_t* crops, const uint8_t* mirror, const PixelScale& scale, DType dtype, void* y) {
  if (channels < 1 || channels > 4 || width * channels > most_bytes) {
    throw Error("crops_to_batch: expected 1 to 4 channels and lines of at most " + std::to_string(most_bytes) +
                " bytes, got " + std::to_string(channels) + " channels and lines of " +
                std::to_string(width * channels));
  }
  if (images * height * width == 0) return;
  with_storage(dtype, "crops_to_batch", [&]<class T>(Type<T>) {
    const int64_t lines = images * height;
    const int each = lines_of_block(width * channels);
    launch<lines_to_numbers<T>>(stream, {blocks(divide_up(lines, each))}, {threads}, 0, lines, each, height,
                                static_cast<int>(width), static_cast<int>(channels), crops, mirror, scale,
                                static_cast<T*>(y), aligned(y));
  });
}

}  // namespace saccade::kernels::cuda
