#include <omp.h>
#include <saccade/kernels/cpu/simd/vector.h>

// Batch normalisation streams: forward reads x for its statistics and again to apply them, backward reads x and dy
// twice. Each pass works on rows in contiguous order, four rows at a time so that per-channel values are loaded once
// for four uses. A thread owns a fixed range of chunks and walks it backwards in the second pass: what it read last is
// still in its cache.
namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

constexpr int64_t small_call = 16384;  ///< elements below which one thread is faster
constexpr int64_t column_block = 64;   ///< channels finished by one thread at a time
constexpr int64_t partials = BatchNormCall::partial_rows, coefficient_rows = BatchNormCall::coefficient_rows;

/// Beyond this a result has left the caches when its reader comes: it is stored past them.
constexpr int64_t cached_elements = 6 << 20;

template <bool>
struct Choice {};

struct Chunk {
  int64_t segment, row, rows;
};

Chunk locate(const BatchNormCall& call, int64_t index) {
  int64_t segment = 0, first_row = 0;
  for (;; ++segment) {
    const Segment& s = call.segments[segment];
    const int64_t rows = s.n * s.h * s.w, chunks = (rows + call.chunk_rows - 1) / call.chunk_rows;
    if (index < chunks) {
      const int64_t begin = index * call.chunk_rows, left = rows - begin;
      return {segment, first_row + begin, left < call.chunk_rows ? left : call.chunk_rows};
    }
    index -= chunks;
    first_row += rows;
  }
}

int64_t all_rows(const BatchNormCall& call) {
  int64_t rows = 0;
  for (int64_t s = 0; s < call.segment_count; ++s) rows += call.segments[s].n * call.segments[s].h * call.segments[s].w;
  return rows;
}

template <int n>
struct Count {};

/// Calls body(row, Count) for groups of `Rows` rows, then for the rows left one by one.
template <int Rows, class Body>
SACCADE_INLINE void for_row_groups(int64_t rows, Body body) {
  int64_t row = 0;
  for (; row + Rows <= rows; row += Rows) body(row, Count<Rows>{});
  for (; row < rows; ++row) body(row, Count<1>{});
}

/// This thread's share of n items.
SACCADE_INLINE void share(int64_t n, int64_t& begin, int64_t& end) {
  const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
  begin = n * thread / threads;
  end = n * (thread + 1) / threads;
}

/// The two passes and what lies between, on all threads: reduce(chunk) for every chunk, finish(first channel, last
/// channel) for blocks of channels, apply(chunk) for every chunk.
template <class Reduce, class Finish, class Apply>
SACCADE_INLINE void two_passes(const BatchNormCall& call, Reduce reduce, Finish finish, Apply apply) {
  const int64_t channels = call.spec.channels;
#pragma omp parallel if (all_rows(call) * channels > small_call)
  {
    int64_t begin, end, first, last;
    share(call.chunks, begin, end);
    share((channels + column_block - 1) / column_block, first, last);
    for (int64_t i = begin; i < end; ++i) reduce(i);
#pragma omp barrier
    for (int64_t i = first; i < last; ++i) {
      finish(i * column_block, (i + 1) * column_block < channels ? (i + 1) * column_block : channels);
    }
#pragma omp barrier
    for (int64_t i = end - 1; i >= begin; --i) apply(i);
  }
}

/// A chunk's shift (the mean of its first rows), and the sums of x - shift and of its square: shifted by about the
/// mean, the variance does not cancel away. Eight rows are added up before they join the sum: short sums lose less.
template <class T>
void reduce_forward(const BatchNormCall& call, int64_t index) {
  const int64_t channels = call.spec.channels;
  const Chunk chunk = locate(call, index);
  const T* x = static_cast<const T*>(call.x) + chunk.row * channels;
  float* shifts = call.partial_sums + index * partials * call.padded;
  float *sums = shifts + call.padded, *squares = sums + call.padded;
  const int64_t first_rows = chunk.rows < 8 ? chunk.rows : 8;
  for_vectors(channels, [=](int64_t c, auto lanes) {
    F sum = {};
    for (int64_t i = 0; i < first_rows; ++i) sum += load(x + i * channels + c, lanes);
    store(shifts + c, sum * (1.f / static_cast<float>(first_rows)));
    store(sums + c, F{});
    store(squares + c, F{});
  });
  for_row_groups<8>(chunk.rows, [=]<int count>(int64_t row, Count<count>) {
    for_vectors(channels, [=](int64_t c, auto lanes) {
      const F shift = load(shifts + c);
      F sum = {}, square = {};
      for (int i = 0; i < count; ++i) {
        const F d = load(x + (row + i) * channels + c, lanes) - shift;
        sum += d;
        square += d * d;
      }
      store(sums + c, load(sums + c) + sum);
      store(squares + c, load(squares + c) + square);
    });
  });
}

