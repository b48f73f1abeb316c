#include <omp.h>
#include <saccade/kernels/cpu/simd/batch_norm.h>
#include <saccade/kernels/cpu/simd/vector.h>

// Batch normalisation streams: forward reads x for its statistics and again to apply them, backward reads x and dy
// twice. Each pass works on rows in contiguous order, four rows at a time so that per-channel values are loaded once
// for four uses. A thread owns a fixed range of chunks and walks it backwards in the second pass: what it read last is
// still in its cache.
namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

constexpr int64_t small_call = 16384;  ///< elements below which one thread is faster
constexpr int64_t column_block = 64;   ///< channels finished by one thread at a time
constexpr int64_t partials = BatchNormPlan::partial_rows;

/// Beyond this a result has left the caches when its reader comes: it is stored past them.
constexpr int64_t cached_elements = 6 << 20;

template <bool>
struct Choice {};

struct Chunk {
  int64_t segment, row, rows;
};

Chunk locate(const BatchNormPlan& plan, int64_t index) {
  int64_t segment = 0, first_row = 0;
  for (;; ++segment) {
    const Segment& s = plan.segments[segment];
    const int64_t rows = s.n * s.h * s.w, chunks = (rows + plan.chunk_rows - 1) / plan.chunk_rows;
    if (index < chunks) {
      const int64_t begin = index * plan.chunk_rows, left = rows - begin;
      return {segment, first_row + begin, left < plan.chunk_rows ? left : plan.chunk_rows};
    }
    index -= chunks;
    first_row += rows;
  }
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

/// A pass that reduces, on all threads: reduce(chunk) for every chunk, then finish(first channel, last channel) for
/// blocks of channels.
template <class Reduce, class Finish>
SACCADE_INLINE void reduce_rows(const BatchNormPlan& plan, Reduce reduce, Finish finish) {
  const int64_t channels = plan.channels;
#pragma omp parallel if (plan.all_rows * channels > small_call)
  {
    int64_t begin, end, first, last;
    share(plan.chunks, begin, end);
    share((channels + column_block - 1) / column_block, first, last);
    for (int64_t i = begin; i < end; ++i) reduce(i);
#pragma omp barrier
    for (int64_t i = first; i < last; ++i) {
      finish(i * column_block, (i + 1) * column_block < channels ? (i + 1) * column_block : channels);
    }
  }
}

/// A pass that maps, on all threads: map(chunk) for every chunk, each thread's backwards.
template <class Map>
SACCADE_INLINE void map_rows(const BatchNormPlan& plan, Map map) {
#pragma omp parallel if (plan.all_rows * plan.channels > small_call)
  {
    int64_t begin, end;
    share(plan.chunks, begin, end);
    for (int64_t i = end - 1; i >= begin; --i) map(i);
  }
}

/// A chunk's shift (the mean of its first rows), and the sums of x - shift and of its square: shifted by about the
/// mean, the variance does not cancel away. Eight rows are added up before they join the sum: short sums lose less.
template <class T>
void reduce_moments(const BatchNormPlan& plan, const BatchNormMoments& call, int64_t index) {
  const int64_t channels = plan.channels;
  const Chunk chunk = locate(plan, index);
  const T* x = static_cast<const T*>(call.x) + chunk.row * channels;
  float* shifts = plan.partial_sums + index * partials * plan.padded;
  float *sums = shifts + plan.padded, *squares = sums + plan.padded;
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

/// Joins the chunks of each segment (Chan, Golub & LeVeque 1979, in double) into its moments.
void finish_moments(const BatchNormPlan& plan, const BatchNormMoments& call, int64_t first, int64_t last) {
  const int64_t channels = plan.channels, count = last - first;
  double* const all_squares = static_cast<double*>(call.workspace);
  int64_t index = 0;
  for (int64_t s = 0; s < plan.segment_count; ++s) {
    double mean[column_block] = {}, m2[column_block] = {};
    const int64_t rows = plan.segments[s].n * plan.segments[s].h * plan.segments[s].w;
    for (int64_t done = 0; done < rows; done += plan.chunk_rows, ++index) {
      const int64_t n = rows - done < plan.chunk_rows ? rows - done : plan.chunk_rows;
      const float* shifts = plan.partial_sums + index * partials * plan.padded + first;
      const float *sums = shifts + plan.padded, *squares = sums + plan.padded;
      const double inverse = 1. / static_cast<double>(n),
                   weight = static_cast<double>(n) / static_cast<double>(done + n);
      const double between = weight * static_cast<double>(done);
      for (int64_t c = 0; c < count; ++c) {
        const double d = sums[c] * inverse, delta = shifts[c] + d - mean[c];
        mean[c] += delta * weight;
        m2[c] += squares[c] - sums[c] * d + delta * delta * between;
      }
    }
    for (int64_t c = 0; c < count; ++c) {
      const int64_t at = s * channels + first + c;
      call.mean[at] = static_cast<float>(mean[c]);
      all_squares[at] = m2[c] < 0 ? 0 : m2[c];  // rounding; NaN stays
    }
  }
}

void run(const BatchNormMoments& call, const BatchNormPlan& plan) {
  with_storage(call.norm.dtype, [&](auto type) {
    using T = decltype(type);
    reduce_rows(
        plan, [&](int64_t i) { reduce_moments<T>(plan, call, i); },
        [&](int64_t first, int64_t last) { finish_moments(plan, call, first, last); });
  });
}

void run(const BatchNormMerge& call, const BatchNormPlan& plan) {
  const int64_t channels = plan.channels, statistics = plan.segment_count * channels, parts = call.parts;
  const int64_t next_means = call.part_floats > 0 ? call.part_floats : statistics;
  const int64_t next_squares = call.part_floats > 0 ? call.part_floats / 2 : statistics;
  const float momentum = call.norm.momentum, eps = call.norm.eps;
  parallel_blocks(channels, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t s = 0; s < plan.segment_count; ++s) {
      const Segment& segment = plan.segments[s];
      const int64_t even = segment.n * segment.h * segment.w, more = even / call.images;
      const int64_t rows = parts * even + call.larger * more;
      if (rows == 0) continue;
      for (int64_t channel = begin; channel < end; ++channel) {
        const int64_t at = s * channels + channel;
        double mean = call.means[at], squares = call.squares[at];
        int64_t joined = even + (call.larger > 0 ? more : 0);
        for (int64_t part = 1; part < parts; ++part) {
          const int64_t part_rows = even + (part < call.larger ? more : 0), before = joined;
          joined += part_rows;
          const double delta = call.means[part * next_means + at] - mean;
          const double weight = static_cast<double>(part_rows) / static_cast<double>(joined);
          mean += delta * weight;
          squares += call.squares[part * next_squares + at] + delta * delta * weight * static_cast<double>(before);
        }
        const float as_float = static_cast<float>(mean);
        const double variance = squares / static_cast<double>(rows);
        const double unbiased = squares / static_cast<double>(rows > 1 ? rows - 1 : 1);
        call.mean[at] = as_float;
        call.rstd[at] = static_cast<float>(1. / __builtin_sqrt(variance + eps));
        if (call.running_mean != nullptr) {
          float &running_mean = call.running_mean[channel], &running_var = call.running_var[channel];
          running_mean += momentum * (as_float - running_mean);
          running_var += momentum * (static_cast<float>(unbiased) - running_var);
        }
      }
    }
  });
}

