// Global average pooling and per-image channel scaling (squeeze-excite's map-sized parts). Sums are one block an image
// and tile of channels; maps are cut further. Memory: each input once, each output once; what belongs to an image's
// channels is read once a part.

#include <saccade/kernels/cuda/columns.h>

namespace saccade::kernels::cuda {
namespace {

/// Images before segment s.
SACCADE_DEVICE int64_t images_before(const Cut& cut, int s) {
  int64_t images = 0;
  for (int i = 0; i < s; ++i) images += (cut.first_part[i + 1] - cut.first_part[i]) / cut.parts_each[i];
  return images;
}

/// out[image, c] = the sum over the image's pixels of x (* dy, where given), divided by their number if `average`.
template <class T>
SACCADE_KERNEL(tile_threads)
image_sums(Cut cut, Lines lines, const T* x, const T* dy, bool average, bool aligned, T* out) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, sums, row_lanes* padded_tile<V>);
  const LineTile<V> t = line_tile<V>(cut, lines);
  const int shift = shift_of(t, thread_y());
  Floats<V> sum{};
  for (int line = thread_y(); line < t.lines; line += row_lanes) {
    const Window w = window(t, line, shift);
    if (w.last <= 0 || w.first >= V) continue;
    Floats<V> v = load_floats<V>(x, w.at, {0, lines.total, aligned});
    if (dy != nullptr) {
      const Floats<V> g = load_floats<V>(dy, w.at, {0, lines.total, aligned});
      SACCADE_UNROLL
      for (int j = 0; j < V; ++j) v.at[j] *= g.at[j];
    }
    SACCADE_UNROLL
    for (int j = 0; j < V; ++j) sum.at[j] += j >= w.first && j < w.last ? v.at[j] : 0.f;
  }
  keep_for_fold(sums, sum);
  sync_block();
  const int own = tile_thread();
  if (own >= finished_channels(t, lines)) return;
  const int64_t image = images_before(cut, t.part.segment) + t.part.group;
  const float factor = average ? 1.f / static_cast<float>(t.part.rows) : 1.f;
  store(out + image * lines.channels + t.first_column + own, from_float<T>(fold(sums, t, lines, own) * factor));
}

/// y = x * scale[image] (+ added[image] / pixels); x may be null: then y = added / pixels.
template <class T>
SACCADE_KERNEL(tile_threads)
image_map(Cut cut, Bands bands, const T* x, const T* scale, const T* added, T* y, bool aligned) {
  constexpr int V = vector_of<T>;
  SACCADE_SHARED(float, factors, padded_tile<V>);
  SACCADE_SHARED(float, offsets, padded_tile<V>);
  const BandTile<V> t = band_tile<V>(cut, bands);
  const int64_t image = images_before(cut, t.part.segment) + t.part.group;
  const float share = 1.f / static_cast<float>(t.part.rows);
  for (int own = tile_thread(); own < lanes * V; own += tile_threads) {
    const int64_t c = channel_of(t, bands, own);
    if (c < 0) continue;
    store(factors + padded<V>(own), x != nullptr ? to_float(load(scale + image * bands.channels + c)) : 0.f);
    store(offsets + padded<V>(own),
          added != nullptr ? to_float(load(added + image * bands.channels + c)) * share : 0.f);
  }
  sync_block();
  if (t.column >= bands.width) return;
  const Floats<V> factor = own_columns<V>(factors), offset = own_columns<V>(offsets);
  const Range range{t.begin, t.end, aligned};
  for (int64_t band = t.first_band + thread_y(); band < t.last_band; band += row_lanes) {
    const int64_t at = band * bands.width + t.column;
    if (at + V <= t.begin || at >= t.end) continue;
    Floats<V> v = offset;
    if (x != nullptr) {
      v = load_floats<V>(x, at, range);
      SACCADE_UNROLL
      for (int j = 0; j < V; ++j) v.at[j] = v.at[j] * factor.at[j] + offset.at[j];
    }
    store_floats<V>(y, at, range, v);
  }
}

template <class Call>
void sums(Stream stream, const Call& c, const void* x, const void* dy, bool average, void* out) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    const LinePlan lines = plan_lines(vector_of<T>, c.segments, c.channels, true, c.name);
    if (lines.blocks() == 0) return;
    launch<image_sums<T>>(stream, {lines.blocks()}, tile, 0, lines.cut, lines.lines, static_cast<const T*>(x),
                          static_cast<const T*>(dy), average, aligned(x, dy), static_cast<T*>(out));
  });
}

template <class Call>
void map(Stream stream, const Call& c, const void* x, const void* scale, const void* added, void* y) {
  with_storage(c.dtype, c.name, [&]<class T>(Type<T>) {
    const BandPlan bands = plan_bands(vector_of<T>, c.segments, c.channels, true, c.name);
    if (bands.blocks() == 0) return;
    launch<image_map<T>>(stream, {bands.blocks()}, tile, 0, bands.cut, bands.bands, static_cast<const T*>(x),
                         static_cast<const T*>(scale), static_cast<const T*>(added), static_cast<T*>(y), aligned(x, y));
  });
}

}  // namespace

void run(Stream stream, const GlobalAvgPool& c) { sums(stream, c, c.x, nullptr, true, c.pooled); }
void run(Stream stream, const GlobalAvgPoolGradient& c) { map(stream, c, nullptr, nullptr, c.dpooled, c.dx); }
void run(Stream stream, const ChannelScale& c) { map(stream, c, c.x, c.scale, nullptr, c.y); }
void run(Stream stream, const ChannelScaleFactorGradient& c) { sums(stream, c, c.x, c.dy, false, c.dscale); }
void run(Stream stream, const ChannelScaleInputGradient& c) { map(stream, c, c.dy, c.scale, c.dpooled, c.dx); }

}  // namespace saccade::kernels::cuda
