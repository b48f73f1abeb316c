// Sums over everything and over rows, and L2 normalisation. Sums go in two stages: parts cut by shape, then the parts
// in order. Memory: each input once. L2 normalisation keeps a row in registers between its norm and its result, up to
// 1020 channels forward and 380 backward; what is beyond is read again.

#include <saccade/kernels/cuda/columns.h>

namespace saccade::kernels::cuda {
namespace {

constexpr int threads = 256, warps = threads / lanes;
template <class T>
SACCADE_KERNEL(threads)
sum_parts(int64_t n, int64_t part, const T* x, bool aligned, float* partial) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, parts, warps);
  const int64_t begin = block_x() * part, end = begin + part < n ? begin + part : n;
  float sum = 0;
  for (int64_t at = begin + thread_x() * V; at < end; at += threads * V) {
    const Floats<V> v = load_floats<V>(x, at, {begin, end, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) sum += v.at[j];
  }
  sum = block_sum<warps>(sum, parts);
  if (thread_x() == 0) store(partial + block_x(), sum);
}

SACCADE_KERNEL(threads) sum_of_parts(int64_t count, const float* partial, float* out) {
  SACCADE_SHARED(double, parts, warps);
  double sum = 0;
  for (int64_t i = thread_x(); i < count; i += threads) sum += load(partial + i);
  sum = block_sum<warps>(sum, parts);
  if (thread_x() == 0) store(out, static_cast<float>(sum));
}

/// partial: (parts, channels).
template <class T>
SACCADE_KERNEL(tile_threads)
column_sum_parts(Cut cut, Lines lines, const T* x, bool aligned, float* partial) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, sums, row_lanes* padded_tile<V>);
  const LineTile<V> t = line_tile<V>(cut, lines);
  const int shift = shift_of(t, thread_y());
  Floats<V> sum{};
  for (int line = thread_y(); line < t.lines; line += row_lanes) {
    const Window w = window(t, line, shift);
    if (w.last <= 0 || w.first >= V) continue;
    const Floats<V> v = load_floats<V>(x, w.at, {0, lines.total, aligned});
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) sum.at[j] += j >= w.first && j < w.last ? v.at[j] : 0.f;
  }
  keep_for_fold(sums, sum);
  sync_block();
  const int own = tile_thread();
  if (own >= finished_channels(t, lines)) return;
  store(partial + block_x() / lines.tiles * lines.channels + t.first_column + own, fold(sums, t, lines, own));
}

SACCADE_KERNEL(threads) column_sum_finish(int64_t parts, int64_t channels, const float* partial, float* out) {
  const int64_t channel = block_x() * threads + thread_x();
  if (channel >= channels) return;
  double sum = 0;
  for (int64_t p = 0; p < parts; ++p) sum += load(partial + p * channels + channel);
  store(out + channel, static_cast<float>(sum));
}

/// Where the vectors of a row lie: it may begin and end within one.
struct Row {
  int64_t begin, end, first;
  bool aligned;
};

/// Behind the last row: one without elements.
SACCADE_DEVICE Row row_of(int64_t row, int64_t rows, int64_t channels, bool aligned) {
  return {row * channels, (row < rows ? row + 1 : row) * channels, row * channels / 4 * 4, aligned};
}
template <class T>
SACCADE_DEVICE Floats<4> load_row(const T* p, const Row& row, int64_t vector) {
  return load_floats<4>(p, row.first + vector * 4, {row.begin, row.end, row.aligned});
}
template <class T>
SACCADE_DEVICE void store_row(T* p, const Row& row, int64_t vector, const Floats<4>& v) {
  store_floats<4>(p, row.first + vector * 4, {row.begin, row.end, row.aligned}, v);
}
SACCADE_DEVICE float dot(const Floats<4>& a, const Floats<4>& b) {
  return a.at[0] * b.at[0] + a.at[1] * b.at[1] + a.at[2] * b.at[2] + a.at[3] * b.at[3];
}

constexpr int rows_each = 8, kept_forward = 8, kept_backward = 3;  // a warp a row; vectors a lane keeps

