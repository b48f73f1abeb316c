#include <saccade/data/simd/pixel_loops.h>

#include <algorithm>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace saccade::data::SACCADE_ISA {
namespace {

// Sixteen 32-bit accumulators, in registers as wide as the instruction set has them.
#if defined(__AVX512BW__)
struct Lanes {
  __m512i v;
  static Lanes fill(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static Lanes load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
  void add_product(const uint8_t* pixels, Lanes weight) {
    const __m512i p = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels)));
    v = _mm512_add_epi32(v, _mm512_mullo_epi32(p, weight.v));
  }
  void store_pixels(uint8_t* out) const {
    const __m512i shifted = _mm512_srai_epi32(v, kWeightBits);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtusepi32_epi8(shifted));
  }
  /// The sum of the four pixels that the sixteen lanes make up.
  void store_pixel_sum(uint8_t* out) const {
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    _mm_storeu_si32(out, _mm_cvtusepi32_epi8(_mm_srai_epi32(sum, kWeightBits)));
  }
};
#elif defined(__AVX2__)
struct Lanes {
  __m256i v, w;
  static Lanes fill(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static Lanes load(const int32_t* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
  }
  void add_product(const uint8_t* pixels, Lanes weight) {
    const __m128i p = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels));
    v = _mm256_add_epi32(v, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(p), weight.v));
    w = _mm256_add_epi32(w, _mm256_mullo_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(p, 8)), weight.w));
  }
  void store_pixels(uint8_t* out) const {
    // The packing works within halves of 128 bits: the permutation puts the four-byte groups in order.
    const __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(v, kWeightBits), _mm256_srai_epi32(w, kWeightBits));
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 0, 0, 0, 0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(ordered));
  }
  void store_pixel_sum(uint8_t* out) const {
    const __m256i half = _mm256_add_epi32(v, w);
    const __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    const __m128i words = _mm_packs_epi32(_mm_srai_epi32(sum, kWeightBits), _mm_setzero_si128());
    _mm_storeu_si32(out, _mm_packus_epi16(words, words));
  }
};
#else
struct Lanes {
  int32_t v[16];
  static Lanes fill(int32_t x) {
    Lanes lanes;
    std::fill_n(lanes.v, 16, x);
    return lanes;
  }
  static Lanes load(const int32_t* p) {
    Lanes lanes;
    std::copy_n(p, 16, lanes.v);
    return lanes;
  }
  void add_product(const uint8_t* pixels, const Lanes& weight) {
    for (int i = 0; i < 16; ++i) v[i] += pixels[i] * weight.v[i];
  }
  static uint8_t to_pixel(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }
  void store_pixels(uint8_t* out) const {
    for (int i = 0; i < 16; ++i) out[i] = to_pixel(v[i]);
  }
  void store_pixel_sum(uint8_t* out) const {
    for (int i = 0; i < 4; ++i) out[i] = to_pixel(v[i] + v[i + 4] + v[i + 8] + v[i + 12]);
  }
};
#endif

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

void rgb_to_quads(const uint8_t* rgb, int width, uint8_t* quads) {
  int x = 0;
#if defined(__AVX2__)
  const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
  for (; x + 6 <= width; x += 4) {  // 16 bytes are read for the 12 that are used
    const __m128i p = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rgb + 3 * x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(quads + 4 * x), _mm_shuffle_epi8(p, spread));
  }
#endif
  for (; x < width; ++x) {
    for (int c = 0; c < 3; ++c) quads[4 * x + c] = rgb[3 * x + c];
    quads[4 * x + 3] = 0;
  }
}

void rows_to_quads(const uint8_t* const rows[4], int width, uint8_t* __restrict quads) {
  const uint8_t *a = rows[0], *b = rows[1], *c = rows[2], *d = rows[3];
  for (int x = 0; x < width; ++x) {
    quads[4 * x] = a[x];
    quads[4 * x + 1] = b[x];
    quads[4 * x + 2] = c[x];
    quads[4 * x + 3] = d[x];
  }
}

void filter_quads(const uint8_t* quads, const FilterTable& filter, uint8_t* out) {
  // The rounding constant may be in one of the four pixels only.
  alignas(64) static constexpr int32_t kStart[16] = {kHalf, kHalf, kHalf, kHalf};
  const Lanes start = Lanes::load(kStart);
  const int32_t* weights = filter.quads;
  for (int x = 0; x < filter.outputs; ++x) {
    const uint8_t* pixels = quads + 4 * filter.first[x];
    Lanes sum = start;
    for (int t = 0; t < filter.taps; t += 4, weights += 16) sum.add_product(pixels + 4 * t, Lanes::load(weights));
    sum.store_pixel_sum(out + 4 * x);
  }
}

