#pragma once

#include <omp.h>
#include <saccade/kernels/backend.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <new>

/// What this machine can do at most, measured once in the same run: the denominators of "% of peak".
namespace saccade::bench {

/// Memory as the library's arena hands it out: huge pages where they can be had, every page touched; values in [-1, 1).
class Buffer {
 public:
  explicit Buffer(size_t bytes) {
    constexpr size_t page = 2 << 20;
    const size_t rounded = (bytes + page - 1) / page * page;
    data_ = std::aligned_alloc(page, rounded);
    if (data_ == nullptr) throw std::bad_alloc();
    madvise(data_, rounded, MADV_HUGEPAGE);
    uint32_t state = 1;
    for (size_t i = 0; i < rounded / sizeof(float); ++i) {
      state = state * 1664525u + 1013904223u;
      as<float>()[i] = static_cast<float>(state >> 8) * 0x1p-23f - 1.f;
    }
  }
  ~Buffer() { std::free(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

/// Best of `repeats` runs of body(thread, threads) on all threads, in units of work a second, where each thread does
/// `work`. By each thread's processor time: other programs at work do not lower it.
template <class Body>
double rate(double work, int repeats, Body body) {
  const auto processor_seconds = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  double best = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    double sum = 0;
#pragma omp parallel reduction(+ : sum)
    {
      const double start = processor_seconds();
      body(omp_get_thread_num(), omp_get_num_threads());
      sum += work / (processor_seconds() - start);
    }
    best = std::max(best, sum);
  }
  return best;
}

#define SACCADE_CONTRACT optimize("O3", "fp-contract=fast")

template <int width>
[[gnu::always_inline]] inline void multiply_add(int64_t steps) {
  typedef float V __attribute__((vector_size(4 * width)));  // NOLINT(modernize-use-using): g++ 12 would lose the size
  V a = V{} + 1.0001f, s[10] = {};                          // ten chains hide the latency of a multiply-add
  for (int64_t i = 0; i < steps; ++i) {
    for (V& v : s) {
      v = v * a + a;
      asm volatile("" : "+x"(v));
    }
  }
}
[[gnu::target("avx512f,fma"), gnu::SACCADE_CONTRACT]] inline void multiply_add_avx512(int64_t n) {
  multiply_add<16>(n);
}
[[gnu::target("avx2,fma"), gnu::SACCADE_CONTRACT]] inline void multiply_add_avx2(int64_t n) { multiply_add<8>(n); }
[[gnu::SACCADE_CONTRACT]] inline void multiply_add_baseline(int64_t n) { multiply_add<4>(n); }

/// f32 operations a second of all threads, 2 a multiply-add, with the instruction set in use.
inline double peak_flops() {
  static const double measured = [] {
    using kernels::Isa;
    const Isa isa = kernels::cpu_isa();
    const auto loop = isa == Isa::avx512 ? multiply_add_avx512
                      : isa == Isa::avx2 ? multiply_add_avx2
                                         : multiply_add_baseline;
    constexpr int64_t steps = 100'000;
    const double width = isa == Isa::avx512 ? 16 : isa == Isa::avx2 ? 8 : 4;
    return rate(2. * 10 * width * steps, 20, [&](int, int) { loop(steps); });
  }();
  return measured;
}

/// Bytes a second of all threads between the processor and memory, beyond the caches, as STREAM's triad counts them:
/// y = a + s b, 12 bytes an element.
inline double peak_bytes() {
  static const double measured = [] {
    constexpr int64_t elements = 16 << 20;  // 64 MiB an array
    const Buffer a(elements * 4), b(elements * 4), y(elements * 4);
    const int64_t part = elements / omp_get_max_threads();
    return rate(12. * static_cast<double>(part), 10, [&](int thread, int) {
      using V [[gnu::vector_size(16), gnu::may_alias]] = float;
      const V* from = reinterpret_cast<const V*>(a.as<float>() + part / 4 * 4 * thread);
      const V* and_from = reinterpret_cast<const V*>(b.as<float>() + part / 4 * 4 * thread);
      V* to = reinterpret_cast<V*>(y.as<float>() + part / 4 * 4 * thread);
      for (int64_t i = 0; i < part / 4; ++i) to[i] = from[i] + 0.5f * and_from[i];
      asm volatile("" : : "r"(to) : "memory");
    });
  }();
  return measured;
}

}  // namespace saccade::bench
