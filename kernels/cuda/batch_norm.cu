// Batch normalisation over rows of channels. Forward reads x twice, for the statistics and to apply them: a map of a
// training batch does not stay in any cache between. Backward likewise reads x, dy (and y, for the mask) twice.
//
// Statistics: a thread runs Welford's update over its columns (an outlier in the first row does no harm, nor does a
// mean far above the deviation); row lanes, and parts of a segment, are joined as in Chan, Golub & LeVeque 1979, in
// fixed order.

#include <saccade/kernels/cuda/columns.h>

namespace saccade::kernels::cuda {
namespace {

/// Rows of part p of segment s.
SACCADE_DEVICE int64_t rows_of_part(const Cut& cut, const Lines& lines, int s, int64_t index) {
  const int64_t most = lines.part_lines * lines.rows_each, left = cut.group_rows[s] - index * most;
  return left < most ? left : most;
}

/// Rows that row lane w has seen of column u.
template <int V>
SACCADE_DEVICE int rows_seen(const LineTile<V>& t, int w, int64_t u) {
  int n = (t.lines - w + row_lanes - 1) / row_lanes;
  const int last = t.lines - 1;
  if (last % row_lanes == w && t.begin + last * t.line_elements + t.first_column + u >= t.end) --n;
  return n;
}

/// Means and sums of squared deviations of a part: partial (parts, 2, channels).
template <class T>
SACCADE_KERNEL(tile_threads)
batch_norm_moments(Cut cut, Lines lines, const T* x, bool aligned, float* partial) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, means, row_lanes* padded_tile<V>);
  SACCADE_SHARED(float, squares, row_lanes* padded_tile<V>);
  const LineTile<V> t = line_tile<V>(cut, lines);
  const int shift = shift_of(t, thread_y());
  Floats<V> mean{}, square{};
  int n = 0;
  for (int line = thread_y(); line < t.lines; line += row_lanes) {
    const Window w = window(t, line, shift);
    const float inverse = 1.f / static_cast<float>(++n);
    if (w.last <= 0 || w.first >= V) continue;
    const Floats<V> v = load_floats<V>(x, w.at, {0, lines.total, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) {
      const float d = v.at[j] - mean.at[j], next = mean.at[j] + d * inverse;
      if (j >= w.first && j < w.last) {
        mean.at[j] = next;
        square.at[j] += d * (v.at[j] - next);
      }
    }
  }
  keep_for_fold(means, mean);
  keep_for_fold(squares, square);
  sync_block();
  const int own = tile_thread(), rows_each = static_cast<int>(lines.rows_each);
  if (own >= finished_channels(t, lines)) return;
  const int channels = static_cast<int>(lines.channels);
  float count = 0, total = 0;
  const float origin = kept(means, t, 0, own);  // sums of differences from one of the means lose less
  for (int row = 0; row < rows_each; ++row) {
    for (int w = 0; w < row_lanes; ++w) {
      const float seen = static_cast<float>(rows_seen(t, w, own + row * channels));
      count += seen;
      if (seen > 0) total += seen * (kept(means, t, w, own + row * channels) - origin);
    }
  }
  const float average = origin + total / count;
  float deviation = 0;
  for (int row = 0; row < rows_each; ++row) {
    for (int w = 0; w < row_lanes; ++w) {
      const float seen = static_cast<float>(rows_seen(t, w, own + row * channels));
      const float d = kept(means, t, w, own + row * channels) - average;
      if (seen > 0) deviation += kept(squares, t, w, own + row * channels) + seen * d * d;
    }
  }
  float* to = partial + block_x() / lines.tiles * 2 * lines.channels + t.first_column + own;
  store(to, average);
  store(to + lines.channels, deviation);
}

/// Sum over the row lanes of a block of 32 channels, known to row lane 0.
SACCADE_DEVICE double fold_row_lanes(double* parts, double value) {
  store(parts + tile_thread(), value);
  sync_block();
  double sum = 0;
  if (thread_y() == 0) {
    for (int w = 0; w < row_lanes; ++w) sum += load(parts + w * lanes + thread_x());
  }
  sync_block();
  return sum;
}

/// Joins the parts of each segment into its moments.
SACCADE_KERNEL(tile_threads)
batch_norm_join_moments(Cut cut, Lines lines, const float* partial, float* mean, double* squares) {
  SACCADE_SHARED(double, parts, tile_threads);
  SACCADE_SHARED(double, averages, lanes);
  const int64_t channels = lines.channels, channel = block_x() * lanes + thread_x();
  const bool there = channel < channels;
  for (int s = 0; s < cut.segments; ++s) {
    const int64_t first = cut.first_part[s], count = cut.first_part[s + 1] - first, rows = cut.group_rows[s];
    if (count == 0) continue;
    double sum = 0;
    for (int64_t p = thread_y(); there && p < count; p += row_lanes) {
      sum += static_cast<double>(rows_of_part(cut, lines, s, p)) * load(partial + (first + p) * 2 * channels + channel);
    }
    sum = fold_row_lanes(parts, sum);
    if (thread_y() == 0) store(averages + thread_x(), sum / static_cast<double>(rows));
    sync_block();
    const double average = load(averages + thread_x());
    double deviation = 0;
    for (int64_t p = thread_y(); there && p < count; p += row_lanes) {
      const float* from = partial + (first + p) * 2 * channels + channel;
      const double d = load(from) - average;
      deviation += load(from + channels) + static_cast<double>(rows_of_part(cut, lines, s, p)) * d * d;
    }
    deviation = fold_row_lanes(parts, deviation);
    if (!there || thread_y() != 0) continue;
    store(mean + s * channels + channel, static_cast<float>(average));
    store(squares + s * channels + channel, deviation);
  }
}

/// Rows of each segment.
struct SegmentRows {
  int segments;
  int64_t rows[most_segments];
};

/// Joins the moments of several sets of rows (Chan, Golub & LeVeque 1979), of `one_more` where they are of the first
/// `larger`, to mean and rstd, and moves the running statistics, segment after segment. A thread a channel.
SACCADE_KERNEL(tile_threads)
batch_norm_merge(SegmentRows segments, SegmentRows one_more, BatchNorm norm, int64_t parts, int64_t larger,
                 int64_t next_means, int64_t next_squares, const float* means, const double* squares, float* mean,
                 float* rstd, float* running_mean, float* running_var) {
  const int64_t channels = norm.channels, channel = block_x() * tile_threads + thread_x();
  if (channel >= channels) return;
  for (int s = 0; s < segments.segments; ++s) {
    const int64_t at = s * channels + channel;
    const int64_t rows = (parts - larger) * segments.rows[s] + larger * one_more.rows[s];
    if (rows == 0) continue;
    double average = load(means + at), deviation = load(squares + at);
    int64_t joined = larger > 0 ? one_more.rows[s] : segments.rows[s];
    for (int64_t part = 1; part < parts; ++part) {
      const int64_t part_rows = part < larger ? one_more.rows[s] : segments.rows[s], before = joined;
      joined += part_rows;
      const double delta = load(means + part * next_means + at) - average;
      const double weight = static_cast<double>(part_rows) / static_cast<double>(joined);
      average += delta * weight;
      deviation += load(squares + part * next_squares + at) + delta * delta * weight * static_cast<double>(before);
    }
    const double variance = deviation / static_cast<double>(rows);
    const float as_float = static_cast<float>(average);
    store(mean + at, as_float);
    store(rstd + at, static_cast<float>(1. / sqrt(variance + static_cast<double>(norm.eps))));
    if (running_mean != nullptr) {
      const float unbiased = static_cast<float>(deviation / static_cast<double>(rows > 1 ? rows - 1 : 1));
      const float old_mean = load(running_mean + channel), old_var = load(running_var + channel);
      store(running_mean + channel, old_mean + norm.momentum * (as_float - old_mean));
      store(running_var + channel, old_var + norm.momentum * (unbiased - old_var));
    }
  }
}

/// y = relu?((x - mean) * gamma * rstd + beta (+ residual)). `second` is rstd, or with `of_variance` the running
/// variance.
template <class T>
SACCADE_KERNEL(tile_threads)
batch_norm_map(Cut cut, Bands bands, bool relu, bool of_variance, float eps, const T* x, const T* residual,
               const float* gamma, const float* beta, const float* mean, const float* second, T* y, bool aligned) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, means, padded_tile<V>);
  SACCADE_SHARED(float, scales, padded_tile<V>);
  SACCADE_SHARED(float, betas, padded_tile<V>);
  const BandTile<V> t = band_tile<V>(cut, bands);
  for (int own = tile_thread(); own < lanes * V; own += tile_threads) {
    const int64_t c = channel_of(t, bands, own);
    if (c < 0) continue;
    const int64_t of_segment = of_variance ? c : t.part.segment * bands.channels + c;
    const float factor = load(second + of_segment), of_channel = load(gamma + c);
    store(means + padded<V>(own), load(mean + of_segment));
    store(scales + padded<V>(own), of_variance ? of_channel / sqrtf(factor + eps) : of_channel * factor);
    store(betas + padded<V>(own), load(beta + c));
  }
  sync_block();
  if (t.column >= bands.width) return;
  const Floats<V> m = own_columns<V>(means), k = own_columns<V>(scales), b = own_columns<V>(betas);
  const Range range{t.begin, t.end, aligned};
  for (int64_t band = t.first_band + thread_y(); band < t.last_band; band += row_lanes) {
    const int64_t at = band * bands.width + t.column;
    if (at + V <= t.begin || at >= t.end) continue;
    Floats<V> v = load_floats<V>(x, at, range), r{};
    if (residual != nullptr) r = load_floats<V>(residual, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) {
      v.at[j] = fmaf(v.at[j] - m.at[j], k.at[j], b.at[j]) + r.at[j];
      if (relu) v.at[j] = v.at[j] < 0.f ? 0.f : v.at[j];
    }
    store_floats<V>(y, at, range, v);
  }
}