void split_quads(const uint8_t* __restrict quads, int width, int count, uint8_t* const planes[4]) {
  for (int b = 0; b < count; ++b) {
    uint8_t* __restrict plane = planes[b];
    for (int x = 0; x < width; ++x) plane[x] = quads[4 * x + b];
  }
}

void filter_rows(const uint8_t* first_row, size_t stride, const int32_t* weights, int taps, int width, uint8_t* out) {
  for (int x = 0; x < width; x += 16) {
    Lanes sum = Lanes::fill(kHalf);
    const uint8_t* pixels = first_row + x;
    for (int t = 0; t < taps; ++t, pixels += stride) sum.add_product(pixels, Lanes::fill(weights[t]));
    sum.store_pixels(out + x);
  }
}

inline int gray_level(int r, int g, int b) { return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16; }

inline uint8_t blend(int from, int to, float factor) {
  const float value = static_cast<float>(from) + factor * static_cast<float>(to - from);
  return static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0f), 255.0f)));
}

void blend_constant(uint8_t* p, size_t count, int constant, float factor) {
  for (size_t i = 0; i < count; ++i) p[i] = blend(constant, p[i], factor);
}

void blend_gray(uint8_t* __restrict r, uint8_t* __restrict g, uint8_t* __restrict b, size_t count, float factor) {
  for (size_t i = 0; i < count; ++i) {
    const int level = gray_level(r[i], g[i], b[i]);
    r[i] = blend(level, r[i], factor);
    g[i] = blend(level, g[i], factor);
    b[i] = blend(level, b[i], factor);
  }
}

uint64_t sum(const uint8_t* p, size_t count) {
  uint64_t total = 0;
  for (size_t first = 0; first < count; first += 65536) {  // 32 bits hold the sum of as many pixels
    uint32_t part = 0;
    for (size_t i = first, end = std::min(count, first + 65536); i < end; ++i) part += p[i];
    total += part;
  }
  return total;
}

uint64_t sum_gray(const uint8_t* r, const uint8_t* g, const uint8_t* b, size_t count) {
  uint64_t total = 0;
  for (size_t first = 0; first < count; first += 65536) {
    uint32_t part = 0;
    for (size_t i = first, end = std::min(count, first + 65536); i < end; ++i) {
      part += static_cast<uint32_t>(gray_level(r[i], g[i], b[i]));
    }
    total += part;
  }
  return total;
}

void gray(uint8_t* __restrict r, uint8_t* __restrict g, uint8_t* __restrict b, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const auto level = static_cast<uint8_t>(gray_level(r[i], g[i], b[i]));
    r[i] = g[i] = b[i] = level;
  }
}

/// By value: the references of std::max become branches here.
inline int larger(int a, int b) { return a > b ? a : b; }

