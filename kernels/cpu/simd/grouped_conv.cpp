// 3x3 convolution, padding 1, for few channels a group: forward, and the data gradient (see grouped_conv.h).
//
// One job is a block of images (or a band of rows of them) and a group. Its source channels are first copied to
// (channel block of 8, image, row, column, 8) in L1/L2, 1 to 3 % of the work: then every address is a constant away
// from a row pointer, and the zero columns left and right are part of the copy. A tile then keeps R columns of M images
// times `lanes` produced channels in registers, and for each source row that touches them and each source channel loads
// the 3 weights of that kernel row once, and each source value once: that value meets the (up to) 3 results it belongs
// to. Rows outside of the image are never visited; columns outside are not either where a tile is as wide as the map
// (maps of up to 8 columns), since which products exist is then known at compile time.
#include <omp.h>
#include <saccade/kernels/cpu/simd/grouped_conv_copy.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

/// The result column (from the tile's first) that source column p (from the first one under the tile) and kernel column
/// k belong to, or -1.
template <Relation relation, int columns>
constexpr int result_column(int p, int k) {
  const int doubled = relation == doubling ? 2 * (2 * p + k - 1) : relation == halving ? p - k + 1 : 2 * (p - k + 1);
  return doubled < 0 || doubled % 2 || doubled / 2 >= columns ? -1 : doubled / 2;
}

struct Tile {
  const float* source;      // the copied block, at the tile's first image and the first source column under the tile
  int64_t image, plane;     // floats from image to image and from channel block to channel block
  int64_t channels;         // source channels
  int taps;                 // kernel rows that exist for this result row:
  int64_t row[3];           //   the offset of the source row
  const float* weights[3];  //   its weights (channel, kernel column, lanes)
  float* result;            // the first result
  int64_t pixel, result_image;  // floats from column to column and from image to image
  int columns, lanes;           // results to store
};

template <int M, int R, int lanes>
[[gnu::always_inline]] inline void store_sums(const Tile& t, const typename Vector<lanes>::type (&sum)[M][R]) {
  using V = typename Vector<lanes>::type;
  for (int m = 0; m < M; ++m)
    for (int r = 0; r < R; ++r) {
      if (r >= t.columns) continue;
      float* to = t.result + m * t.result_image + r * t.pixel;
      if (t.lanes == lanes) {
        *reinterpret_cast<V*>(to) = sum[m][r];
      } else if (t.lanes == 8 && lanes == 16) {
        using Half = typename Vector<8>::type;
        Half half;
        for (int l = 0; l < 8; ++l) half[l] = sum[m][r][l];
        *reinterpret_cast<Half*>(to) = half;
      } else {
        for (int l = 0; l < t.lanes; ++l) to[l] = sum[m][r][l];
      }
    }
}

/// padded: source columns -1 and behind the last are there (zero, or those of the neighbouring tile).
template <Relation relation, int M, int R, int lanes, bool pair, bool padded>
void compute(const Tile& t) {
  using V = typename Vector<lanes>::type;
  constexpr int source_columns = relation == doubling ? R / 2 : relation == halving ? 2 * R : R;
  constexpr int first = padded && relation != doubling ? -1 : 0;
  constexpr int last = source_columns + (padded && relation != halving ? 1 : 0);
  V sum[M][R];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) sum[m][r] = V{};
  for (int tap = 0; tap < t.taps; ++tap) {
    const float* w = t.weights[tap];
    const float* plane = t.source + t.row[tap];
    for (int64_t left = t.channels; left > 0; left -= block, plane += t.plane) {
      const float* x = plane;
      Spread<lanes, pair> spread(0);
      for (int64_t c = left < block ? left : block; c > 0; --c, w += 3 * lanes) {
        const V w0 = *reinterpret_cast<const V*>(w), w1 = *reinterpret_cast<const V*>(w + lanes),
                w2 = *reinterpret_cast<const V*>(w + 2 * lanes);
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m)
#pragma GCC unroll 24
          for (int p = first; p < last; ++p) {
            const auto value = spread.of(x + m * t.image + p * slot_of(pair));
            const int r0 = result_column<relation, R>(p, 0), r1 = result_column<relation, R>(p, 1),
                      r2 = result_column<relation, R>(p, 2);
            if (r0 >= 0) sum[m][r0] += value * w0;
            if (r1 >= 0) sum[m][r1] += value * w1;
            if (r2 >= 0) sum[m][r2] += value * w2;
          }
        if constexpr (pair) {
          spread.next();
        } else {
          ++x;
        }
      }
    }
  }
  store_sums<M, R, lanes>(t, sum);
}

