#include <saccade/kernels/cpu/simd/rows.h>
#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

void column_sum(const ColumnSum& call) {
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(call.x);
    float* to = call.out;
    const int64_t rows = call.rows, channels = call.channels;
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

void sum(const Sum& call) {
  constexpr int64_t most_blocks = 256;
  const int64_t n = call.n;
  double partial[most_blocks];
  const int64_t even = (n + most_blocks - 1) / most_blocks, block = even > 16384 ? even : 16384;
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(call.x);
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
  *call.out = static_cast<float>(total);
}

int64_t rows_a_block(int64_t channels) { return channels > 8192 ? 1 : 8192 / channels; }

void l2_normalize(const L2Normalize& call) {
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(call.x);
    T* to = static_cast<T*>(call.y);
    float* norm = call.norm;
    const float eps = call.eps;
    const int64_t channels = call.channels;
    parallel_blocks(call.rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
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

void l2_normalize_gradient(const L2NormalizeGradient& call) {
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T *ys = static_cast<const T*>(call.y), *dys = static_cast<const T*>(call.dy);
    T* dxs = static_cast<T*>(call.dx);
    const float *norm = call.norm, eps = call.eps;
    const int64_t channels = call.channels;
    parallel_blocks(call.rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T *out = ys + row * channels, *gradient = dys + row * channels;
        T* to = dxs + row * channels;
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

void log_sum_exp(const LogSumExp& call) {
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(call.x);
    float* out = call.out;
    const int64_t channels = call.channels;
    parallel_blocks(call.rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T* in = from + row * channels;
        F most = splat(-__builtin_inff()), sum = {};
        for_vectors(channels, [&](int64_t i, auto lanes) {
          most = max(most, keep(load(in + i, lanes), -__builtin_inff(), lanes));
        });
        const float largest = max_of(most);
        for_vectors(channels,
                    [&](int64_t i, auto lanes) { sum += keep(exp(load(in + i, lanes) - largest), 0, lanes); });
        out[row] = largest + __builtin_logf(sum_of(sum));
      }
    });
  });
}

void log_sum_exp_gradient(const LogSumExpGradient& call) {
  with_storage(call.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(call.x);
    T* to = static_cast<T*>(call.dx);
    const float *out = call.out, *gradient = call.dout;
    const int64_t channels = call.channels;
    parallel_blocks(call.rows, rows_a_block(channels), [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for_vectors(channels, [=, at = row * channels](int64_t i, auto lanes) {
          store(to + at + i, exp(load(from + at + i, lanes) - out[row]) * gradient[row], lanes);
        });
      }
    });
  });
}

}  // namespace

}  // namespace saccade::kernels::cpu::SACCADE_ISA

namespace saccade::kernels::cpu {
const RowKernels RowKernels::SACCADE_ISA = {SACCADE_ISA::column_sum,   SACCADE_ISA::sum,
                                            SACCADE_ISA::l2_normalize, SACCADE_ISA::l2_normalize_gradient,
                                            SACCADE_ISA::log_sum_exp,  SACCADE_ISA::log_sum_exp_gradient};
}  // namespace saccade::kernels::cpu