/// RGB -> HSV -> RGB in 8 bits with the rounding of Pillow: hue and saturation truncated, in the float and double steps
/// that decide about the last bit. Choices are products with 0 or 1, because the compiler runs only straight code over
/// vectors.
void shift_hue(uint8_t* __restrict rs, uint8_t* __restrict gs, uint8_t* __restrict bs, size_t count, int shift) {
  for (size_t i = 0; i < count; ++i) {
    const int r = rs[i], g = gs[i], b = bs[i];
    const int high = larger(r, larger(g, b)), low = -larger(-r, larger(-g, -b));
    const float chroma = static_cast<float>(larger(high - low, 1));
    const float rc = static_cast<float>(high - r) / chroma, gc = static_cast<float>(high - g) / chroma,
                bc = static_cast<float>(high - b) / chroma;
    const float h_red = bc - gc;
    const float h_green = static_cast<float>(2.0 + rc - bc), h_blue = static_cast<float>(4.0 + gc - rc);
    const int is_red = r == high, is_green = (g == high) & (1 - is_red), is_blue = 1 - is_red - is_green;
    const float sector = static_cast<float>(is_red) * h_red + static_cast<float>(is_green) * h_green +
                         static_cast<float>(is_blue) * h_blue;
    const double turn = sector / 6.0 + 1.0;
    const float hue = static_cast<float>(turn - (turn >= 1.0));
    const float saturation = static_cast<float>(high - low) / static_cast<float>(larger(high, 1));
    const int h8 = (static_cast<int>(hue * 255.0) + shift) & 255;
    const int s8 = static_cast<int>(saturation * 255.0);

    // Each channel is high * (1 - k) for a k that goes 0, rising, saturated, saturated, falling, 0 round the circle.
    const double position = h8 * 6.0 / 255.0;
    const int whole = static_cast<int>(position);
    const float f = static_cast<float>(position - whole);
    const int part = whole - 6 * (whole == 6);
    const float full = static_cast<float>(s8 / 255.0);
    const double k_full = full, k_rising = full * f, k_falling = full * (1.0 - f);
    const auto pick = [&](int falling, int full_a, int full_b, int rising) {
      return (part == falling) * k_falling + ((part == full_a) | (part == full_b)) * k_full +
             (part == rising) * k_rising;
    };
    const double k_red = pick(4, 2, 3, 1), k_green = pick(0, 4, 5, 3), k_blue = pick(2, 0, 1, 5);
    const double v = high;
    const int red = static_cast<int>(v * (1.0 - k_red) + 0.5);
    const int green = static_cast<int>(v * (1.0 - k_green) + 0.5);
    const int blue = static_cast<int>(v * (1.0 - k_blue) + 0.5);
    rs[i] = static_cast<uint8_t>(red);
    gs[i] = static_cast<uint8_t>(green);
    bs[i] = static_cast<uint8_t>(blue);
  }
}

void box_blur(const uint8_t* const* taps, int radius, uint32_t inner, uint32_t edge, int count,
              uint8_t* __restrict out) {
  const int last = 2 * radius + 2;
  const uint8_t* __restrict left = taps[0], * __restrict right = taps[last];
  const auto weighted = [&](uint32_t sum, int x) {
    const uint32_t ends = static_cast<uint32_t>(left[x]) + right[x];
    return static_cast<uint8_t>((sum * inner + ends * edge + (1u << 23)) >> 24);
  };
  const uint8_t* __restrict centre = taps[radius + 1];
  if (radius == 0) {
    for (int x = 0; x < count; ++x) out[x] = weighted(centre[x], x);
  } else if (radius == 1) {  // up to a sigma of 2.4
    const uint8_t* __restrict before = taps[1], * __restrict after = taps[3];
    for (int x = 0; x < count; ++x) {
      out[x] = weighted(static_cast<uint32_t>(before[x]) + centre[x] + after[x], x);
    }
  } else {
    for (int x = 0; x < count; ++x) {
      uint32_t sum = 0;
      for (int t = 1; t < last; ++t) sum += taps[t][x];
      out[x] = weighted(sum, x);
    }
  }
}

void interleave(const uint8_t* const planes[3], int channels, size_t count, const float* scale, const float* offset,
                float* __restrict out) {
  if (channels == 1) {
    const uint8_t* __restrict p = planes[0];
    const float a = scale[0], b = offset[0];
    for (size_t i = 0; i < count; ++i) out[i] = static_cast<float>(p[i]) * a + b;
    return;
  }
  const uint8_t* __restrict r = planes[0], * __restrict g = planes[1], * __restrict b = planes[2];
  const float a0 = scale[0], a1 = scale[1], a2 = scale[2], b0 = offset[0], b1 = offset[1], b2 = offset[2];
  for (size_t i = 0; i < count; ++i) {
    out[3 * i] = static_cast<float>(r[i]) * a0 + b0;
    out[3 * i + 1] = static_cast<float>(g[i]) * a1 + b1;
    out[3 * i + 2] = static_cast<float>(b[i]) * a2 + b2;
  }
}

}  // namespace

const PixelLoops pixel_loops = {
    .rgb_to_quads = rgb_to_quads,
    .rows_to_quads = rows_to_quads,
    .filter_quads = filter_quads,
    .split_quads = split_quads,
    .filter_rows = filter_rows,
    .blend_constant = blend_constant,
    .blend_gray = blend_gray,
    .sum = sum,
    .sum_gray = sum_gray,
    .gray = gray,
    .shift_hue = shift_hue,
    .box_blur = box_blur,
    .interleave = interleave,
};

}  // namespace saccade::data::SACCADE_ISA