/// What a backward pass reads. y is null where the mask comes from x.
template <class T>
struct Backward {
  const T *x, *y, *dy;
  const float *gamma, *beta, *mean, *rstd;
  bool relu, aligned;
};

/// Where the ReLU was open. `centred` is x - mean.
template <class T>
SACCADE_DEVICE float masked(const Backward<T>& in, float dy, float y, float centred, float scale, float beta) {
  if (!in.relu) return dy;
  return (in.y != nullptr ? y : fmaf(centred, scale, beta)) > 0.f ? dy : 0.f;
}

/// Sums of dy' (dy behind the ReLU) and of dy' (x - mean) of a part: partial (parts, 2, channels).
template <class T>
SACCADE_KERNEL(tile_threads)
batch_norm_backward_sums(Cut cut, Lines lines, Backward<T> in, float* partial) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, sums, row_lanes* padded_tile<V>);
  SACCADE_SHARED(float, products, row_lanes* padded_tile<V>);
  SACCADE_SHARED(float, staged, 3 * padded_tile<V>);
  const LineTile<V> t = line_tile<V>(cut, lines);
  const bool from_x = in.relu && in.y == nullptr;
  for (int own = tile_thread(); own < t.columns; own += tile_threads) {
    const int64_t c = (t.first_column + own) % lines.channels, of_segment = t.part.segment * lines.channels + c;
    store(staged + padded<V>(own), load(in.mean + of_segment));
    if (from_x) {
      store(staged + padded_tile<V> + padded<V>(own), load(in.gamma + c) * load(in.rstd + of_segment));
      store(staged + 2 * padded_tile<V> + padded<V>(own), load(in.beta + c));
    }
  }
  sync_block();
  const int shift = shift_of(t, thread_y());
  Floats<V> mean{}, scale{}, beta{};
  SACCADE_UNROLL
  for (int j = 0; j < V; ++j) {
    const int own = thread_x() * V + j - shift;
    if (own < 0 || own >= t.columns) continue;
    mean.at[j] = load(staged + padded<V>(own));
    if (from_x) {
      scale.at[j] = load(staged + padded_tile<V> + padded<V>(own));
      beta.at[j] = load(staged + 2 * padded_tile<V> + padded<V>(own));
    }
  }
  Floats<V> sum{}, product{};
  for (int line = thread_y(); line < t.lines; line += row_lanes) {
    const Window w = window(t, line, shift);
    if (w.last <= 0 || w.first >= V) continue;
    const Range range{0, lines.total, in.aligned};
    const Floats<V> x = load_floats<V>(in.x, w.at, range), dy = load_floats<V>(in.dy, w.at, range);
    Floats<V> y{};
    if (in.relu && in.y != nullptr) y = load_floats<V>(in.y, w.at, range);
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) {
      const float centred = x.at[j] - mean.at[j];
      const float g = masked(in, dy.at[j], y.at[j], centred, scale.at[j], beta.at[j]);
      if (j >= w.first && j < w.last) {
        sum.at[j] += g;
        product.at[j] += g * centred;
      }
    }
  }
  keep_for_fold(sums, sum);
  keep_for_fold(products, product);
  sync_block();
  const int own = tile_thread();
  if (own >= finished_channels(t, lines)) return;
  float* to = partial + block_x() / lines.tiles * 2 * lines.channels + t.first_column + own;
  store(to, fold(sums, t, lines, own));
  store(to + lines.channels, fold(products, t, lines, own));
}

