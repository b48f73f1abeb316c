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
struct ScaleBy {
  const float* factor;
  SACCADE_DEVICE float operator()(float x) const { return x * load(factor); }
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

template <int V, class Function, class... Vectors>
SACCADE_DEVICE Floats<V> mapped(Function map, const Vectors&... x) {
  Floats<V> v;
  SACCADE_UNROLL
  for (int j = 0; j < V; ++j) v.at[j] = map(x.at[j]...);
  return v;
}

template <class T, class Function, class... Inputs>
SACCADE_KERNEL(threads)
map_elements(Function map, int64_t n, T* y, bool aligned, Inputs... x) {
  constexpr int V = vector_of<T>;
  SACCADE_UNROLL
  for (int i = 0; i < vectors_each; ++i) {
    const int64_t at = ((block_x() * vectors_each + i) * threads + thread_x()) * V;
    if (at >= n) return;
    store_floats<V>(y, at, {0, n, aligned}, mapped<V>(map, load_floats<V>(x, at, {0, n, aligned})...));
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

/// y = function(inputs...).
template <class Function, class... Inputs>
void map(Stream stream, std::string_view name, Function function, DType dtype, int64_t n, void* y, Inputs... inputs) {
  if (n == 0) return;
  with_storage(dtype, name, [&]<class T>(Type<T>) {
    constexpr auto as_typed = [](const void* x) { return static_cast<const T*>(x); };
    launch<map_elements<T, Function, decltype(as_typed(inputs))...>>(stream, grid_of(n, vectors_each * vector_of<T>),
                                                                     {threads}, 0, function, n, static_cast<T*>(y),
                                                                     aligned(inputs..., y), as_typed(inputs)...);
  });
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
  Pattern pattern{};
  with_type(dtype, [&]<class T>(Type<T>) {
    if constexpr (requires { T::from(value); })
      pattern = repeat(T::from(value).bits);
    else
      pattern = repeat(static_cast<T>(value));
  });
  return pattern;
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
  with_type(c.from, [&]<class From>(Type<From>) {
    with_type(c.to, [&]<class To>(Type<To>) {
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
  with_function(c.function, [&](auto f) { map(stream, name_of(c.function), f, c.dtype, c.n, c.y, c.x); });
}
void run(Stream stream, const MapGradient& c) {
  with_function(c.function, [&](auto f) { map(stream, name_of(c.function), f, c.dtype, c.n, c.dx, c.kept, c.dy); });
}
void run(Stream stream, const Combine& c) {
  const auto combine = [&](auto f) { map(stream, name_of(c.function), f, c.dtype, c.n, c.y, c.a, c.b); };
  c.function == Binary::add ? combine(Add{}) : combine(Multiply{});
}
void run(Stream stream, const kernels::Scale& c) {
  const auto scale = [&](auto f) { map(stream, c.name, f, c.dtype, c.n, c.y, c.x); };
  c.by != nullptr ? scale(ScaleBy{c.by}) : scale(Scale{c.factor});
}

}  // namespace saccade::kernels::cuda