template <class T>
SACCADE_KERNEL(lanes* rows_each)
l2_normalize(int64_t rows, int64_t channels, float eps, const T* x, T* y, float* norm, bool aligned) {
  SACCADE_SHARED(float, norms, rows_each);
  const int64_t first_row = block_x() * rows_each;
  const Row row = row_of(first_row + thread_y(), rows, channels, aligned);
  const int64_t vectors = (row.end - row.first + 3) / 4;
  Floats<4> kept[kept_forward] = {};
  float squares = 0;
  SACCADE_UNROLL
  for (int i = 0; i < kept_forward; ++i) {
    if (i * lanes + thread_x() >= vectors) continue;
    kept[i] = load_row(x, row, i * lanes + thread_x());
    squares += dot(kept[i], kept[i]);
  }
  for (int64_t i = kept_forward * lanes + thread_x(); i < vectors; i += lanes) {
    const Floats<4> v = load_row(x, row, i);
    squares += dot(v, v);
  }
  const float length = larger(sqrtf(warp_sum(squares)), eps), factor = 1.f / length;
  if (thread_x() == 0) store(norms + thread_y(), length);
  SACCADE_UNROLL
  for (int i = 0; i < kept_forward; ++i) {
    if (i * lanes + thread_x() >= vectors) continue;
    for (int j = 0; j < 4; ++j) kept[i].at[j] *= factor;
    store_row(y, row, i * lanes + thread_x(), kept[i]);
  }
  for (int64_t i = kept_forward * lanes + thread_x(); i < vectors; i += lanes) {
    Floats<4> v = load_row(x, row, i);
    for (int j = 0; j < 4; ++j) v.at[j] *= factor;
    store_row(y, row, i, v);
  }
  sync_block();  // the block's norms go out together: a row each would be a sector each
  if (thread_y() == 0 && thread_x() < rows_each && first_row + thread_x() < rows) {
    store(norm + first_row + thread_x(), load(norms + thread_x()));
  }
}

SACCADE_DEVICE Floats<4> l2_gradient(const Floats<4>& y, const Floats<4>& dy, float along, float factor) {
  Floats<4> v;
  SACCADE_UNROLL
  for (int j = 0; j < 4; ++j) v.at[j] = (dy.at[j] - y.at[j] * along) * factor;
  return v;
}

template <class T>
SACCADE_KERNEL(lanes* rows_each)
l2_normalize_gradient(int64_t rows, int64_t channels, float eps, const T* y, const float* norm, const T* dy, T* dx,
                      bool aligned) {
  SACCADE_SHARED(float, norms, rows_each);
  const int64_t first_row = block_x() * rows_each;
  const Row row = row_of(first_row + thread_y(), rows, channels, aligned);
  const int64_t vectors = (row.end - row.first + 3) / 4;
  if (thread_y() == 0 && thread_x() < rows_each && first_row + thread_x() < rows) {
    store(norms + thread_x(), load(norm + first_row + thread_x()));
  }
  Floats<4> kept_y[kept_backward] = {}, kept_dy[kept_backward] = {};
  float along = 0;
  SACCADE_UNROLL
  for (int i = 0; i < kept_backward; ++i) {
    if (i * lanes + thread_x() >= vectors) continue;
    kept_y[i] = load_row(y, row, i * lanes + thread_x());
    kept_dy[i] = load_row(dy, row, i * lanes + thread_x());
    along += dot(kept_y[i], kept_dy[i]);
  }
  for (int64_t i = kept_backward * lanes + thread_x(); i < vectors; i += lanes) {
    along += dot(load_row(y, row, i), load_row(dy, row, i));
  }
  along = warp_sum(along);
  sync_block();
  const float length = load(norms + thread_y()), factor = 1.f / length;
  if (!(length > eps)) along = 0;  // clamped: a plain division
  SACCADE_UNROLL
  for (int i = 0; i < kept_backward; ++i) {
    if (i * lanes + thread_x() >= vectors) continue;
    store_row(dx, row, i * lanes + thread_x(), l2_gradient(kept_y[i], kept_dy[i], along, factor));
  }
  for (int64_t i = kept_backward * lanes + thread_x(); i < vectors; i += lanes) {
    store_row(dx, row, i, l2_gradient(load_row(y, row, i), load_row(dy, row, i), along, factor));
  }
}

/// A lane takes the exponentials of its elements relative to the largest so far, and all lanes at the end to the row's.
template <class T>
SACCADE_KERNEL(lanes* rows_each)
log_sum_exp(int64_t rows, int64_t channels, const T* x, float* out, bool aligned) {
  SACCADE_SHARED(float, results, rows_each);
  const int64_t first_row = block_x() * rows_each;
  const Row row = row_of(first_row + thread_y(), rows, channels, aligned);
  const int64_t vectors = (row.end - row.first + 3) / 4;
  float largest = -INFINITY, sum = 0;
  for (int64_t i = thread_x(); i < vectors; i += lanes) {
    const Floats<4> v = load_row(x, row, i);
    float next = largest;
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t at = row.first + i * 4 + j;
      if (at >= row.begin && at < row.end) next = larger(next, v.at[j]);
    }
    if (next > largest) sum *= expf(largest - next);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t at = row.first + i * 4 + j;
      if (at >= row.begin && at < row.end) sum += expf(v.at[j] - next);
    }
    largest = next;
  }
  const float most = warp_max(largest);
  sum = warp_sum(sum > 0 ? sum * expf(largest - most) : sum);
  if (thread_x() == 0) store(results + thread_y(), most + logf(sum));
  sync_block();
  if (thread_y() == 0 && thread_x() < rows_each && first_row + thread_x() < rows) {
    store(out + first_row + thread_x(), load(results + thread_x()));
  }
}