/// Joins the chunks of each segment (Chan, Golub & LeVeque 1979, in double) into mean and rstd, and updates the running
/// statistics.
void finish_forward(const BatchNormCall& call, int64_t first, int64_t last) {
  const int64_t channels = call.spec.channels, count = last - first;
  int64_t index = 0;
  for (int64_t s = 0; s < call.segment_count; ++s) {
    double mean[column_block] = {}, m2[column_block] = {};
    const int64_t rows = call.segments[s].n * call.segments[s].h * call.segments[s].w;
    for (int64_t done = 0; done < rows; done += call.chunk_rows, ++index) {
      const int64_t n = rows - done < call.chunk_rows ? rows - done : call.chunk_rows;
      const float* shifts = call.partial_sums + index * partials * call.padded + first;
      const float *sums = shifts + call.padded, *squares = sums + call.padded;
      const double inverse = 1. / static_cast<double>(n),
                   weight = static_cast<double>(n) / static_cast<double>(done + n);
      const double between = weight * static_cast<double>(done);
      for (int64_t c = 0; c < count; ++c) {
        const double d = sums[c] * inverse, delta = shifts[c] + d - mean[c];
        mean[c] += delta * weight;
        m2[c] += squares[c] - sums[c] * d + delta * delta * between;
      }
    }
    if (rows == 0) continue;
    const float momentum = call.spec.momentum;
    for (int64_t c = 0; c < count; ++c) {
      const double squares = m2[c] < 0 ? 0 : m2[c];  // rounding; NaN stays
      const double variance = squares / static_cast<double>(rows);
      const double unbiased = squares / static_cast<double>(rows > 1 ? rows - 1 : 1);
      const int64_t channel = first + c;
      call.mean[s * channels + channel] = static_cast<float>(mean[c]);
      call.rstd[s * channels + channel] = static_cast<float>(1. / __builtin_sqrt(variance + call.spec.eps));
      if (call.running_mean != nullptr) {
        float &running_mean = call.running_mean[channel], &running_var = call.running_var[channel];
        running_mean += momentum * (static_cast<float>(mean[c]) - running_mean);
        running_var += momentum * (static_cast<float>(unbiased) - running_var);
      }
    }
  }
}

template <class T, bool Relu, bool Residual, bool Stream>
void apply_forward(const BatchNormCall& call, int64_t index) {
  const int64_t channels = call.spec.channels;
  const Chunk chunk = locate(call, index);
  const float *means = call.mean + chunk.segment * channels, *rstds = call.rstd + chunk.segment * channels;
  const float *gammas = call.gamma, *betas = call.beta;
  const T* x = static_cast<const T*>(call.x) + chunk.row * channels;
  const T* residual = Residual ? static_cast<const T*>(call.residual) + chunk.row * channels : nullptr;
  T* y = static_cast<T*>(call.y) + chunk.row * channels;
  for_row_groups<4>(chunk.rows, [=]<int count>(int64_t row, Count<count>) {
    for_vectors(channels, [=](int64_t c, auto lanes) {
      const F mean = load(means + c, lanes), scale = load(gammas + c, lanes) * load(rstds + c, lanes);
      const F beta = load(betas + c, lanes);
      for (int i = 0; i < count; ++i) {
        const int64_t at = (row + i) * channels + c;
        F v = fma(load(x + at, lanes) - mean, scale, beta);
        if constexpr (Residual) v += load(residual + at, lanes);
        if constexpr (Relu) v = v < 0.f ? F{} : v;
        if constexpr (Stream) {
          stream(y + at, v);
        } else {
          store(y + at, v, lanes);
        }
      }
    });
  });
  if constexpr (Stream) _mm_sfence();
}

/// Calls run with the apply_forward of a call.
template <class T, class Run>
SACCADE_INLINE void with_apply(const BatchNormCall& call, Run run) {
  auto with_residual = [&]<bool Stream>(Choice<Stream>) {
    if (call.spec.relu) {
      call.residual ? run(apply_forward<T, true, true, Stream>) : run(apply_forward<T, true, false, Stream>);
    } else {
      call.residual ? run(apply_forward<T, false, true, Stream>) : run(apply_forward<T, false, false, Stream>);
    }
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    const bool whole = call.spec.channels % width == 0 && reinterpret_cast<uintptr_t>(call.y) % sizeof(F) == 0;
    if (whole && all_rows(call) * call.spec.channels > cached_elements) return with_residual(Choice<true>{});
  }
  with_residual(Choice<false>{});
}

