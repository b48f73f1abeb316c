#include <saccade/kernels/cpu/simd/optimizer.h>
#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

void run(const SquareSums& call) {
  const int64_t count = call.count;
  Piece* const pieces = call.pieces;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    Piece& piece = pieces[i];
    F p = {}, g = {};
    for_vectors(piece.slot.elements, [&](int64_t at, auto lanes) {
      const F parameter = load(piece.slot.parameter + at, lanes), gradient = load(piece.slot.gradient + at, lanes);
      p += parameter * parameter;
      g += gradient * gradient;
    });
    piece.parameter_squares = sum_of(p);
    piece.gradient_squares = sum_of(g);
  }
}

/// The even lanes' 64-bit products.
SACCADE_INLINE U multiply_wide(U a, U b) {
#if defined(__AVX512F__)
  return (U)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (U)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (U)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

/// Both halves of a * b, lane by lane.
SACCADE_INLINE void multiply_halves(U a, uint32_t b, U& high, U& low) {
  typedef uint64_t Pair __attribute__((vector_size(4 * width)));
  const Pair even = (Pair)multiply_wide(a, U{} + b), odd = (Pair)multiply_wide((U)((Pair)a >> 32), U{} + b);
  high = (U)((even >> 32) | (odd & 0xffffffff00000000u));
  low = a * b;
}

/// `width` consecutive blocks of Philox4x32-10 (Salmon et al. 2011), one a lane; the first is a multiple of `width`.
SACCADE_INLINE void philox(uint64_t key, uint64_t stream, uint64_t first_block, U (&words)[4]) {
  U lane = {};
  for (int i = 0; i < width; ++i) lane[i] = static_cast<uint32_t>(i);
  words[0] = lane + static_cast<uint32_t>(first_block);
  words[1] = U{} + static_cast<uint32_t>(first_block >> 32);
  words[2] = U{} + static_cast<uint32_t>(stream);
  words[3] = U{} + static_cast<uint32_t>(stream >> 32);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    U high0, low0, high1, low1;
    multiply_halves(words[0], 0xD2511F53u, high0, low0);
    multiply_halves(words[2], 0xCD9E8D57u, high1, low1);
    words[0] = high1 ^ words[1] ^ k0;
    words[2] = high0 ^ words[3] ^ k1;
    words[1] = low1;
    words[3] = low0;
  }
}

/// Random words for 64 elements, as Sgd says.
struct RandomWords {
  static constexpr int elements = 64, vectors = elements / width;
  U words[vectors];
  SACCADE_INLINE RandomWords(uint64_t key, uint64_t stream, int64_t first_element) {
    constexpr int parts = 16 / width;
    for (int part = 0; part < parts; ++part) {
      U block[4];
      philox(key, stream, static_cast<uint64_t>(first_element / 4 + part * width), block);
      for (int word = 0; word < 4; ++word) words[word * parts + part] = block[word];
    }
  }
};

/// Rounds to one of both neighbours by 16 random bits; infinities and NaN stay.
template <class Lanes>
SACCADE_INLINE void store_rounded(Bf16* p, F value, U random, Lanes lanes) {
  const U bits = (U)value;
  const U shifted = (bits & 0x7f800000u) == 0x7f800000u ? bits : bits + (random >> 16);
  store(p, value == value ? (F)(shifted & 0xffff0000u) : value, lanes);  // what is left rounds to itself
}

/// Calls body(first element, Full or Part, vector of a RandomWords) for all vectors of n elements.
template <class Body>
SACCADE_INLINE void for_random_vectors(const Sgd& spec, const Piece& piece, Body body) {
  const int64_t n = piece.slot.elements;
  for (int64_t i = 0; i < n; i += RandomWords::elements) {
    const RandomWords random(spec.rounding_seed, piece.slot.stream, piece.first + i);
    const int64_t left = n - i < RandomWords::elements ? n - i : RandomWords::elements;
    for_vectors(left, [&](int64_t at, auto lanes) { body(i + at, lanes, random.words[at / width]); });
  }
}

