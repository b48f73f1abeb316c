#include <saccade/kernels/cpu/simd/vector.h>
#include <saccade/kernels/rows.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

void run(const ColumnSum& call) {
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

void run(const Sum& call) {
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

/// Calls body(T{}, row) for all rows, on all threads; T is the storage type.
template <class Body>
SACCADE_INLINE void for_rows(const OnRows& on, Body body) {
  const int64_t rows_each = on.channels > 8192 ? 1 : 8192 / on.channels;
  with_storage(on.dtype, [=, rows = on.rows](auto type) {
    parallel_blocks(rows, rows_each, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(type, row);
    });
  });
}

void run(const L2Normalize& call) {
  for_rows(call, [call]<class T>(T, int64_t row) {
    const int64_t channels = call.channels;
    const T* in = static_cast<const T*>(call.x) + row * channels;
    T* to = static_cast<T*>(call.y) + row * channels;
    F squares = {};
    for_vectors(channels, [&](int64_t i, auto lanes) {
      const F v = load(in + i, lanes);
      squares += v * v;
    });
    const float root = __builtin_sqrtf(sum_of(squares)), length = root < call.eps ? call.eps : root;
    call.norm[row] = length;
    const F factor = splat(1.f / length);
    for_vectors(channels, [=](int64_t i, auto lanes) { store(to + i, load(in + i, lanes) * factor, lanes); });
  });
}

void run(const L2NormalizeGradient& call) {
  for_rows(call, [call]<class T>(T, int64_t row) {
    const int64_t channels = call.channels;
    const T* out = static_cast<const T*>(call.y) + row * channels;
    const T* gradient = static_cast<const T*>(call.dy) + row * channels;
    T* to = static_cast<T*>(call.dx) + row * channels;
    const float length = call.norm[row];
    F dot = {};
    if (length > call.eps) {  // a clamped norm is a constant
      for_vectors(channels, [&](int64_t i, auto lanes) { dot += load(out + i, lanes) * load(gradient + i, lanes); });
    }
    const F along = splat(sum_of(dot)), factor = splat(1.f / length);
    for_vectors(channels, [=](int64_t i, auto lanes) {
      store(to + i, (load(gradient + i, lanes) - load(out + i, lanes) * along) * factor, lanes);
    });
  });
}

void run(const LogSumExp& call) {
  for_rows(call, [call]<class T>(T, int64_t row) {
    const int64_t channels = call.channels;
    const T* in = static_cast<const T*>(call.x) + row * channels;
    F most = splat(-__builtin_inff()), sum = {};
    for_vectors(channels,
                [&](int64_t i, auto lanes) { most = max(most, keep(load(in + i, lanes), -__builtin_inff(), lanes)); });
    const float largest = max_of(most);
    for_vectors(channels, [&](int64_t i, auto lanes) { sum += keep(exp(load(in + i, lanes) - largest), 0, lanes); });
    call.out[row] = largest + __builtin_logf(sum_of(sum));
  });
}

void run(const LogSumExpGradient& call) {
  for_rows(call, [call]<class T>(T, int64_t row) {
    const int64_t channels = call.channels;
    const T* from = static_cast<const T*>(call.x) + row * channels;
    T* to = static_cast<T*>(call.dx) + row * channels;
    const float out = call.out[row], gradient = call.dout[row];
    for_vectors(channels,
                [=](int64_t i, auto lanes) { store(to + i, exp(load(from + i, lanes) - out) * gradient, lanes); });
  });
}

}  // namespace

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const ColumnSum&);
template void compute(const Sum&);
template void compute(const L2Normalize&);
template void compute(const L2NormalizeGradient&);
template void compute(const LogSumExp&);
template void compute(const LogSumExpGradient&);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