using Compute = void (*)(const Tile&);

constexpr int images_at_once(int columns) {
  const int most = max_accumulators / columns;
  return most < 1 ? 1 : most > 6 ? 6 : most;
}

template <Relation relation, int R, int lanes, bool pair, bool padded>
Compute choose(bool many) {
  return many ? compute<relation, images_at_once(R), R, lanes, pair, padded>
              : compute<relation, 1, R, lanes, pair, padded>;
}

/// Of R columns or more, in steps of two where columns double. Tiles narrower than 5 only occur as whole rows, wider
/// rows are cut into tiles of 5 to 8.
template <Relation relation, int lanes, bool pair, int R = relation == doubling ? 2 : 1>
Compute choose(int columns, bool padded, bool many) {
  if constexpr (R < max_columns)
    if (columns > R) return choose<relation, lanes, pair, R + (relation == doubling ? 2 : 1)>(columns, padded, many);
  if constexpr (R > 4)
    if (padded) return choose<relation, R, lanes, pair, true>(many);
  return choose<relation, R, lanes, pair, false>(many);
}

/// How a segment is cut into jobs and tiles.
struct Cut {
  Relation relation;
  int columns, tiles;    // of a tile; tiles of a row
  int at_once;           // images of a tile
  int64_t images, band;  // images and result rows of a job
  int64_t units;         // of a job
  int64_t source_rows;   // copied rows of a job
  ChannelCopy copy;
  int64_t copy_floats;

  int64_t tile_start(int tile, int64_t result_w) const {
    const int64_t even = relation == doubling ? (result_w + 1) / 2 * 2 : result_w;
    const int64_t start = static_cast<int64_t>(tile) * columns;
    return start + columns > even ? even - columns : start;  // the last tile overlaps its neighbour
  }
};

constexpr int64_t copy_target = 32 * 1024;  // floats: 128 KiB, of an L2 cache of 512 or more

Cut cut(const GroupedConv& c, const GroupedImages& s) {
  Cut k{};
  k.relation = relation_of(c);
  const int64_t w = k.relation == doubling ? (s.result_w + 1) / 2 * 2 : s.result_w;
  k.tiles = static_cast<int>((w + max_columns - 1) / max_columns);
  k.columns = static_cast<int>((w + k.tiles - 1) / k.tiles);
  if (k.relation == doubling) k.columns = (k.columns + 1) / 2 * 2;
  k.at_once = images_at_once(k.columns);
  const int64_t copied_columns = (k.relation == halving ? 2 * s.result_w : s.source_w) + 2,
                row = copied_columns * slot_of(paired(c)), all = units(c);
  const int64_t planes = input_blocks(c), few = (8 + planes - 1) / planes;  // units whose channels fill 4 cache lines
  const int64_t whole = s.source_h * row * planes;                          // floats of an image and unit
  const int64_t fewest_rows = s.source_h < 8 ? s.source_h : 8;
  k.units = row * planes * fewest_rows * k.at_once * all <= 2 * copy_target || few >= all ? all : few;
  k.images = k.at_once < s.n ? k.at_once : s.n;
  k.source_rows = s.source_h;
  k.band = s.result_h;
  if (whole * k.at_once * k.units <= copy_target) {
    while (k.images + k.at_once <= s.n && (k.images + k.at_once) * k.units * whole <= copy_target)
      k.images += k.at_once;
  } else {
    const int64_t rows = copy_target / (row * planes * k.at_once * k.units);
    k.source_rows = rows < fewest_rows ? fewest_rows : rows;
    if (k.source_rows < s.source_h)
      k.band = k.relation == same_size ? k.source_rows - 2
               : k.relation == halving ? (k.source_rows - 1) / 2
                                       : (k.source_rows - 1) * 2;
  }
  const int64_t image = k.source_rows * row;
  k.copy = {s.source_h, s.source_w, c.groups * c.reduced,          unit_reduced(c), copied_columns,
            row,        image,      plane_floats(k.images * image)};
  k.copy_floats = k.copy.plane * planes * k.units;
  return k;
}

size_t packed_weights_bytes(const GroupedConv& c) {
  return static_cast<size_t>(units(c) * result_blocks(c) * 9 * c.reduced * lanes_of(c)) * sizeof(float);
}

