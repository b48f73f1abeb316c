#pragma once

/// The vocabulary of simd/*.cpp: F, a register of floats of the instruction set being compiled for; loads and stores
/// from f32, f16 and bf16 (arithmetic is always f32, stores round to nearest even); reductions; exp. Everything lives
/// in the namespace of the instruction set, and nothing here calls an inline function of another header (see ../isa.h).

#include <immintrin.h>
#include <saccade/kernels/cpu/isa.h>

#define SACCADE_INLINE inline __attribute__((always_inline))

namespace saccade::kernels::cpu::SACCADE_ISA {

#if defined(__AVX512F__)
constexpr int width = 16;
#elif defined(__AVX2__)
constexpr int width = 8;
#else
constexpr int width = 4;
#endif

typedef float F __attribute__((vector_size(4 * width)));
typedef int32_t I __attribute__((vector_size(4 * width)));
typedef uint32_t U __attribute__((vector_size(4 * width)));
typedef uint16_t U16 __attribute__((vector_size(2 * width)));
typedef uint8_t U8 __attribute__((vector_size(width)));

/// Storage types: as the BFloat16 and Half of dtype.h.
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

/// A whole register, or its first n lanes (the others are read as zero and not written).
struct Full {};
struct Part {
  int n;
};

SACCADE_INLINE F splat(float value) { return F{} + value; }
/// a * b + c in one rounding where the set has it: said outright where two places must round alike.
SACCADE_INLINE F fma(F a, F b, F c) {
#if defined(__AVX512F__)
  return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
SACCADE_INLINE F max(F a, F b) { return a > b ? a : b; }
SACCADE_INLINE F min(F a, F b) { return a < b ? a : b; }

SACCADE_INLINE F widen(const Bf16*, U16 raw) { return (F)(__builtin_convertvector(raw, U) << 16); }
SACCADE_INLINE U16 narrow(const Bf16*, F value) {
  const U u = (U)value;
  const U rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
  return __builtin_convertvector(value != value ? (u >> 16) | 0x40 : rounded, U16);
}

#if defined(__AVX512F__)  // maskz forms: g++ 12 warns of the undefined register in the plain ones
SACCADE_INLINE F widen(const F16*, U16 raw) { return (F)_mm512_maskz_cvtph_ps(0xffff, (__m256i)raw); }
SACCADE_INLINE U16 narrow(const F16*, F value) { return (U16)_mm512_maskz_cvtps_ph(0xffff, (__m512)value, 0); }
#elif defined(__AVX2__)
SACCADE_INLINE F widen(const F16*, U16 raw) { return (F)_mm256_cvtph_ps((__m128i)raw); }
SACCADE_INLINE U16 narrow(const F16*, F value) { return (U16)_mm256_cvtps_ph((__m256)value, 0); }
#else
SACCADE_INLINE F widen(const F16*, U16 raw) {
  const U h = __builtin_convertvector(raw, U), sign = (h & 0x8000) << 16, exponent = (h >> 10) & 31, m = h & 0x3ff;
  const U small = (U)(__builtin_convertvector((I)m, F) * 0x1p-24f);
  const U normal = ((exponent + 112) << 23) | (m << 13), special = 0x7f800000u | (m << 13);
  return (F)(sign | (exponent == 31 ? special : exponent == 0 ? small : normal));
}
SACCADE_INLINE U16 narrow(const F16*, F value) {
  const U u = (U)value, sign = (u >> 16) & 0x8000, magnitude = u & 0x7fffffff;
  const U small = (U)((F)magnitude + 0.5f) - 0x3f000000;
  const U normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
  const I m = (I)magnitude;
  const U h = m > 0x7f800000 ? U{} + 0x7e00 : m >= 0x477ff000 ? U{} + 0x7c00 : m < 0x38800000 ? small : normal;
  return __builtin_convertvector(sign | h, U16);
}
#endif

SACCADE_INLINE F load(const float* p, Full = {}) {
  F v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
SACCADE_INLINE F load(const T* p, Full = {}) {
  U16 raw;
  __builtin_memcpy(&raw, p, sizeof raw);
  return widen(p, raw);
}
SACCADE_INLINE void store(float* p, F value, Full = {}) { __builtin_memcpy(p, &value, sizeof value); }
template <class T>
SACCADE_INLINE void store(T* p, F value, Full = {}) {
  const U16 raw = narrow(p, value);
  __builtin_memcpy(p, &raw, sizeof raw);
}

/// A store past the caches, to an address of whole registers: for results that no cache will hold until they are read.
SACCADE_INLINE void stream(float* p, F value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(p, (__m512)value);
#elif defined(__AVX2__)
  _mm256_stream_ps(p, (__m256)value);
#else
  _mm_stream_ps(p, (__m128)value);
#endif
}

#if defined(__AVX512F__)
SACCADE_INLINE __mmask16 lanes(Part part) { return static_cast<__mmask16>((1u << part.n) - 1); }
SACCADE_INLINE F load(const float* p, Part part) { return (F)_mm512_maskz_loadu_ps(lanes(part), p); }
SACCADE_INLINE void store(float* p, F value, Part part) { _mm512_mask_storeu_ps(p, lanes(part), (__m512)value); }
template <class T>
SACCADE_INLINE F load(const T* p, Part part) {
  return widen(p, (U16)_mm256_maskz_loadu_epi16(lanes(part), p));
}
template <class T>
SACCADE_INLINE void store(T* p, F value, Part part) {
  _mm256_mask_storeu_epi16(p, lanes(part), (__m256i)narrow(p, value));
}
#else
template <class T>
SACCADE_INLINE F load(const T* p, Part part) {
  T whole[width] = {};
  for (int i = 0; i < part.n; ++i) whole[i] = p[i];
  return load(whole);
}
template <class T>
SACCADE_INLINE void store(T* p, F value, Part part) {
  T whole[width];
  store(whole, value);
  for (int i = 0; i < part.n; ++i) p[i] = whole[i];
}
#endif

/// Lanes beyond the first n replaced.
SACCADE_INLINE F keep(F value, float, Full) { return value; }
SACCADE_INLINE F keep(F value, float other, Part part) {
  I index;
  for (int i = 0; i < width; ++i) index[i] = i;
  return index < part.n ? value : splat(other);
}

/// Calls body(first element, Full or Part) for all vectors of n elements.
template <class Body>
SACCADE_INLINE void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + width <= n; i += width) body(i, Full{});
  if (i < n) body(i, Part{static_cast<int>(n - i)});
}

SACCADE_INLINE float sum_of(F v) {
  float lane[width];
  store(lane, v);
  for (int half = width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}
SACCADE_INLINE float max_of(F v) {
  float lane[width];
  store(lane, v);
  for (int half = width / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
  }
  return lane[0];
}

/// e^x to about 1 ulp (x = n ln 2 + r, |r| <= ln 2 / 2, polynomial of degree 7 in r); 0 below -87.33, where the result
/// would be subnormal; NaN stays NaN.
SACCADE_INLINE F exp(F x) {
  const F clamped = x < -87.33f ? splat(-87.33f) : x > 88.73f ? splat(88.73f) : x;
  const F n = (clamped * 1.44269504f + 12582912.f) - 12582912.f;
  const F r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const F y = p * (r * r) + r + 1.f;
#if defined(__AVX512F__)
  const F scaled = (F)_mm512_maskz_scalef_ps(0xffff, (__m512)y, (__m512)n);
#else
  // 2^n in two factors: n = 128 alone has no float.
  const I whole = __builtin_convertvector(n, I), half = whole >> 1;
  const F scaled = y * (F)((half + 127) << 23) * (F)((whole - half + 127) << 23);
#endif
  return x < -87.33f ? F{} : scaled;
}

/// Calls body(begin, end) for blocks of `block` of n items on all threads; on one where there is only one block.
template <class Body>
SACCADE_INLINE void parallel_blocks(int64_t n, int64_t block, Body body) {
  const int64_t blocks = (n + block - 1) / block;
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (int64_t i = 0; i < blocks; ++i) body(i * block, (i + 1) * block < n ? (i + 1) * block : n);
}

/// Calls body(T{}) with the storage type of a floating dtype; others were refused by the caller (require_floating).
template <class Body>
SACCADE_INLINE void with_storage(DType dtype, Body body) {
  if (dtype == DType::f32) return body(float{});
  if (dtype == DType::bf16) return body(Bf16{});
  if (dtype == DType::f16) return body(F16{});
}

}  // namespace saccade::kernels::cpu::SACCADE_ISA