/// dgamma and dbeta over all segments, and each segment's factors a, b, d of dx = a dy' + b (x - mean) + d: with
/// xhat = (x - mean) rstd, dx = gamma rstd (dy' - mean(dy') - xhat mean(dy' xhat)). factors: (3, segments, channels).
SACCADE_KERNEL(tile_threads)
batch_norm_finish_backward(Cut cut, int64_t channels, const float* partial, const float* gamma, const float* rstds,
                           float* factors, float* dgamma, float* dbeta) {
  SACCADE_SHARED(double, parts, tile_threads);
  const int64_t channel = block_x() * lanes + thread_x(), statistics = cut.segments * channels;
  const bool there = channel < channels, finishes = there && thread_y() == 0;
  double total_gamma = 0, total_beta = 0;
  for (int s = 0; s < cut.segments; ++s) {
    const int64_t first = cut.first_part[s], count = cut.first_part[s + 1] - first;
    if (count == 0) continue;
    double sum = 0, product = 0;
    for (int64_t p = thread_y(); there && p < count; p += row_lanes) {
      const float* from = partial + (first + p) * 2 * channels + channel;
      sum += load(from);
      product += load(from + channels);
    }
    sum = fold_row_lanes(parts, sum);
    product = fold_row_lanes(parts, product);
    if (!finishes) continue;
    const double rstd = load(rstds + s * channels + channel), a = load(gamma + channel) * rstd;
    const double rows = static_cast<double>(cut.group_rows[s]);
    total_gamma += product * rstd;
    total_beta += sum;
    float* to = factors + s * channels + channel;
    store(to, static_cast<float>(a));
    store(to + statistics, static_cast<float>(-a * rstd * rstd * product / rows));
    store(to + 2 * statistics, static_cast<float>(-a * sum / rows));
  }
  if (!finishes) return;
  store(dgamma + channel, static_cast<float>(total_gamma));
  store(dbeta + channel, static_cast<float>(total_beta));
}