/// (unit, result block, kernel row, reduced channel, kernel column, lanes); for a data gradient at stride 1 the kernel
/// is turned around, so that the same products of places exist as in a forward pass.
void pack_weights(const GroupedConv& c, const float* w, float* packed) {
  const int lanes = lanes_of(c);
  const bool turn = c.gradient && c.stride == 1;
  const int64_t blocks = result_blocks(c), all = units(c) * blocks;
#pragma omp parallel for schedule(static) if (all > 16)
  for (int64_t i = 0; i < all; ++i) {
    float* to = packed + i * 9 * c.reduced * lanes;
    for (int64_t ky = 0; ky < 3; ++ky)
      for (int64_t r = 0; r < c.reduced; ++r)
        for (int64_t kx = 0; kx < 3; ++kx)
          for (int64_t l = 0; l < lanes; ++l) {
            const int64_t g = paired(c) ? 2 * i + l / block : i / blocks,
                          p = paired(c) ? l % block : i % blocks * lanes + l;
            const int64_t tap = turn ? 8 - ky * 3 - kx : ky * 3 + kx;
            const int64_t index = c.gradient ? ((g * c.reduced + r) * 9 + tap) * c.produced + p
                                             : ((g * c.produced + p) * 9 + tap) * c.reduced + r;
            *to++ = p < c.produced && g < c.groups ? w[index] : 0.f;
          }
  }
}

size_t images_scratch_bytes(const GroupedConv& c, const GroupedImages& s) {
  return static_cast<size_t>(cut(c, s).copy_floats) * sizeof(float);
}

/// The results of a tile (image, column, lanes) to where they belong.
template <int lanes, class T>
[[gnu::always_inline]] inline void store_tile(const Tile& t, int64_t images, int channels, int64_t pixel, int64_t image,
                                              T* to) {
  for (int64_t m = 0; m < images; ++m)
    for (int r = 0; r < t.columns; ++r) {
      const float* from = t.result + m * t.result_image + r * lanes;
      T* at = to + m * image + r * pixel;
      if (lanes == width && channels == lanes) {
        store(at, load(from));
      } else {
        store(at, load(from, Part{channels}), Part{channels});
      }
    }
}

/// Result rows [from, to) of images [first, end) and one unit, from its copy. Tiles are computed in f32; results of
/// another type pass through a tile's worth of cache.
template <Relation relation, int lanes, bool pair, class T>
void run_unit(const GroupedConv& c, const GroupedImages& s, const Cut& k, const float* copy, Rows copied,
              const float* packed, T* result, int64_t first, int64_t end, int64_t from, int64_t to, int64_t unit,
              Ahead& ahead) {
  const int64_t channels = c.groups * c.produced;
  const bool padded = k.tiles > 1;
  const Compute many = choose<relation, lanes, pair>(k.columns, padded, true),
                one = choose<relation, lanes, pair>(k.columns, padded, false);
  Tile t{};
  t.image = k.copy.image, t.plane = k.copy.plane, t.channels = c.reduced;
  const int64_t result_image = s.result_h * s.result_w * channels;
  constexpr bool direct = sizeof(T) == sizeof(float);
  alignas(64) float tile_results[max_accumulators * lanes];
  t.pixel = direct ? channels : lanes, t.result_image = direct ? result_image : k.columns * lanes;
  for (int64_t b = 0; b < result_blocks(c); ++b) {
    const float* weights = packed + (unit * result_blocks(c) + b) * 9 * c.reduced * lanes;
    const int64_t first_channel = unit * unit_produced(c) + b * lanes;
    const int64_t of_unit = unit_produced(c) - b * lanes,
                  left = of_unit < channels - first_channel ? of_unit : channels - first_channel;
    const int result_channels = static_cast<int>(left < lanes ? left : lanes);
    t.lanes = direct ? result_channels : lanes;
    for (int64_t y = from; y < to; ++y) {
      t.taps = 0;
      for (int64_t ky = 0; ky < 3; ++ky) {
        const int64_t place = relation == same_size ? y + ky - 1 : relation == halving ? 2 * y + ky - 1 : y - ky + 1;
        if (place < 0 || (relation == doubling && place % 2)) continue;
        const int64_t row = relation == doubling ? place / 2 : place;
        if (row >= s.source_h) continue;
        t.row[t.taps] = (row - copied.from) * k.copy.row;
        t.weights[t.taps++] = weights + ky * c.reduced * 3 * lanes;
      }
      for (int tile = 0; tile < k.tiles; ++tile) {
        const int64_t x = k.tile_start(tile, s.result_w);
        const int64_t under = relation == same_size ? x : relation == halving ? 2 * x : x / 2;
        t.columns = static_cast<int>(s.result_w - x < k.columns ? s.result_w - x : k.columns);
        for (int64_t n = first; n < end;) {
          const bool full = end - n >= k.at_once;
          t.source = copy + (n - first) * k.copy.image + (1 + under) * slot_of(pair);
          T* to = result + ((n * s.result_h + y) * s.result_w + x) * channels + first_channel;
          if constexpr (direct) {
            t.result = to;
          } else {
            t.result = tile_results;
          }
          ahead.step();
          (full ? many : one)(t);
          if constexpr (!direct)
            store_tile<lanes>(t, full ? k.at_once : 1, result_channels, channels, result_image, to);
          n += full ? k.at_once : 1;
        }
      }
    }
  }
}