template <bool Nesterov>
SACCADE_INLINE void sgd_piece(const Sgd& spec, const Piece& piece) {
  const ParameterSlot slot = piece.slot;
  const bool larc = spec.trust > 0;
  const float ratio = !larc ? 1.f : piece.trust_ratio != 0 ? piece.trust_ratio : 1.f;
  const float decay = larc && piece.trust_ratio == 0 ? 0.f : spec.weight_decay;
  const float lr = spec.lr, momentum = spec.momentum;
  if (slot.state1 != nullptr && spec.momentum_dtype == DType::bf16) {
    Bf16* state = static_cast<Bf16*>(slot.state1);
    for_random_vectors(spec, piece, [=](int64_t at, auto lanes, U random) {
      const F p = load(slot.parameter + at, lanes);
      const F step = (load(slot.gradient + at, lanes) + p * decay) * ratio;
      const F m = load(state + at, lanes) * momentum + step;
      store_rounded(state + at, m, random, lanes);
      store(slot.parameter + at, p - (Nesterov ? step + m * momentum : m) * lr, lanes);
    });
    return;
  }
  float* state = static_cast<float*>(slot.state1);
  for_vectors(slot.elements, [=](int64_t at, auto lanes) {
    const F p = load(slot.parameter + at, lanes);
    F step = (load(slot.gradient + at, lanes) + p * decay) * ratio;
    if (state != nullptr) {
      const F m = load(state + at, lanes) * momentum + step;
      store(state + at, m, lanes);
      step = Nesterov ? step + m * momentum : m;
    }
    store(slot.parameter + at, p - step * lr, lanes);
  });
}

void run(const SgdUpdate& call, Piece* pieces, int64_t count) {
  const Sgd& spec = call.settings;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    spec.nesterov ? sgd_piece<true>(spec, pieces[i]) : sgd_piece<false>(spec, pieces[i]);
  }
}

SACCADE_INLINE F root(F v) {
#if defined(__AVX512F__)
  return (F)_mm512_maskz_sqrt_ps(0xffff, (__m512)v);
#elif defined(__AVX2__)
  return (F)_mm256_sqrt_ps((__m256)v);
#else
  return (F)_mm_sqrt_ps((__m128)v);
#endif
}

void run(const AdamWUpdate& call, float correction1, float correction2, Piece* pieces, int64_t count) {
  const AdamW& spec = call.settings;
  const float kept = 1.f - spec.lr * spec.weight_decay, step = spec.lr / correction1;
  const float root_correction = 1.f / __builtin_sqrtf(correction2);
  const float beta1 = spec.beta1, beta2 = spec.beta2, eps = spec.eps;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    const ParameterSlot slot = pieces[i].slot;
    float *first = static_cast<float*>(slot.state1), *second = static_cast<float*>(slot.state2);
    for_vectors(slot.elements, [=](int64_t at, auto lanes) {
      const F g = load(slot.gradient + at, lanes);
      const F m = load(first + at, lanes) * beta1 + g * (1.f - beta1);
      const F v = load(second + at, lanes) * beta2 + g * g * (1.f - beta2);
      store(first + at, m, lanes);
      store(second + at, v, lanes);
      const F p = load(slot.parameter + at, lanes) * kept - step * m / (root(v) * root_correction + eps);
      store(slot.parameter + at, p, lanes);
    });
  }
}

void run(const Unscale& call, GradientPiece* pieces, int64_t count) {
  const float factor = call.factor;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    float* gradient = pieces[i].slot.gradient;
    F zero = {};  // NaN once anything was infinite or NaN
    for_vectors(pieces[i].slot.elements, [&](int64_t at, auto lanes) {
      const F g = load(gradient + at, lanes);
      zero += g * 0.f;
      store(gradient + at, g * factor, lanes);
    });
    pieces[i].finite = sum_of(zero) == 0.f;
  }
}

void run(const MovingAverage& call, AverageSlot* pieces, int64_t count) {
  const float momentum = call.momentum, rest = 1.f - momentum;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    float* average = pieces[i].average;
    const float* from = pieces[i].from;
    for_vectors(pieces[i].elements, [=](int64_t at, auto lanes) {
      store(average + at, load(average + at, lanes) * momentum + load(from + at, lanes) * rest, lanes);
    });
  }
}

}  // namespace

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const SquareSums&);
template void compute(const SgdUpdate&, Piece*, int64_t);
template void compute(const AdamWUpdate&, float, float, Piece*, int64_t);
template void compute(const Unscale&, GradientPiece*, int64_t);
template void compute(const MovingAverage&, AverageSlot*, int64_t);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