template <class T>
SACCADE_KERNEL(tile_threads)
batch_norm_backward_map(Cut cut, Bands bands, Backward<T> in, const float* factors, T* dx, T* dresidual) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, staged, 5 * padded_tile<V>);
  const BandTile<V> t = band_tile<V>(cut, bands);
  const bool from_x = in.relu && in.y == nullptr;
  for (int own = tile_thread(); own < lanes * V; own += tile_threads) {
    const int64_t c = channel_of(t, bands, own);
    if (c < 0) continue;
    const int64_t s = t.part.segment;
    float* to = staged + padded<V>(own);
    const float* from = factors + s * bands.channels + c;
    store(to, load(from));
    store(to + padded_tile<V>, load(from + cut.segments * bands.channels));
    store(to + 2 * padded_tile<V>, load(from + 2 * cut.segments * bands.channels));
    store(to + 3 * padded_tile<V>, load(in.mean + s * bands.channels + c));
    if (from_x) store(to + 4 * padded_tile<V>, load(in.beta + c));
  }
  sync_block();
  if (t.column >= bands.width) return;
  const Floats<V> a = own_columns<V>(staged), b = own_columns<V>(staged + padded_tile<V>);
  const Floats<V> d = own_columns<V>(staged + 2 * padded_tile<V>), mean = own_columns<V>(staged + 3 * padded_tile<V>);
  Floats<V> beta{};
  if (from_x) beta = own_columns<V>(staged + 4 * padded_tile<V>);
  const Range range{t.begin, t.end, in.aligned};
  for (int64_t band = t.first_band + thread_y(); band < t.last_band; band += row_lanes) {
    const int64_t at = band * bands.width + t.column;
    if (at + V <= t.begin || at >= t.end) continue;
    const Floats<V> x = load_floats<V>(in.x, at, range);
    Floats<V> g = load_floats<V>(in.dy, at, range), y{}, result;
    if (in.relu && in.y != nullptr) y = load_floats<V>(in.y, at, range);
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) {
      const float centred = x.at[j] - mean.at[j];
      g.at[j] = masked(in, g.at[j], y.at[j], centred, a.at[j], beta.at[j]);  // a is gamma * rstd
      result.at[j] = a.at[j] * g.at[j] + (b.at[j] * centred + d.at[j]);
    }
    store_floats<V>(dx, at, range, result);
    if (dresidual != nullptr) store_floats<V>(dresidual, at, range, g);
  }
}

