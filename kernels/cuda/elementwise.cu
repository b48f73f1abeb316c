// Maps over n elements. A block takes four vectors a thread; the last block's tail goes element by element.
// Memory: each input once, each output once.

#include <saccade/kernels/cuda/vectors.h>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256, vectors_each = 4;

struct Scale {
  float factor;
  SACCADE_DEVICE float operator()(float x) const { return x * factor; }
};
struct Relu {
  SACCADE_DEVICE float operator()(float x) const { return x < 0.f ? 0.f : x; }  // NaN is passed on
};
struct Sigmoid {
  SACCADE_DEVICE float operator()(float x) const { return 1.f / (1.f + expf(-x)); }
};
struct Add {
  SACCADE_DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Multiply {
  SACCADE_DEVICE float operator()(float a, float b) const { return a * b; }
};
struct ReluBackward {
  SACCADE_DEVICE float operator()(float y, float dy) const { return y > 0.f ? dy : 0.f; }
};
struct SigmoidBackward {
  SACCADE_DEVICE float operator()(float y, float dy) const { return dy * y * (1.f - y); }
};

template <class T, class Map>
SACCADE_KERNEL(threads)
map_one(Map map, int64_t n, const T* x, T* y, bool aligned) {
  constexpr int V = vector_of<T>;
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * V;
    if (at >= n) return;
    Floats<V> v = load_floats<V>(x, at, {0, n, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) v.at[j] = map(v.at[j]);
    store_floats<V>(y, at, {0, n, aligned}, v);
  }
}

template <class T>
SACCADE_KERNEL(threads)
scale_by_one(const float* factor, int64_t n, const T* x, T* y, bool aligned) {
  constexpr int V = vector_of<T>;
  const float f = load(factor);
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * V;
    if (at >= n) return;
    Floats<V> v = load_floats<V>(x, at, {0, n, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) v.at[j] *= f;
    store_floats<V>(y, at, {0, n, aligned}, v);
  }
}

template <class T, class Map>
SACCADE_KERNEL(threads)
map_two(Map map, int64_t n, const T* a, const T* b, T* y, bool aligned) {
  constexpr int V = vector_of<T>;
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * V;
    if (at >= n) return;
    Floats<V> v = load_floats<V>(a, at, {0, n, aligned});
    const Floats<V> w = load_floats<V>(b, at, {0, n, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) v.at[j] = map(v.at[j], w.at[j]);
    store_floats<V>(y, at, {0, n, aligned}, v);
  }
}

/// Between storage types, through float. Four elements a thread: 8 bytes of the narrow side, 16 of the wide one.
template <class From, class To>
SACCADE_KERNEL(threads)
convert(int64_t n, const From* x, To* y, bool aligned) {
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * 4;
    if (at >= n) return;
    store_floats<4>(y, at, {0, n, aligned}, load_floats<4>(x, at, {0, n, aligned}));
  }
}

SACCADE_DEVICE double to_double(float value) { return value; }
SACCADE_DEVICE double to_double(Half value) { return to_float(value); }
SACCADE_DEVICE double to_double(BFloat16 value) { return to_float(value); }
template <class Integer>
SACCADE_DEVICE double to_double(Integer value) {
  return static_cast<double>(value);
}

/// From or to integers, through double; towards an integer it truncates. Labels and indices: nothing that matters.
template <class From, class To>
SACCADE_KERNEL(threads)
convert_integer(int64_t n, const From* x, To* y) {
  const int64_t at = block_x() * threads + thread_x();
  if (at >= n) return;
  const double value = to_double(load(x + at));
  if constexpr (std::is_same_v<To, Half> || std::is_same_v<To, BFloat16>) {
    store(y + at, from_float<To>(static_cast<float>(value)));
  } else {
    store(y + at, static_cast<To>(value));
  }
}

/// Bytes of one value after the other: `pattern` holds 16 bytes of them.
struct alignas(16) Pattern {
  uint32_t words[4];
};

SACCADE_KERNEL(threads) fill_bytes(Pattern pattern, int64_t bytes, unsigned char* y, bool aligned) {
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * 16;
    if (at >= bytes) return;
    if (aligned && at + 16 <= bytes) {
      store(reinterpret_cast<Pattern*>(y + at), pattern);
      continue;
    }
    for (int j = 0; j < 16 && at + j < bytes; ++j) {
      store(y + at + j, static_cast<unsigned char>(pattern.words[j / 4] >> (8 * (j % 4))));
    }
  }
}

Extent grid_of(int64_t n, int each) { return {blocks(divide_up(n, int64_t{threads} * each))}; }

