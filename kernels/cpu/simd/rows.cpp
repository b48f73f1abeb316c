#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

void column_sum(DType dtype, int64_t rows, int64_t channels, const void* x, float* out) {
  with_storage(dtype, [=](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x);
    float* to = out;
    parallel_blocks(channels, 64, [=](int64_t begin, int64_t end) {
      for_vectors(end - begin, [=](int64_t i, auto lanes) {
        // Blocks of rows first: short sums lose less than one long one.
        F total = {};
        for (int64_t block = 0; block < rows; block += 256) {
          F part = {};
          for (int64_t row = block; row < rows && row < block + 256; ++row) {
            part += load(from + row * channels + begin + i, lanes);
          }
          total += part;
        }
        store(to + begin + i, total, lanes);
      });
    });
  });
}

void sum(DType dtype, int64_t n, const void* x, float* out) {
  constexpr int64_t most_blocks = 256;
  double partial[most_blocks];
  const int64_t even = (n + most_blocks - 1) / most_blocks, block = even > 16384 ? even : 16384;
  with_storage(dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x);
    double* to = partial;
    parallel_blocks(n, block, [=](int64_t begin, int64_t end) {
      double total = 0;
      for (int64_t i = begin; i < end; i += 1024) {
        F part = {};
        for_vectors((end - i < 1024 ? end - i : 1024),
                    [&](int64_t j, auto lanes) { part += load(from + i + j, lanes); });
        total += sum_of(part);
      }
      to[begin / block] = total;
    });
  });
  double total = 0;
  for (int64_t i = 0; i * block < n; ++i) total += partial[i];
  *out = static_cast<float>(total);
}

int64_t rows_a_block(int64_t channels) { return channels > 8192 ? 1 : 8192 / channels; }

void l2_normalize_forward(DType dtype, int64_t rows, int64_t channels, float eps, const void* x, void* y, float* norm) {
  with_storage(dtype, [=](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(x);
    T* to = static_cast<T*>(y);
    parallel_blocks(rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* in = from + row * channels;
        F squares = {};
        for_vectors(channels, [&](int64_t i, auto lanes) {
          const F v = load(in + i, lanes);
          squares += v * v;
        });
        const float length = __builtin_sqrtf(sum_of(squares));
        norm[row] = length < eps ? eps : length;
        const F factor = splat(1.f / norm[row]);
        for_vectors(channels, [&](int64_t i, auto lanes) {
          store(to + row * channels + i, load(in + i, lanes) * factor, lanes);
        });
      }
    });
  });
}

void l2_normalize_backward(DType dtype, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                           const void* dy, void* dx) {
  with_storage(dtype, [=](auto type) {
    using T = decltype(type);
    parallel_blocks(rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T *out = static_cast<const T*>(y) + row * channels,
                *gradient = static_cast<const T*>(dy) + row * channels;
        T* to = static_cast<T*>(dx) + row * channels;
        F dot = {};
        if (norm[row] > eps) {  // a clamped norm is a constant
          for_vectors(channels,
                      [&](int64_t i, auto lanes) { dot += load(out + i, lanes) * load(gradient + i, lanes); });
        }
        const F along = splat(sum_of(dot)), factor = splat(1.f / norm[row]);
        for_vectors(channels, [&](int64_t i, auto lanes) {
          store(to + i, (load(gradient + i, lanes) - load(out + i, lanes) * along) * factor, lanes);
        });
      }
    });
  });
}

}  // namespace

extern const RowKernels rows = {column_sum, sum, l2_normalize_forward, l2_normalize_backward};

}  // namespace saccade::kernels::cpu::SACCADE_ISA