template <Relation relation, int lanes, bool pair, class T>
void run_images(const GroupedConv& c, const GroupedImages& s, const T* source, const float* packed, T* result,
                float* scratch) {
  const Cut k = cut(c, s);
  const int64_t blocks = (s.n + k.images - 1) / k.images, bands = (s.result_h + k.band - 1) / k.band,
                parts = (units(c) + k.units - 1) / k.units;
  const int64_t jobs = blocks * bands * parts;
  struct Job {
    int64_t first, end, from, to, unit, end_unit;
    Rows rows;
  };
  const auto job_at = [&](int64_t i) {
    Job j{};
    j.first = i / parts / bands * k.images, j.from = i / parts % bands * k.band, j.unit = i % parts * k.units;
    j.end = j.first + k.images < s.n ? j.first + k.images : s.n;
    j.to = j.from + k.band < s.result_h ? j.from + k.band : s.result_h;
    j.end_unit = j.unit + k.units < units(c) ? j.unit + k.units : units(c);
    j.rows = source_rows(relation, j.from, j.to, s.source_h);
    return j;
  };
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < jobs; ++i) {
    const Job j = job_at(i);
    Ahead ahead;
    if (parts == 1 && i + 1 < jobs) {
      const Job next = job_at(i + 1);
      ahead.add(source, s.source_h, s.source_w, c.groups * c.reduced, next.first, next.end, next.rows, false);
      ahead.add(result, s.result_h, s.result_w, c.groups * c.produced, next.first, next.end, {next.from, next.to},
                true);
      ahead.spread_over(units(c) * result_blocks(c) * (j.to - j.from) * k.tiles *
                        ((j.end - j.first + k.at_once - 1) / k.at_once));
    }
    float* copy = scratch + omp_get_thread_num() * k.copy_floats;
    copy_rows<slot_of(pair)>(k.copy, source, j.first, j.end - j.first, j.rows, j.unit, j.end_unit - j.unit, copy);
    for (int64_t u = j.unit; u < j.end_unit; ++u)
      run_unit<relation, lanes, pair, T>(c, s, k, copy + (u - j.unit) * input_blocks(c) * k.copy.plane, j.rows, packed,
                                         result, j.first, j.end, j.from, j.to, u, ahead);
  }
}

template <int lanes, bool pair>
void run_images(const GroupedConv& c, const GroupedImages& s, const void* source, const float* packed, void* result,
                float* scratch) {
  with_storage(c.dtype, [&](auto type) {
    using T = decltype(type);
    const T* from = static_cast<const T*>(source);
    T* to = static_cast<T*>(result);
    switch (relation_of(c)) {
      case same_size:
        return run_images<same_size, lanes, pair, T>(c, s, from, packed, to, scratch);
      case halving:
        return run_images<halving, lanes, pair, T>(c, s, from, packed, to, scratch);
      case doubling:
        return run_images<doubling, lanes, pair, T>(c, s, from, packed, to, scratch);
    }
  });
}

void images(const GroupedConv& c, const GroupedImages& s, const void* source, const float* packed, void* result,
            float* scratch) {
  if constexpr (widest_lanes == 16) {
    if (paired(c)) return run_images<16, true>(c, s, source, packed, result, scratch);
    if (lanes_of(c) == 16) return run_images<16, false>(c, s, source, packed, result, scratch);
  }
  run_images<narrow_lanes, false>(c, s, source, packed, result, scratch);
}

}  // namespace

}  // namespace saccade::kernels::cpu::SACCADE_ISA

namespace saccade::kernels::cpu {
const GroupedConvKernels GroupedConvKernels::SACCADE_ISA = {SACCADE_ISA::packed_weights_bytes,
                                                            SACCADE_ISA::pack_weights,
                                                            SACCADE_ISA::images_scratch_bytes, SACCADE_ISA::images};
}  // namespace saccade::kernels::cpu
