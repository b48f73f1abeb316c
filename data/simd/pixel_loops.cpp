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
  /// The sixteen lanes are four pixels: folded() begins to sum these, and store_pixel_sums() ends it for four at once.
  Lanes folded() const { return *this; }
  static void store_pixel_sums(Lanes a, Lanes b, Lanes c, Lanes d, uint8_t* out) {
    const __m512i ab = _mm512_add_epi32(_mm512_shuffle_i32x4(a.v, b.v, 0x44), _mm512_shuffle_i32x4(a.v, b.v, 0xee));
    const __m512i cd = _mm512_add_epi32(_mm512_shuffle_i32x4(c.v, d.v, 0x44), _mm512_shuffle_i32x4(c.v, d.v, 0xee));
    Lanes{_mm512_add_epi32(_mm512_shuffle_i32x4(ab, cd, 0x88), _mm512_shuffle_i32x4(ab, cd, 0xdd))}.store_pixels(out);
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
  __m256i folded() const { return _mm256_add_epi32(v, w); }
  static void store_pixel_sums(__m256i a, __m256i b, __m256i c, __m256i d, uint8_t* out) {
    const __m256i ab = _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
    const __m256i cd = _mm256_add_epi32(_mm256_permute2x128_si256(c, d, 0x20), _mm256_permute2x128_si256(c, d, 0x31));
    Lanes{ab, cd}.store_pixels(out);
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
  struct Pixel {
    int32_t v[4];
  };
  Pixel folded() const {
    Pixel sum;
    for (int i = 0; i < 4; ++i) sum.v[i] = v[i] + v[i + 4] + v[i + 8] + v[i + 12];
    return sum;
  }
  static void store_pixel_sums(Pixel a, Pixel b, Pixel c, Pixel d, uint8_t* out) {
    for (int i = 0; i < 4; ++i) {
      out[i] = to_pixel(a.v[i]);
      out[4 + i] = to_pixel(b.v[i]);
      out[8 + i] = to_pixel(c.v[i]);
      out[12 + i] = to_pixel(d.v[i]);
    }
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

/// kSteps: taps / 4 where known, which keeps the sums in registers; 0 otherwise.
template <int kSteps>
void filter_quads_by(const uint8_t* quads, const FilterTable& filter, uint8_t* out) {
  // The rounding constant may be in one of the four pixels only.
  alignas(64) static constexpr int32_t kStart[16] = {kHalf, kHalf, kHalf, kHalf};
  const Lanes start = Lanes::load(kStart);
  const int steps = kSteps > 0 ? kSteps : filter.taps / 4;
  const int32_t* weights = filter.quads;
  const auto output = [&](int x) __attribute__((always_inline)) {
    const uint8_t* pixels = quads + 4 * filter.first[x];
    Lanes sum = start;
    for (int s = 0; s < steps; ++s, weights += 16) sum.add_product(pixels + 16 * s, Lanes::load(weights));
    return sum.folded();
  };
  for (int x = 0; x < filter.outputs; x += 4) {
    const auto a = output(x), b = output(x + 1), c = output(x + 2), d = output(x + 3);
    Lanes::store_pixel_sums(a, b, c, d, out + 4 * x);
  }
}

void filter_quads(const uint8_t* quads, const FilterTable& filter, uint8_t* out) {
  switch (filter.taps / 4) {
    case 1:
      return filter_quads_by<1>(quads, filter, out);
    case 2:
      return filter_quads_by<2>(quads, filter, out);
    case 3:
      return filter_quads_by<3>(quads, filter, out);
    default:
      return filter_quads_by<0>(quads, filter, out);
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
/// that decide about the last bit. In two loops over a block, each simple enough for the compiler to run over vectors.
void shift_hue(uint8_t* __restrict rs, uint8_t* __restrict gs, uint8_t* __restrict bs, size_t count, int shift) {
  constexpr size_t kBlock = 256;
  int hues[kBlock], saturations[kBlock], values[kBlock];
  for (; count > 0; rs += kBlock, gs += kBlock, bs += kBlock, count -= kBlock) {
    const int n = static_cast<int>(std::min(count, kBlock));
    for (int i = 0; i < n; ++i) {
      const int r = rs[i], g = gs[i], b = bs[i];
      const int high = larger(r, larger(g, b)), low = -larger(-r, larger(-g, -b));
      const float chroma = static_cast<float>(larger(high - low, 1));
      const float rc = static_cast<float>(high - r) / chroma, gc = static_cast<float>(high - g) / chroma,
                  bc = static_cast<float>(high - b) / chroma;
      const float h_red = bc - gc;
      const float h_green = static_cast<float>(2.0 + rc - bc), h_blue = static_cast<float>(4.0 + gc - rc);
      const float h_not_red = g == high ? h_green : h_blue;
      const float sector = r == high ? h_red : h_not_red;
      const double turn = sector / 6.0 + 1.0;
      const float hue = static_cast<float>(turn - (turn >= 1.0 ? 1.0 : 0.0));
      const float saturation = static_cast<float>(high - low) / static_cast<float>(larger(high, 1));
      hues[i] = (static_cast<int>(hue * 255.0) + shift) & 255;
      saturations[i] = static_cast<int>(saturation * 255.0);
      values[i] = high;
    }
    for (int i = 0; i < n; ++i) {
      const double position = hues[i] * 6.0 / 255.0;
      const int whole = static_cast<int>(position);
      const float f = static_cast<float>(position - whole);
      const float s = static_cast<float>(saturations[i] / 255.0);
      const int high = values[i];
      const double v = high;
      const int low = static_cast<int>(v * (1.0 - s) + 0.5);
      const int falling = static_cast<int>(v * (1.0 - s * f) + 0.5);
      const int rising = static_cast<int>(v * (1.0 - s * (1.0 - f)) + 0.5);
      // Each channel goes rising, high, high, falling, low, low round the circle; they are two sixths apart.
      const auto channel = [&](int part) {
        const int wrapped = part >= 6 ? part - 6 : part;
        int level = wrapped == 0 ? rising : low;
        level = wrapped == 3 ? falling : level;
        return ((wrapped == 1) | (wrapped == 2)) ? high : level;
      };
      const int sixth = whole == 6 ? 0 : whole;
      rs[i] = static_cast<uint8_t>(channel(sixth + 2));
      gs[i] = static_cast<uint8_t>(channel(sixth));
      bs[i] = static_cast<uint8_t>(channel(sixth + 4));
    }
    if (count <= kBlock) return;
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

void interleave_bytes(const uint8_t* const planes[3], int channels, size_t count, uint8_t* __restrict out) {
  const uint8_t* __restrict r = planes[0];
  if (channels == 1) {
    for (size_t i = 0; i < count; ++i) out[i] = r[i];
    return;
  }
  const uint8_t* __restrict g = planes[1], * __restrict b = planes[2];
  for (size_t i = 0; i < count; ++i) {
    out[3 * i] = r[i];
    out[3 * i + 1] = g[i];
    out[3 * i + 2] = b[i];
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
    .interleave_bytes = interleave_bytes,
};

}  // namespace saccade::data::SACCADE_ISA