template <class Map>
void one(Stream stream, const char* name, Map map, DType dtype, int64_t n, const void* x, void* y) {
  if (n == 0) return;
  with_storage(dtype, name, [&]<class T>(Type<T>) {
    launch<map_one<T, Map>>(stream, grid_of(n, vectors_each * vector_of<T>), {threads}, 0, map, n,
                            static_cast<const T*>(x), static_cast<T*>(y), aligned(x, y));
  });
}

template <class Map>
void two(Stream stream, const char* name, Map map, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  if (n == 0) return;
  with_storage(dtype, name, [&]<class T>(Type<T>) {
    launch<map_two<T, Map>>(stream, grid_of(n, vectors_each * vector_of<T>), {threads}, 0, map, n,
                            static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(y), aligned(a, b, y));
  });
}

template <class Body>
void with_any(DType dtype, Body body) {
  switch (dtype) {
    case DType::i32:
      return body(Type<int32_t>{});
    case DType::i64:
      return body(Type<int64_t>{});
    case DType::u8:
      return body(Type<uint8_t>{});
    default:
      return with_storage(dtype, "cast", body);
  }
}

template <class T>
Pattern repeat(T value) {
  Pattern pattern{};
  for (size_t i = 0; i < 16; i += sizeof(T)) {
    for (size_t byte = 0; byte < sizeof(T); ++byte) {
      unsigned char bytes[sizeof(T)];
      std::memcpy(bytes, &value, sizeof(T));
      pattern.words[(i + byte) / 4] |= static_cast<uint32_t>(bytes[byte]) << (8 * ((i + byte) % 4));
    }
  }
  return pattern;
}

Pattern pattern_of(DType dtype, float value) {
  switch (dtype) {
    case DType::f32:
      return repeat(value);
    case DType::f16:
      return repeat(Half::from(value).bits);
    case DType::bf16:
      return repeat(BFloat16::from(value).bits);
    case DType::i32:
      return repeat(static_cast<int32_t>(value));
    case DType::i64:
      return repeat(static_cast<int64_t>(value));
    case DType::u8:
      return repeat(static_cast<uint8_t>(value));
  }
  return {};
}

}  // namespace

void fill(Stream stream, DType dtype, int64_t n, float value, void* y) {
  if (n == 0) return;
  const int64_t bytes = n * static_cast<int64_t>(size_of(dtype));
  launch<fill_bytes>(stream, grid_of(bytes, 16 * vectors_each), {threads}, 0, pattern_of(dtype, value), bytes,
                     static_cast<unsigned char*>(y), aligned(y));
}

void cast(Stream stream, DType from, DType to, int64_t n, const void* x, void* y) {
  if (n == 0) return;
  with_any(from, [&]<class From>(Type<From>) {
    with_any(to, [&]<class To>(Type<To>) {
      if constexpr (std::is_integral_v<From> || std::is_integral_v<To>) {
        launch<convert_integer<From, To>>(stream, grid_of(n, 1), {threads}, 0, n, static_cast<const From*>(x),
                                          static_cast<To*>(y));
      } else {
        launch<convert<From, To>>(stream, grid_of(n, 4 * vectors_each), {threads}, 0, n, static_cast<const From*>(x),
                                  static_cast<To*>(y), aligned(x, y));
      }
    });
  });
}

void add(Stream stream, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  two(stream, "add", Add{}, dtype, n, a, b, y);
}
void multiply(Stream stream, DType dtype, int64_t n, const void* a, const void* b, void* y) {
  two(stream, "multiply", Multiply{}, dtype, n, a, b, y);
}
void scale(Stream stream, DType dtype, int64_t n, const void* x, float factor, void* y) {
  one(stream, "scale", Scale{factor}, dtype, n, x, y);
}
void scale_by(Stream stream, DType dtype, int64_t n, const void* x, const float* factor, void* y) {
  if (n == 0) return;
  with_storage(dtype, "scale_by", [&]<class T>(Type<T>) {
    launch<scale_by_one<T>>(stream, grid_of(n, vectors_each * vector_of<T>), {threads}, 0, factor, n,
                            static_cast<const T*>(x), static_cast<T*>(y), aligned(x, y));
  });
}
void relu_forward(Stream stream, DType dtype, int64_t n, const void* x, void* y) {
  one(stream, "relu", Relu{}, dtype, n, x, y);
}
void relu_backward(Stream stream, DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  two(stream, "relu", ReluBackward{}, dtype, n, y, dy, dx);
}
void sigmoid_forward(Stream stream, DType dtype, int64_t n, const void* x, void* y) {
  one(stream, "sigmoid", Sigmoid{}, dtype, n, x, y);
}
void sigmoid_backward(Stream stream, DType dtype, int64_t n, const void* y, const void* dy, void* dx) {
  two(stream, "sigmoid", SigmoidBackward{}, dtype, n, y, dy, dx);
}

}  // namespace saccade::kernels::cuda
