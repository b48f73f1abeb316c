#pragma once

// Vectors of elements and what reduces them. A thread handles 16 bytes at a time: 8 halves or 4 floats.

#include <saccade/kernels/cuda/simt.h>
#include <saccade/kernels/error.h>

#include <string>
#include <string_view>

namespace saccade::kernels::cuda {

constexpr int lanes = 32;

/// N elements in storage, moved at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

/// N elements in work.
template <int N>
struct Floats {
  float at[N];
};

/// Elements that a thread moves at once.
template <class T>
constexpr int vector_of = 16 / static_cast<int>(sizeof(T));

template <class T, int N>
SACCADE_DEVICE Floats<N> widen(const Vec<T, N>& v) {
  Floats<N> result;
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) result.at[i] = to_float(v.at[i]);
  return result;
}

template <class T, int N>
SACCADE_DEVICE Vec<T, N> narrow(const Floats<N>& v) {
  Vec<T, N> result;
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) result.at[i] = from_float<T>(v.at[i]);
  return result;
}

/// A range of elements that may be touched; `aligned`: its array begins at a multiple of 16 bytes.
struct Range {
  int64_t begin, end;
  bool aligned;
};

/// Elements at .. at + N of p; 0 for those outside the range. `at` is a multiple of N.
template <int N, class T>
SACCADE_DEVICE Floats<N> load_floats(const T* p, int64_t at, const Range& range) {
  if (range.aligned && at >= range.begin && at + N <= range.end) {
    return widen(load(reinterpret_cast<const Vec<T, N>*>(p + at)));
  }
  Floats<N> result;
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) {
    result.at[i] = at + i >= range.begin && at + i < range.end ? to_float(load(p + at + i)) : 0.f;
  }
  return result;
}

/// The other way; elements outside the range stay as they are.
template <int N, class T>
SACCADE_DEVICE void store_floats(T* p, int64_t at, const Range& range, const Floats<N>& v) {
  if (range.aligned && at >= range.begin && at + N <= range.end) {
    store(reinterpret_cast<Vec<T, N>*>(p + at), narrow<T>(v));
    return;
  }
  SACCADE_UNROLL
  for (int i = 0; i < N; ++i) {
    if (at + i >= range.begin && at + i < range.end) store(p + at + i, from_float<T>(v.at[i]));
  }
}

SACCADE_DEVICE float larger(float a, float b) { return a > b ? a : b; }

template <class T>
SACCADE_DEVICE T warp_sum(T value) {
  SACCADE_UNROLL
  for (int by = 16; by > 0; by /= 2) value += shuffle_xor(value, by);
  return value;
}

SACCADE_DEVICE float warp_max(float value) {
  SACCADE_UNROLL
  for (int by = 16; by > 0; by /= 2) value = larger(value, shuffle_xor(value, by));
  return value;
}

/// Sum or maximum over a block of `warps` full warps in x, known to all threads afterwards. `parts`: shared memory of
/// `warps` elements, which a barrier keeps for this call: it may be used again at once.
template <int warps, class T>
SACCADE_DEVICE T block_sum(T value, T* parts) {
  value = warp_sum(value);
  if (thread_x() % lanes == 0) store(parts + thread_x() / lanes, value);
  sync_block();
  T sum = 0;
  SACCADE_UNROLL
  for (int i = 0; i < warps; ++i) sum += load(parts + i);
  sync_block();
  return sum;
}

template <int warps>
SACCADE_DEVICE float block_max(float value, float* parts) {
  value = warp_max(value);
  if (thread_x() % lanes == 0) store(parts + thread_x() / lanes, value);
  sync_block();
  float largest = load(parts);
  SACCADE_UNROLL
  for (int i = 1; i < warps; ++i) largest = larger(largest, load(parts + i));
  sync_block();
  return largest;
}

// ---- on the host

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
template <class... Pointers>
bool aligned(const void* first, Pointers... rest) {
  return aligned(first) && aligned(rest...);  // null is
}

inline int64_t divide_up(int64_t n, int64_t by) { return (n + by - 1) / by; }

/// A grid dimension.
inline unsigned blocks(int64_t n) { return static_cast<unsigned>(n); }

/// Elements that a thread moves at once, of a floating dtype.
constexpr int vector_elements(DType dtype) { return 16 / static_cast<int>(size_of(dtype)); }

/// Calls body(Type<T>) for the storage type of a dtype.
template <class Body>
void with_storage(DType dtype, std::string_view where, Body body) {
  if (!is_floating(dtype))
    throw Error(std::string(where) + ": expected elements of f32, f16 or bf16, got " + std::string(name_of(dtype)));
  with_type(dtype, [&]<class T>(Type<T> type) {
    if constexpr (!std::is_integral_v<T>) body(type);
  });
}

}  // namespace saccade::kernels::cuda
