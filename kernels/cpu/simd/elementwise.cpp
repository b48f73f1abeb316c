#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

/// Elements a thread takes at a time; fewer are not worth waking another thread.
constexpr int64_t block = 16384;

template <class T, class Op>
SACCADE_INLINE void map(int64_t n, const void* x, void* y, Op op) {
  const T* from = static_cast<const T*>(x);
  T* to = static_cast<T*>(y);
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

void fill(DType dtype, int64_t n, float value, void* y) {
  with_storage(dtype, [=](auto type) {
    using T = decltype(type);
    T* to = static_cast<T*>(y);
    parallel_blocks(n, block, [=](int64_t begin, int64_t end) {
      const F v = splat(value);
      for_vectors(end - begin, [=](int64_t i, auto lanes) { store(to + begin + i, v, lanes); });
    });
  });
}

void cast(DType from, DType to, int64_t n, const void* x, void* y) {
  with_storage(from, [=](auto from_type) {
    with_storage(to, [=](auto to_type) {
      const auto* source = static_cast<const decltype(from_type)*>(x);
      auto* target = static_cast<decltype(to_type)*>(y);
      parallel_blocks(n, block, [=](int64_t begin, int64_t end) {
        for_vectors(end - begin,
                    [=](int64_t i, auto lanes) { store(target + begin + i, load(source + begin + i, lanes), lanes); });
      });
    });
  });
}

void add(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  with_storage(dtype, [=](auto type) { map<decltype(type)>(n, a, b, y, [](F p, F q) { return p + q; }); });
}

void scale(DType dtype, int64_t n, const void* x, float factor, void* y) {
  with_storage(dtype, [=](auto type) { map<decltype(type)>(n, x, y, [=](F v) { return v * factor; }); });
}

void multiply(DType dtype, int64_t n, const void* a, const void* b, void* y) {
  with_storage(dtype, [=](auto type) { map<decltype(type)>(n, a, b, y, [](F p, F q) { return p * q; }); });
}

void relu_forward(DType dtype, int64_t n, const void* x, void* y) {
  // x < 0 rather than max(x, 0), so that NaN is not hidden.
  with_storage(dtype, [=](auto type) { map<decltype(type)>(n, x, y, [](F v) { return v < 0.f ? F{} : v; }); });
}

void relu_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  with_storage(dtype, [=](auto type) {
    map<decltype(type)>(n, y, dy, dx, [](F out, F gradient) { return out > 0.f ? gradient : F{}; });
  });
}

void sigmoid_forward(DType dtype, int64_t n, const void* x, void* y) {
  with_storage(dtype, [=](auto type) { map<decltype(type)>(n, x, y, [](F v) { return 1.f / (1.f + exp(-v)); }); });
}

void sigmoid_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  with_storage(dtype, [=](auto type) {
    map<decltype(type)>(n, y, dy, dx, [](F out, F gradient) { return gradient * out * (1.f - out); });
  });
}

}  // namespace

extern const ElementwiseKernels elementwise = {
    fill, cast, add, scale, multiply, relu_forward, relu_backward, sigmoid_forward, sigmoid_backward};

}  // namespace saccade::kernels::cpu::SACCADE_ISA