template <class T>
SACCADE_KERNEL(lanes* rows_each)
log_sum_exp_gradient(int64_t rows, int64_t channels, const T* x, const float* out, const float* dout, T* dx,
                     bool aligned) {
  const int64_t index = block_x() * rows_each + thread_y();
  if (index >= rows) return;
  const Row row = row_of(index, rows, channels, aligned);
  const float total = load(out + index), gradient = load(dout + index);
  for (int64_t i = thread_x(); i < (row.end - row.first + 3) / 4; i += lanes) {
    Floats<4> v = load_row(x, row, i);
    SACCADE_UNROLL
    for (int j = 0; j < 4; ++j) v.at[j] = expf(v.at[j] - total) * gradient;
    store_row(dx, row, i, v);
  }
}

/// Elements of a part of sum(): a multiple of what a block reads at once.
int64_t part_of(int64_t n) { return divide_up(std::max<int64_t>(n / wanted_blocks, 1), 8192) * 8192; }

LinePlan plan(const ColumnSum& c) {
  const Segment all = rows_as_segment(c.rows);
  return plan_lines(vector_elements(c.dtype), {&all, 1}, c.channels, false, c.name);
}

/// A warp a row.
template <auto kernel, class... Arguments>
void launch_rows(Stream stream, const OnRows& c, Arguments... arguments) {
  if (c.rows == 0) return;
  launch<kernel>(stream, {blocks(divide_up(c.rows, rows_each))}, {lanes, rows_each}, 0, c.rows, c.channels,
                 arguments...);
}

}  // namespace

size_t workspace(const Sum& c) { return static_cast<size_t>(divide_up(c.n, part_of(c.n))) * sizeof(float); }

void run(Stream stream, const Sum& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    auto* partial = static_cast<float*>(c.workspace);
    const int64_t part = part_of(c.n), count = divide_up(c.n, part);
    if (count > 0) {
      launch<sum_parts<T>>(stream, {blocks(count)}, {threads}, 0, c.n, part, static_cast<const T*>(c.x), aligned(c.x),
                           partial);
    }
    launch<sum_of_parts>(stream, {1}, {threads}, 0, count, partial, c.out);
  });
}

size_t workspace(const ColumnSum& c) { return static_cast<size_t>(plan(c).parts() * c.channels) * sizeof(float); }

void run(Stream stream, const ColumnSum& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    auto* partial = static_cast<float*>(c.workspace);
    const LinePlan lines = plan(c);
    if (lines.blocks() > 0) {
      launch<column_sum_parts<T>>(stream, {lines.blocks()}, tile, 0, lines.cut, lines.lines, static_cast<const T*>(c.x),
                                  aligned(c.x), partial);
    }
    launch<column_sum_finish>(stream, {blocks(divide_up(c.channels, threads))}, {threads}, 0, lines.parts(), c.channels,
                              partial, c.out);
  });
}

void run(Stream stream, const L2Normalize& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    launch_rows<l2_normalize<T>>(stream, c, c.eps, static_cast<const T*>(c.x), static_cast<T*>(c.y), c.norm,
                                 aligned(c.x, c.y));
  });
}

void run(Stream stream, const L2NormalizeGradient& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    launch_rows<l2_normalize_gradient<T>>(stream, c, c.eps, static_cast<const T*>(c.y), c.norm,
                                          static_cast<const T*>(c.dy), static_cast<T*>(c.dx), aligned(c.y, c.dy, c.dx));
  });
}

void run(Stream stream, const LogSumExp& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    launch_rows<log_sum_exp<T>>(stream, c, static_cast<const T*>(c.x), c.out, aligned(c.x));
  });
}

void run(Stream stream, const LogSumExpGradient& c) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    launch_rows<log_sum_exp_gradient<T>>(stream, c, static_cast<const T*>(c.x), c.out, c.dout, static_cast<T*>(c.dx),
                                         aligned(c.x, c.dx));
  });
}

}  // namespace saccade::kernels::cuda