Extent by_channels(int64_t channels) { return {blocks(divide_up(channels, lanes))}; }
LinePlan plan(const BatchNorm& norm, const Segments& segments) {
  return plan_lines(vector_elements(norm.dtype), segments, norm.channels, false, "batch_norm");
}

/// What lies at the beginning of a workspace: moments or factors.
int64_t result_floats(const BatchNorm& norm, const Segments& segments) {
  return 3 * static_cast<int64_t>(segments.size()) * norm.channels;
}
size_t workspace_of(const BatchNorm& norm, const Segments& segments) {
  return static_cast<size_t>(
      bytes_of_floats(2 * plan(norm, segments).parts() * norm.channels + result_floats(norm, segments)));
}
template <class Call>
float* partial_of(const Call& c) {
  return static_cast<float*>(c.workspace) + result_floats(c.norm, c.segments);
}

template <class T, class Call>
Backward<T> reads_of(const Call& c) {
  return {static_cast<const T*>(c.x),
          static_cast<const T*>(c.y),
          static_cast<const T*>(c.dy),
          c.gamma,
          c.beta,
          c.mean,
          c.rstd,
          c.norm.relu,
          aligned(c.x, c.y, c.dy)};
}

/// `of_variance`: `second` is the running variance, else rstd.
template <class Call>
void map(Stream stream, const Call& c, const Segments& segments, bool of_variance, const float* mean,
         const float* second) {
  with_storage(c.norm.dtype, "batch_norm", [&]<class T>(Type<T>) {
    const BandPlan bands = plan_bands(vector_of<T>, segments, c.norm.channels, false, "batch_norm");
    if (bands.blocks() == 0) return;
    launch<batch_norm_map<T>>(stream, {bands.blocks()}, tile, 0, bands.cut, bands.bands, c.norm.relu, of_variance,
                              c.norm.eps, static_cast<const T*>(c.x), static_cast<const T*>(c.residual), c.gamma,
                              c.beta, mean, second, static_cast<T*>(c.y), aligned(c.x, c.residual, c.y));
  });
}

}  // namespace