template <class T, bool Relu, bool Residual, bool Stream>
void apply_chunk(const BatchNormPlan& plan, const BatchNormApply& call, int64_t index) {
  const int64_t channels = plan.channels;
  const Chunk chunk = locate(plan, index);
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

void run(const BatchNormApply& call, const BatchNormPlan& plan) {
  with_storage(call.norm.dtype, [&](auto type) {
    using T = decltype(type);
    const auto with = [&]<bool Stream>(Choice<Stream>) {
      const auto run = [&](auto chunk) { map_rows(plan, [&](int64_t i) { chunk(plan, call, i); }); };
      if (call.norm.relu) {
        call.residual ? run(apply_chunk<T, true, true, Stream>) : run(apply_chunk<T, true, false, Stream>);
      } else {
        call.residual ? run(apply_chunk<T, false, true, Stream>) : run(apply_chunk<T, false, false, Stream>);
      }
    };
    if constexpr (sizeof(T) == sizeof(float)) {
      const bool whole = plan.channels % width == 0 && reinterpret_cast<uintptr_t>(call.y) % sizeof(F) == 0;
      if (whole && plan.all_rows * plan.channels > cached_elements) return with(Choice<true>{});
    }
    with(Choice<false>{});
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
void reduce_backward(const BatchNormPlan& plan, const BatchNormBackwardSums& call, int64_t index) {
  const int64_t channels = plan.channels;
  const Chunk chunk = locate(plan, index);
  const int64_t offset = chunk.row * channels;
  const T *x = static_cast<const T*>(call.x) + offset, *dy = static_cast<const T*>(call.dy) + offset;
  const T* y = mask == Mask::from_y ? static_cast<const T*>(call.y) + offset : nullptr;
  const float *means = call.mean + chunk.segment * channels, *rstds = call.rstd + chunk.segment * channels;
  const float *gammas = call.gamma, *betas = call.beta;
  float *sums = plan.partial_sums + index * partials * plan.padded, *products = sums + plan.padded;
  for (int64_t i = 0; i < 2 * plan.padded; i += width) store(sums + i, F{});
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

/// dgamma and dbeta (over all segments), and each segment's factors a, b, d of dx = a dy' + b (x - mean) + d: with xhat
/// = (x - mean) rstd, dx = gamma rstd (dy' - mean(dy') - xhat mean(dy' xhat)).
void finish_backward(const BatchNormPlan& plan, const BatchNormBackwardSums& call, int64_t first, int64_t last) {
  const int64_t channels = plan.channels, count = last - first, statistics = plan.segment_count * channels;
  double dgamma[column_block] = {}, dbeta[column_block] = {};
  int64_t index = 0;
  for (int64_t s = 0; s < plan.segment_count; ++s) {
    double sum[column_block] = {}, product[column_block] = {};
    const int64_t rows = plan.segments[s].n * plan.segments[s].h * plan.segments[s].w;
    for (int64_t done = 0; done < rows; done += plan.chunk_rows, ++index) {
      const float *sums = plan.partial_sums + index * partials * plan.padded + first, *products = sums + plan.padded;
      for (int64_t c = 0; c < count; ++c) sum[c] += sums[c], product[c] += products[c];
    }
    if (rows == 0) continue;
    float* factor = static_cast<float*>(call.workspace) + s * channels + first;
    for (int64_t c = 0; c < count; ++c) {
      const double rstd = call.rstd[s * channels + first + c], a = call.gamma[first + c] * rstd;
      dgamma[c] += product[c] * rstd;
      dbeta[c] += sum[c];
      factor[c] = static_cast<float>(a);
      factor[statistics + c] = static_cast<float>(-a * rstd * rstd * product[c] / static_cast<double>(rows));
      factor[2 * statistics + c] = static_cast<float>(-a * sum[c] / static_cast<double>(rows));
    }
  }
  for (int64_t c = 0; c < count; ++c) {
    call.dgamma[first + c] = static_cast<float>(dgamma[c]);
    call.dbeta[first + c] = static_cast<float>(dbeta[c]);
  }
}

template <class T, Mask mask, bool Residual>
void backward_chunk(const BatchNormPlan& plan, const BatchNormBackwardMap& call, int64_t index) {
  const int64_t channels = plan.channels, statistics = plan.segment_count * channels;
  const Chunk chunk = locate(plan, index);
  const int64_t offset = chunk.row * channels;
  const T *x = static_cast<const T*>(call.x) + offset, *dy = static_cast<const T*>(call.dy) + offset;
  const T* y = mask == Mask::from_y ? static_cast<const T*>(call.y) + offset : nullptr;
  T* dx = static_cast<T*>(call.dx) + offset;
  T* dresidual = Residual ? static_cast<T*>(call.dresidual) + offset : nullptr;
  const float* factors = call.factors + chunk.segment * channels;
  const float *means = call.mean + chunk.segment * channels, *rstds = call.rstd + chunk.segment * channels;
  const float *gammas = call.gamma, *betas = call.beta;
  for_row_groups<4>(chunk.rows, [=]<int count>(int64_t row, Count<count>) {
    for_vectors(channels, [=](int64_t c, auto lanes) {
      const F a = load(factors + c, lanes), b = load(factors + statistics + c, lanes),
              d = load(factors + 2 * statistics + c, lanes);
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

/// Calls run with the mask of a backward pass.
template <class Call, class Run>
SACCADE_INLINE void with_mask(const Call& call, Run run) {
  with_storage(call.norm.dtype, [&](auto type) {
    using T = decltype(type);
    if (!call.norm.relu) return run.template operator()<T, Mask::none>();
    call.y ? run.template operator()<T, Mask::from_y>() : run.template operator()<T, Mask::from_x>();
  });
}

void run(const BatchNormBackwardSums& call, const BatchNormPlan& plan) {
  with_mask(call, [&]<class T, Mask mask> {
    reduce_rows(
        plan, [&](int64_t i) { reduce_backward<T, mask>(plan, call, i); },
        [&](int64_t first, int64_t last) { finish_backward(plan, call, first, last); });
  });
}

void run(const BatchNormBackwardMap& call, const BatchNormPlan& plan) {
  with_mask(call, [&]<class T, Mask mask> {
    const auto run = [&](auto chunk) { map_rows(plan, [&](int64_t i) { chunk(plan, call, i); }); };
    call.dresidual ? run(backward_chunk<T, mask, true>) : run(backward_chunk<T, mask, false>);
  });
}

void run(const BatchNormInference& call) {
  const int64_t channels = call.norm.channels;
  const float eps = call.norm.eps;
  const bool relu = call.norm.relu;
  const void *x = call.x, *residual = call.residual;
  const float *gamma = call.gamma, *beta = call.beta;
  const float *running_mean = call.running_mean, *running_var = call.running_var;
  void* y = call.y;
  with_storage(call.norm.dtype, [=, rows = call.rows](auto type) {
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

template <class Call, class... With>
void compute(const Call& call, With... with) {
  run(call, with...);
}
template void compute(const BatchNormMoments&, BatchNormPlan);
template void compute(const BatchNormMerge&, BatchNormPlan);
template void compute(const BatchNormApply&, BatchNormPlan);
template void compute(const BatchNormInference&);
template void compute(const BatchNormBackwardSums&, BatchNormPlan);
template void compute(const BatchNormBackwardMap&, BatchNormPlan);

}  // namespace saccade::kernels::cpu::SACCADE_ISA
