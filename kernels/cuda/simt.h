#pragma once

// The words our kernels are written in: thread indices, barriers, shuffles, shared memory, loads and stores. nvcc gives
// them CUDA's meaning; the host compiler that of the emulator in tests/support/simt, where the same files are tested.
// No kernel uses anything of CUDA's that is not here. The rules that keep them emulatable are in docs/cuda.md.

#include <saccade/kernels/cuda/launch.h>
#include <saccade/kernels/dtype.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <saccade/kernels/error.h>

#include <string>

/// A kernel whose blocks have at most that many threads.
#define SACCADE_KERNEL(threads) static __global__ __launch_bounds__(threads) void
#define SACCADE_DEVICE __device__ __forceinline__
#define SACCADE_UNROLL _Pragma("unroll")
/// An array in shared memory. Its size is a constant.
#define SACCADE_SHARED(T, name, elements) __shared__ __align__(16) T name[elements]
/// The array of floats whose size the launch gives.
#define SACCADE_DYNAMIC_SHARED(name) extern __shared__ float name[]

namespace saccade::kernels::cuda {

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

SACCADE_DEVICE int thread_x() { return static_cast<int>(threadIdx.x); }
SACCADE_DEVICE int thread_y() { return static_cast<int>(threadIdx.y); }
SACCADE_DEVICE int64_t block_x() { return blockIdx.x; }
SACCADE_DEVICE int64_t block_y() { return blockIdx.y; }
SACCADE_DEVICE int64_t grid_x() { return gridDim.x; }

SACCADE_DEVICE void sync_block() { __syncthreads(); }
SACCADE_DEVICE void sync_warp() { __syncwarp(); }
SACCADE_DEVICE float shuffle_xor(float value, int by) { return __shfl_xor_sync(0xffffffffu, value, by); }
SACCADE_DEVICE double shuffle_xor(double value, int by) { return __shfl_xor_sync(0xffffffffu, value, by); }
SACCADE_DEVICE void raise_flag(float* flag) { atomicExch(flag, 1.f); }

/// The product, rounded: never fused with a sum that it goes into.
SACCADE_DEVICE float rounded_product(float a, float b) { return __fmul_rn(a, b); }
SACCADE_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
SACCADE_DEVICE float to_float(float value) { return value; }
SACCADE_DEVICE float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }
SACCADE_DEVICE float to_float(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
template <class T>
SACCADE_DEVICE T from_float(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else if constexpr (std::is_same_v<T, Half>) {
    return {__half_as_ushort(__float2half_rn(value))};
  } else {
    return {__bfloat16_as_ushort(__float2bfloat16_rn(value))};
  }
}

/// One element, or in global memory a vector of them. All that other threads may see is read and written by load and
/// store. Vectors are stored by an intrinsic: nvcc takes a plain assignment apart, and stores the elements one by one.
template <class T>
SACCADE_DEVICE T load(const T* from) {
  if constexpr (sizeof(T) == 16 || (sizeof(T) == 8 && !std::is_arithmetic_v<T>)) {
    using Words = std::conditional_t<sizeof(T) == 16, uint4, uint2>;
    const Words words = *reinterpret_cast<const Words*>(from);
    T value;
    memcpy(&value, &words, sizeof value);
    return value;
  } else {
    return *from;
  }
}
template <class T>
SACCADE_DEVICE void store(T* to, T value) {
  if constexpr (sizeof(T) == 16 || (sizeof(T) == 8 && !std::is_arithmetic_v<T>)) {
    std::conditional_t<sizeof(T) == 16, uint4, uint2> words;
    memcpy(&words, &value, sizeof value);
    __stwb(reinterpret_cast<decltype(words)*>(to), words);
  } else {
    *to = value;
  }
}

template <auto kernel, class... Arguments>
void launch(Stream stream, Extent grid, Extent block, size_t shared_bytes, Arguments... arguments) {
  kernel<<<dim3(grid.x, grid.y, grid.z), dim3(block.x, block.y, block.z), shared_bytes,
           static_cast<cudaStream_t>(stream)>>>(arguments...);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) {
    throw Error(std::string("a CUDA kernel could not be launched: ") + cudaGetErrorString(error));
  }
}

}  // namespace saccade::kernels::cuda

#else

#include <support/simt/kernel.h>

#define SACCADE_KERNEL(threads) static void
#define SACCADE_DEVICE inline
#define SACCADE_UNROLL
#define SACCADE_SHARED(T, name, elements) \
  static char name##_tag;                 \
  T* const name = static_cast<T*>(simt::shared_array(&name##_tag, sizeof(T) * (elements), #name))
#define SACCADE_DYNAMIC_SHARED(name) float* const name = static_cast<float*>(simt::dynamic_shared_array())

namespace saccade::kernels::cuda {

using Extent = simt::Dim;

inline int thread_x() { return static_cast<int>(simt::here().thread.x); }
inline int thread_y() { return static_cast<int>(simt::here().thread.y); }
inline int64_t block_x() { return simt::here().block.x; }
inline int64_t block_y() { return simt::here().block.y; }
inline int64_t grid_x() { return simt::here().grid_dim.x; }

inline void sync_block(simt::Site where = simt::Site::current()) { simt::sync_block(where); }
inline void sync_warp(simt::Site where = simt::Site::current()) { simt::sync_warp(0xffffffffu, where); }
template <class T>
T shuffle_xor(T value, int by, simt::Site where = simt::Site::current()) {
  return simt::bits_to<T>(
      simt::shuffle(simt::Shuffle::exclusive_or, 0xffffffffu, simt::bits_to<uint64_t>(value), by, where));
}
inline void raise_flag(float* flag, simt::Site where = simt::Site::current()) {
  simt::touch(flag, sizeof *flag, simt::Access::atomic, where);
  const float raised = 1.f;
  __atomic_store(flag, &raised, __ATOMIC_RELAXED);
}

inline float rounded_product(float a, float b) { return a * b; }
inline uint32_t bits_of(float value) { return simt::bits_to<uint32_t>(value); }
inline float to_float(float value) { return value; }
inline float to_float(Half value) { return value.to_float(); }
inline float to_float(BFloat16 value) { return value.to_float(); }
template <class T>
T from_float(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return T::from(value);
  }
}

template <class T>
T load(const T* from, simt::Site where = simt::Site::current()) {
  simt::touch(from, sizeof(T), simt::Access::load, where);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T>
void store(T* to, T value, simt::Site where = simt::Site::current()) {
  simt::touch(to, sizeof(T), simt::Access::store, where);
  std::memcpy(to, &value, sizeof value);
}

template <auto kernel, class... Arguments>
void launch(Stream stream, Extent grid, Extent block, size_t shared_bytes, Arguments... arguments) {
  simt::launch<kernel>(grid, block, shared_bytes, stream, arguments...);
}

}  // namespace saccade::kernels::cuda

#endif