void forward(const BatchNormCall& call) {
  with_storage(call.spec.dtype, [&](auto type) {
    using T = decltype(type);
    with_apply<T>(call, [&](auto apply) {
      two_passes(
          call, [&](int64_t i) { reduce_forward<T>(call, i); },
          [&](int64_t first, int64_t last) { finish_forward(call, first, last); }, [&](int64_t i) { apply(call, i); });
    });
  });
}

void apply(const BatchNormCall& call) {
  with_storage(call.spec.dtype, [&](auto type) {
    with_apply<decltype(type)>(call, [&](auto apply) {
#pragma omp parallel for schedule(static) if (all_rows(call) * call.spec.channels > small_call)
      for (int64_t i = 0; i < call.chunks; ++i) apply(call, i);
    });
  });
}

/// Where the ReLU mask of a backward pass comes from.
enum class Mask { none, from_y, from_x };

/// dy where the ReLU was open. `scale` is gamma * rstd.
template <Mask mask, class T, class Lanes>
SACCADE_INLINE F masked(F dy, F centred, const T* y, F scale, F beta, Lanes lanes) {
  if constexpr (mask == Mask::from_y) return load(y, lanes) > 0.f ? dy : F{};
  if constexpr (mask == Mask::from_x) return fma(centred, scale, beta) > 0.f ? dy : F{};
  return dy;
}

/// Sums of dy' (dy behind the ReLU) and of dy' (x - mean).
template <class T, Mask mask>
void reduce_backward(const BatchNormCall& call, int64_t index) {
  const int64_t channels = call.spec.channels;
  const Chunk chunk = locate(call, index);
  const int64_t offset = chunk.row * channels;
  const T *x = static_cast<const T*>(call.x) + offset, *dy = static_cast<const T*>(call.dy) + offset;
  const T* y = mask == Mask::from_y ? static_cast<const T*>(call.saved_y) + offset : nullptr;
  const float *means = call.mean + chunk.segment * channels, *rstds = call.rstd + chunk.segment * channels;
  const float *gammas = call.gamma, *betas = call.beta;
  float *sums = call.partial_sums + index * partials * call.padded, *products = sums + call.padded;
  for (int64_t i = 0; i < 2 * call.padded; i += width) store(sums + i, F{});
  for_row_groups<4>(chunk.rows, [=]<int count>(int64_t row, Count<count>) {
    for_vectors(channels, [=](int64_t c, auto lanes) {
      const F mean = load(means + c, lanes);
      F scale = {}, beta = {};
      if constexpr (mask == Mask::from_x)
        scale = load(gammas + c, lanes) * load(rstds + c, lanes), beta = load(betas + c, lanes);
      F sum = {}, product = {};
      for (int i = 0; i < count; ++i) {
        const int64_t at = (row + i) * channels + c;
        const F centred = load(x + at, lanes) - mean;
        const F g = masked<mask>(load(dy + at, lanes), centred, y + at, scale, beta, lanes);
        sum += g;
        product = fma(g, centred, product);
      }
      store(sums + c, load(sums + c) + sum);
      store(products + c, load(products + c) + product);
    });
  });
}

/// dgamma and dbeta (over all segments), and each segment's coefficients a, b, d of dx = a dy' + b (x - mean) + d:
/// with xhat = (x - mean) rstd, dx = gamma rstd (dy' - mean(dy') - xhat mean(dy' xhat)).
void finish_backward(const BatchNormCall& call, int64_t first, int64_t last) {
  const int64_t channels = call.spec.channels, count = last - first;
  double dgamma[column_block] = {}, dbeta[column_block] = {};
  int64_t index = 0;
  for (int64_t s = 0; s < call.segment_count; ++s) {
    double sum[column_block] = {}, product[column_block] = {};
    const int64_t rows = call.segments[s].n * call.segments[s].h * call.segments[s].w;
    for (int64_t done = 0; done < rows; done += call.chunk_rows, ++index) {
      const float *sums = call.partial_sums + index * partials * call.padded + first, *products = sums + call.padded;
      for (int64_t c = 0; c < count; ++c) sum[c] += sums[c], product[c] += products[c];
    }
    if (rows == 0) continue;
    float* coefficient = call.coefficients + s * coefficient_rows * call.padded + first;
    for (int64_t c = 0; c < count; ++c) {
      const double rstd = call.rstd[s * channels + first + c], a = call.gamma[first + c] * rstd;
      dgamma[c] += product[c] * rstd;
      dbeta[c] += sum[c];
      coefficient[c] = static_cast<float>(a);
      coefficient[call.padded + c] = static_cast<float>(-a * rstd * rstd * product[c] / static_cast<double>(rows));
      coefficient[2 * call.padded + c] = static_cast<float>(-a * sum[c] / static_cast<double>(rows));
    }
  }
  for (int64_t c = 0; c < count; ++c) {
    call.dgamma[first + c] = static_cast<float>(dgamma[c]);
    call.dbeta[first + c] = static_cast<float>(dbeta[c]);
  }
}

