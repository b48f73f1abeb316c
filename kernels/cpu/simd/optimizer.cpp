#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

void square_sums(Piece* pieces, int64_t count) {
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

template <bool Nesterov>
SACCADE_INLINE void sgd_piece(const Sgd& spec, const Piece& piece) {
  const ParameterSlot slot = piece.slot;
  const bool larc = spec.trust > 0;
  const float ratio = !larc ? 1.f : piece.trust_ratio != 0 ? piece.trust_ratio : 1.f;
  const float decay = larc && piece.trust_ratio == 0 ? 0.f : spec.weight_decay;
  const float lr = spec.lr, momentum = spec.momentum;
  for_vectors(slot.elements, [=](int64_t at, auto lanes) {
    const F p = load(slot.parameter + at, lanes);
    F step = (load(slot.gradient + at, lanes) + p * decay) * ratio;
    if (slot.state1 != nullptr) {
      const F m = load(slot.state1 + at, lanes) * momentum + step;
      store(slot.state1 + at, m, lanes);
      step = Nesterov ? step + m * momentum : m;
    }
    store(slot.parameter + at, p - step * lr, lanes);
  });
}

void sgd(const Sgd& spec, const Piece* pieces, int64_t count) {
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

void adamw(const AdamW& spec, float correction1, float correction2, const Piece* pieces, int64_t count) {
  const float kept = 1.f - spec.lr * spec.weight_decay, step = spec.lr / correction1;
  const float root_correction = 1.f / __builtin_sqrtf(correction2);
  const float beta1 = spec.beta1, beta2 = spec.beta2, eps = spec.eps;
#pragma omp parallel for schedule(static) if (count > 1)
  for (int64_t i = 0; i < count; ++i) {
    const ParameterSlot slot = pieces[i].slot;
    for_vectors(slot.elements, [=](int64_t at, auto lanes) {
      const F g = load(slot.gradient + at, lanes);
      const F m = load(slot.state1 + at, lanes) * beta1 + g * (1.f - beta1);
      const F v = load(slot.state2 + at, lanes) * beta2 + g * g * (1.f - beta2);
      store(slot.state1 + at, m, lanes);
      store(slot.state2 + at, v, lanes);
      const F p = load(slot.parameter + at, lanes) * kept - step * m / (root(v) * root_correction + eps);
      store(slot.parameter + at, p, lanes);
    });
  }
}

void unscale(float factor, GradientPiece* pieces, int64_t count) {
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

}  // namespace

extern const OptimizerKernels optimizer = {square_sums, sgd, adamw, unscale};

}  // namespace saccade::kernels::cpu::SACCADE_ISA
