#include <saccade/kernels/cpu/simd/vector.h>
#include <saccade/kernels/elementwise.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

/// Elements a thread takes at a time; fewer are not worth waking another thread.
constexpr int64_t block = 16384;

template <class From, class To, class Op>
SACCADE_INLINE void map(int64_t n, const void* x, void* y, Op op) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(y);
  parallel_blocks(n, block, [=](int64_t begin, int64_t end) {
    for_vectors(end - begin,
                [=](int64_t i, auto lanes) { store(to + begin + i, op(load(from + begin + i, lanes)), lanes); });
  });
}

template <class T, class Op>
SACCADE_INLINE void map(int64_t n, const void* a, const void* b, void* y, Op op) {
  const T *left = static_cast<const T*>(a), *right = static_cast<const T*>(b);
  T* to = static_cast<T*>(y);
  parallel_blocks(n, block, [=](int64_t begin, int64_t end) {
    for_vectors(end - begin, [=](int64_t i, auto lanes) {
      store(to + begin + i, op(load(left + begin + i, lanes), load(right + begin + i, lanes)), lanes);
    });
  });
}

void run(const Fill& c) {
  with_storage(c.dtype, [&](auto type) {
    using T = decltype(type);
    T* to = static_cast<T*>(c.y);
    const float value = c.value;
    parallel_blocks(c.n, block, [=](int64_t begin, int64_t end) {
      const F v = splat(value);
      for_vectors(end - begin, [=](int64_t i, auto lanes) { store(to + begin + i, v, lanes); });
    });
  });
}

void run(const Cast& c) {
  with_storage(c.from, [&](auto from) {
    with_storage(c.to, [&](auto to) { map<decltype(from), decltype(to)>(c.n, c.x, c.y, [](F v) { return v; }); });
  });
}

// The maps: of x, and of what is kept and dy.
struct Relu {
  // x < 0 rather than max(x, 0), so that NaN is not hidden.
  SACCADE_INLINE F operator()(F x) const { return x < 0.f ? F{} : x; }
  SACCADE_INLINE F operator()(F y, F dy) const { return y > 0.f ? dy : F{}; }
};
struct Sigmoid {
  SACCADE_INLINE F operator()(F x) const { return 1.f / (1.f + exp(-x)); }
  SACCADE_INLINE F operator()(F y, F dy) const { return dy * y * (1.f - y); }
};

/// x times the normal distribution's share below x (Hendrycks & Gimpel 2016), that by its error function to 1.5e-7
/// (Abramowitz & Stegun 1964, 7.1.26).
struct Gelu {
  SACCADE_INLINE static F bell(F x) { return exp(x * x * -0.5f); }
  SACCADE_INLINE static F below(F x, F bell) {
    const F t = 1.f / (1.f + 0.3275911f * 0.70710678f * (x < 0.f ? -x : x));
    const F tail =
        ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t * bell;
    return x < 0.f ? 0.5f * tail : 1.f - 0.5f * tail;
  }
  SACCADE_INLINE F operator()(F x) const { return x * below(x, bell(x)); }
  SACCADE_INLINE F operator()(F x, F dy) const {
    const F density = bell(x);
    return dy * (below(x, density) + x * 0.39894228f * density);
  }
};

template <class Body>
SACCADE_INLINE void with_function(Unary function, Body body) {
  switch (function) {
    case Unary::relu:
      return body(Relu{});
    case Unary::sigmoid:
      return body(Sigmoid{});
    case Unary::gelu:
      return body(Gelu{});
  }
}

void run(const Map& c) {
  with_function(c.function, [&](auto function) {
    with_storage(c.dtype, [&](auto type) { map<decltype(type), decltype(type)>(c.n, c.x, c.y, function); });
  });
}

void run(const MapGradient& c) {
  with_function(c.function, [&](auto function) {
    with_storage(c.dtype, [&](auto type) { map<decltype(type)>(c.n, c.kept, c.dy, c.dx, function); });
  });
}

void run(const Combine& c) {
  with_storage(c.dtype, [&](auto type) {
    using T = decltype(type);
    switch (c.function) {
      case Binary::add:
        return map<T>(c.n, c.a, c.b, c.y, [](F p, F q) { return p + q; });
      case Binary::multiply:
        return map<T>(c.n, c.a, c.b, c.y, [](F p, F q) { return p * q; });
    }
  });
}

void run(const Scale& c) {
  with_storage(c.dtype, [&, factor = c.factor](auto type) {
    map<decltype(type), decltype(type)>(c.n, c.x, c.y, [=](F v) { return v * factor; });
  });
}

}  // namespace

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const Fill&);
template void compute(const Cast&);
template void compute(const Map&);
template void compute(const MapGradient&);
template void compute(const Combine&);
template void compute(const Scale&);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