template <class T, Mask mask, bool Residual>
void apply_backward(const BatchNormCall& call, int64_t index) {
  const int64_t channels = call.spec.channels, padded = call.padded;
  const Chunk chunk = locate(call, index);
  const int64_t offset = chunk.row * channels;
  const T *x = static_cast<const T*>(call.x) + offset, *dy = static_cast<const T*>(call.dy) + offset;
  const T* y = mask == Mask::from_y ? static_cast<const T*>(call.saved_y) + offset : nullptr;
  T* dx = static_cast<T*>(call.dx) + offset;
  T* dresidual = Residual ? static_cast<T*>(call.dresidual) + offset : nullptr;
  const float* coefficients = call.coefficients + chunk.segment * coefficient_rows * padded;
  const float *means = call.mean + chunk.segment * channels, *rstds = call.rstd + chunk.segment * channels;
  const float *gammas = call.gamma, *betas = call.beta;
  for_row_groups<4>(chunk.rows, [=]<int count>(int64_t row, Count<count>) {
    for_vectors(channels, [=](int64_t c, auto lanes) {
      const F a = load(coefficients + c), b = load(coefficients + padded + c), d = load(coefficients + 2 * padded + c);
      const F mean = load(means + c, lanes);
      F scale = {}, beta = {};
      if constexpr (mask == Mask::from_x)
        scale = load(gammas + c, lanes) * load(rstds + c, lanes), beta = load(betas + c, lanes);
      for (int i = 0; i < count; ++i) {
        const int64_t at = (row + i) * channels + c;
        const F centred = load(x + at, lanes) - mean;
        const F g = masked<mask>(load(dy + at, lanes), centred, y + at, scale, beta, lanes);
        store(dx + at, fma(a, g, fma(b, centred, d)), lanes);
        if constexpr (Residual) store(dresidual + at, g, lanes);
      }
    });
  });
}

template <class T, Mask mask>
void backward_of(const BatchNormCall& call) {
  auto run = [&](auto apply) {
    two_passes(
        call, [&](int64_t i) { reduce_backward<T, mask>(call, i); },
        [&](int64_t first, int64_t last) { finish_backward(call, first, last); }, [&](int64_t i) { apply(call, i); });
  };
  call.dresidual ? run(apply_backward<T, mask, true>) : run(apply_backward<T, mask, false>);
}

void backward(const BatchNormCall& call) {
  with_storage(call.spec.dtype, [&](auto type) {
    using T = decltype(type);
    if (!call.spec.relu) return backward_of<T, Mask::none>(call);
    call.saved_y ? backward_of<T, Mask::from_y>(call) : backward_of<T, Mask::from_x>(call);
  });
}

void inference(const BatchNorm& spec, int64_t rows, const void* x, const void* residual, const float* gamma,
               const float* beta, const float* running_mean, const float* running_var, void* y) {
  const int64_t channels = spec.channels;
  const float eps = spec.eps;
  const bool relu = spec.relu;
  with_storage(spec.dtype, [=](auto type) {
    using T = decltype(type);
    parallel_blocks(rows, channels < 512 ? 32 : 16, [=](int64_t begin, int64_t end) {
      for_vectors(channels, [=](int64_t c, auto lanes) {
        const F mean = load(running_mean + c, lanes), shift = load(beta + c, lanes),
                variance = load(running_var + c, lanes) + eps;
        F scale = load(gamma + c, lanes);
        for (int i = 0; i < width; ++i) scale[i] /= __builtin_sqrtf(variance[i]);
        for (int64_t row = begin; row < end; ++row) {
          const int64_t at = row * channels + c;
          F v = (load(static_cast<const T*>(x) + at, lanes) - mean) * scale + shift;
          if (residual != nullptr) v += load(static_cast<const T*>(residual) + at, lanes);
          if (relu) v = v < 0.f ? F{} : v;
          store(static_cast<T*>(y) + at, v, lanes);
        }
      });
    });
  });
}

}  // namespace

extern const BatchNormKernels batch_norm = {forward, apply, backward, inference};

}  // namespace saccade::kernels::cpu::SACCADE_ISA