size_t workspace(const BatchNormMoments& c) { return workspace_of(c.norm, c.segments); }
size_t workspace(const BatchNormBackwardSums& c) { return workspace_of(c.norm, c.segments); }

void run(Stream stream, const BatchNormMoments& c) {
  const LinePlan lines = plan(c.norm, c.segments);
  if (lines.blocks() == 0) return;
  with_storage(c.norm.dtype, "batch_norm", [&]<class T>(Type<T>) {
    launch<batch_norm_moments<T>>(stream, {lines.blocks()}, tile, 0, lines.cut, lines.lines, static_cast<const T*>(c.x),
                                  aligned(c.x), partial_of(c));
    launch<batch_norm_join_moments>(stream, by_channels(c.norm.channels), tile, 0, lines.cut, lines.lines,
                                    partial_of(c), c.mean, c.squares());
  });
}

void run(Stream stream, const BatchNormMerge& c) {
  require_segments(c.segments, "batch_norm");
  SegmentRows rows{static_cast<int>(c.segments.size()), {}}, one_more = rows;
  const int64_t statistics = std::ssize(c.segments) * c.norm.channels;
  for (size_t s = 0; s < c.segments.size(); ++s) {
    rows.rows[s] = c.segments[s].rows();
    one_more.rows[s] = rows.rows[s] + rows.rows[s] / c.images;
  }
  launch<batch_norm_merge>(stream, {blocks(divide_up(c.norm.channels, tile_threads))}, {tile_threads}, 0, rows,
                           one_more, c.norm, c.parts, c.larger, c.part_floats > 0 ? c.part_floats : statistics,
                           c.part_floats > 0 ? c.part_floats / 2 : statistics, c.means, c.squares, c.mean, c.rstd,
                           c.running_mean, c.running_var);
}

void run(Stream stream, const BatchNormApply& c) { map(stream, c, c.segments, false, c.mean, c.rstd); }

void run(Stream stream, const BatchNormInference& c) {
  map(stream, c, {rows_as_segment(c.rows)}, true, c.running_mean, c.running_var);
}

void run(Stream stream, const BatchNormBackwardSums& c) {
  const LinePlan lines = plan(c.norm, c.segments);
  with_storage(c.norm.dtype, "batch_norm", [&]<class T>(Type<T>) {
    if (lines.blocks() > 0) {
      launch<batch_norm_backward_sums<T>>(stream, {lines.blocks()}, tile, 0, lines.cut, lines.lines, reads_of<T>(c),
                                          partial_of(c));
    }
    launch<batch_norm_finish_backward>(stream, by_channels(c.norm.channels), tile, 0, lines.cut, c.norm.channels,
                                       partial_of(c), c.gamma, c.rstd, c.factors(), c.dgamma, c.dbeta);
  });
}

void run(Stream stream, const BatchNormBackwardMap& c) {
  with_storage(c.norm.dtype, "batch_norm", [&]<class T>(Type<T>) {
    const BandPlan bands = plan_bands(vector_of<T>, c.segments, c.norm.channels, false, "batch_norm");
    if (bands.blocks() == 0) return;
    Backward<T> reads = reads_of<T>(c);
    reads.aligned = reads.aligned && aligned(c.dx, c.dresidual);
    launch<batch_norm_backward_map<T>>(stream, {bands.blocks()}, tile, 0, bands.cut, bands.bands, reads, c.factors,
                                       static_cast<T*>(c.dx), static_cast<T*>(c.dresidual));
  });
}

}  // namespace saccade::kernels::cuda
