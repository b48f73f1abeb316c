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
struct Add {
  SACCADE_DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Multiply {
  SACCADE_DEVICE float operator()(float a, float b) const { return a * b; }
};

// The maps: of x, and of what is kept and dy.
struct Relu {
  SACCADE_DEVICE float operator()(float x) const { return x < 0.f ? 0.f : x; }  // NaN is passed on
  SACCADE_DEVICE float operator()(float y, float dy) const { return y > 0.f ? dy : 0.f; }
};
struct Sigmoid {
  SACCADE_DEVICE float operator()(float x) const { return 1.f / (1.f + expf(-x)); }
  SACCADE_DEVICE float operator()(float y, float dy) const { return dy * y * (1.f - y); }
};

struct Gelu {
  SACCADE_DEVICE static float below(float x) { return 0.5f + 0.5f * erff(x * 0.70710678f); }
  SACCADE_DEVICE float operator()(float x) const { return x * below(x); }
  SACCADE_DEVICE float operator()(float x, float dy) const {
    return dy * (below(x) + x * 0.39894228f * expf(x * x * -0.5f));
  }
};

template <class Body>
void with_function(Unary function, Body body) {
  switch (function) {
    case Unary::relu:
      return body(Relu{});
    case Unary::sigmoid:
      return body(Sigmoid{});
    case Unary::gelu:
      return body(Gelu{});
  }
}

template <class T, class Function>
SACCADE_KERNEL(threads)
map_one(Function map, int64_t n, const T* x, T* y, bool aligned) {
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

template <class T, class Function>
SACCADE_KERNEL(threads)
map_two(Function map, int64_t n, const T* a, const T* b, T* y, bool aligned) {
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

template <class Function>
void one(Stream stream, std::string_view name, Function function, DType dtype, int64_t n, const void* x, void* y) {
  if (n == 0) return;
  with_storage(dtype, name, [&]<class T>(Type<T>) {
    launch<map_one<T, Function>>(stream, grid_of(n, vectors_each * vector_of<T>), {threads}, 0, function, n,
                                 static_cast<const T*>(x), static_cast<T*>(y), aligned(x, y));
  });
}

template <class Function>
void two(Stream stream, std::string_view name, Function function, DType dtype, int64_t n, const void* a, const void* b,
         void* y) {
  if (n == 0) return;
  with_storage(dtype, name, [&]<class T>(Type<T>) {
    launch<map_two<T, Function>>(stream, grid_of(n, vectors_each * vector_of<T>), {threads}, 0, function, n,
                                 static_cast<const T*>(a), static_cast<const T*>(b), static_cast<T*>(y),
                                 aligned(a, b, y));
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

void run(Stream stream, const Fill& c) {
  if (c.n == 0) return;
  const int64_t bytes = bytes_of(c.dtype, c.n);
  launch<fill_bytes>(stream, grid_of(bytes, 16 * vectors_each), {threads}, 0, pattern_of(c.dtype, c.value), bytes,
                     static_cast<unsigned char*>(c.y), aligned(c.y));
}

void run(Stream stream, const Cast& c) {
  if (c.n == 0) return;
  with_any(c.from, [&]<class From>(Type<From>) {
    with_any(c.to, [&]<class To>(Type<To>) {
      const auto* x = static_cast<const From*>(c.x);
      auto* y = static_cast<To*>(c.y);
      if constexpr (std::is_integral_v<From> || std::is_integral_v<To>) {
        launch<convert_integer<From, To>>(stream, grid_of(c.n, 1), {threads}, 0, c.n, x, y);
      } else {
        launch<convert<From, To>>(stream, grid_of(c.n, 4 * vectors_each), {threads}, 0, c.n, x, y, aligned(x, y));
      }
    });
  });
}

void run(Stream stream, const Map& c) {
  with_function(c.function, [&](auto function) { one(stream, name_of(c.function), function, c.dtype, c.n, c.x, c.y); });
}
void run(Stream stream, const MapGradient& c) {
  with_function(c.function,
                [&](auto function) { two(stream, name_of(c.function), function, c.dtype, c.n, c.kept, c.dy, c.dx); });
}
void run(Stream stream, const Combine& c) {
  switch (c.function) {
    case Binary::add:
      return two(stream, "add", Add{}, c.dtype, c.n, c.a, c.b, c.y);
    case Binary::multiply:
      return two(stream, "multiply", Multiply{}, c.dtype, c.n, c.a, c.b, c.y);
  }
}
void run(Stream stream, const kernels::Scale& c) { one(stream, c.name, Scale{c.factor}, c.dtype, c.n, c.x, c.y); }
void run(Stream stream, const ScaleBy& c) {
  if (c.n == 0) return;
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    launch<scale_by_one<T>>(stream, grid_of(c.n, vectors_each * vector_of<T>), {threads}, 0, c.factor, c.n,
                            static_cast<const T*>(c.x), static_cast<T*>(c.y), aligned(c.x, c.y));
  });
}

}  // namespace saccade::kernels::cuda
