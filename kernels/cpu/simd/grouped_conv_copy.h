#pragma once

// What the files of the grouped convolution share (see ../grouped_conv.h): vectors, relations between the columns of
// both sides, and the copy of a group's channels into cache. Copies are f32 whatever the images are: what computes
// knows nothing of other types.
#include <saccade/kernels/cpu/grouped_conv.h>
#include <saccade/kernels/cpu/simd/vector.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

constexpr int block = 8;  // source channels of a copied block
#ifdef __AVX512F__
constexpr int max_accumulators = 16, widest_lanes = 16, narrow_lanes = 8;
#elif defined(__AVX2__)
constexpr int max_accumulators = 12, widest_lanes = 8, narrow_lanes = 8;
#else
constexpr int max_accumulators = 10, widest_lanes = 4, narrow_lanes = 4;
#endif
constexpr int max_columns = 8;

template <int lanes>
struct Vector {
  typedef float type __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
  typedef int index __attribute__((vector_size(4 * lanes)));
};

/// How source and result columns (and rows) are related.
enum Relation { same_size, halving, doubling };

/// A unit of the work is a group, or a pair of groups (a lone last one counts as a pair) that share wide registers.
inline bool paired(const GroupedConv& c) { return widest_lanes == 16 && c.pair; }
inline int64_t units(const GroupedConv& c) { return paired(c) ? (c.groups + 1) / 2 : c.groups; }
inline int64_t unit_reduced(const GroupedConv& c) { return paired(c) ? 16 : c.reduced; }
inline int64_t unit_produced(const GroupedConv& c) { return paired(c) ? 16 : c.produced; }

/// Produced channels in one register: the widest where a unit fills it.
inline int lanes_of(const GroupedConv& c) {
  const int64_t produced = unit_produced(c);
  return widest_lanes == 16 && (produced % 16 == 0 || produced % 16 > 8) ? 16 : narrow_lanes;
}
inline int64_t result_blocks(const GroupedConv& c) { return (unit_produced(c) + lanes_of(c) - 1) / lanes_of(c); }

/// Channels of a copied block.
constexpr int slot_of(bool pair) { return pair ? 16 : block; }
inline int64_t input_blocks(const GroupedConv& c) {
  return (unit_reduced(c) + slot_of(paired(c)) - 1) / slot_of(paired(c));
}

/// The value of one channel for all lanes; of a pair: of each group's channel for its half of the lanes.
template <int lanes, bool pair>
struct Spread {
  typename Vector<lanes>::index index{};
  explicit Spread(int channel) {
    for (int l = 0; l < lanes; ++l) index[l] = channel + l / block * block;
  }
  void next() { index += 1; }
  [[gnu::always_inline]] typename Vector<lanes>::type of(const float* pixel) const {
    return __builtin_shuffle(*reinterpret_cast<const typename Vector<lanes>::type*>(pixel), index);
  }
};
template <int lanes>
struct Spread<lanes, false> {
  int channel;
  explicit Spread(int first) : channel(first) {}
  [[gnu::always_inline]] float of(const float* pixel) const { return pixel[channel]; }
};

inline Relation relation_of(const GroupedConv& c) {
  return c.stride == 1 ? same_size : c.gradient ? doubling : halving;
}

/// Source rows that result rows [from, to) touch.
struct Rows {
  int64_t from, to;
};

inline Rows source_rows(Relation relation, int64_t from, int64_t to, int64_t source_h) {
  Rows rows = relation == same_size ? Rows{from - 1, to + 1}
              : relation == halving ? Rows{2 * from - 1, 2 * (to - 1) + 2}
                                    : Rows{from / 2, (to - 1 + 1) / 2 + 1};
  if (rows.from < 0) rows.from = 0;
  if (rows.to > source_h) rows.to = source_h;
  return rows;
}

/// Fetches what the next job will read and write while the present one computes, a few cache lines at a time: large
/// maps come from memory, which would otherwise wait while we compute and make us wait while we copy.
struct Ahead {
  struct Part {  // `count` ranges of bytes
    const char* base;
    int64_t bytes, stride, count;
    bool written;
  };
  Part parts[2] = {};
  int64_t lines_a_step = 0;
  int part = 0;
  int64_t range = 0, offset = 0;

  /// The rows of images [first, end), whole pixels.
  template <class T>
  void add(const T* images, int64_t h, int64_t w, int64_t channels, int64_t first, int64_t end, Rows rows,
           bool written) {
    const int64_t row_bytes = w * channels * static_cast<int64_t>(sizeof(T));
    Part p{reinterpret_cast<const char*>(images) + (first * h + rows.from) * row_bytes,
           (rows.to - rows.from) * row_bytes, h * row_bytes, end - first, written};
    if (rows.to - rows.from == h) p.bytes *= p.count, p.count = 1;
    parts[part++] = p;
  }
  void spread_over(int64_t steps) {
    int64_t lines = 0;
    for (const Part& p : parts) lines += (p.bytes / 64 + 1) * p.count;
    lines_a_step = (lines + steps - 1) / steps;
    part = 0;
  }
  void step() {
    for (int64_t lines = lines_a_step; lines > 0 && part < 2;) {
      const Part& p = parts[part];
      const char* line = p.base + range * p.stride + offset;
      const int64_t left = (p.bytes - offset + 63) / 64, now = lines < left ? lines : left;
      if (p.written) {
        for (int64_t i = 0; i < now; ++i) asm volatile("prefetchw %0" ::"m"(line[i * 64]));
      } else {
        for (int64_t i = 0; i < now; ++i) __builtin_prefetch(line + i * 64, 0, 2);
      }
      lines -= now;
      offset += now * 64;
      if (now < left) return;
      offset = 0;
      if (++range == p.count) range = 0, ++part;
    }
  }
};

/// A copy of the channels of some units: to (unit, channel block, image, row, column, slot), where a channel block is
/// `slot` channels (zeros behind the unit's last), with a zero column before the first and zeros up to `columns`.
struct ChannelCopy {
  int64_t h, w, channels;     // of the images; channels: of all groups
  int64_t unit_channels;      // of one unit
  int64_t columns;            // of the copy, with the zero ones
  int64_t row, image, plane;  // floats of the copy
};

/// So many floats that planes do not fall on the same cache sets: an odd number of cache lines.
inline int64_t plane_floats(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

/// The first n of a slot's channels, zeros behind them.
template <int slot, class T>
[[gnu::always_inline]] inline void fill_slot(const T* from, int64_t n, float* to) {
  if constexpr (slot > width) {
    for (int64_t c = 0; c < slot; ++c) to[c] = c < n ? load(from + c, Part{1})[0] : 0.f;
  } else if constexpr (slot == width) {
    store(to, load(from, Part{static_cast<int>(n)}));
  } else {
    store(to, load(from, Part{static_cast<int>(n)}), Part{slot});
  }
}
template <int slot, class T>
[[gnu::always_inline]] inline void fill_slot(const T* from, float* to) {
  if constexpr (sizeof(T) == sizeof(float)) {
    using V = typename Vector<slot>::type;
    *reinterpret_cast<V*>(to) = *reinterpret_cast<const V*>(from);
  } else if constexpr (slot < width) {
    store(to, load(from, Part{slot}), Part{slot});
  } else {
    for (int c = 0; c < slot; c += width) store(to + c, load(from + c));
  }
}

/// Reads whole pixels in their order, once, for all units: memory likes that much better than a unit at a time.
template <int slot, class T>
[[gnu::always_inline]] inline void copy_rows(const ChannelCopy& k, const T* images, int64_t first_image, int64_t n,
                                             Rows rows, int64_t first_unit, int64_t units, float* copy) {
  using V = typename Vector<slot>::type;
  const int64_t blocks = (k.unit_channels + slot - 1) / slot, planes = units * blocks;
  const int64_t first_channel = first_unit * k.unit_channels;
  // Planes whose channels are all there, one behind the other.
  const int64_t whole = k.unit_channels != blocks * slot              ? 0
                        : first_channel + planes * slot <= k.channels ? planes
                                                                      : planes - 1;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t y = rows.from; y < rows.to; ++y) {
      const T* from = images + (((first_image + i) * k.h + y) * k.w) * k.channels + first_channel;
      float* row = copy + i * k.image + (y - rows.from) * k.row;
      for (int64_t p = 0; p < planes; ++p) {
        float* to = row + p * k.plane;
        *reinterpret_cast<V*>(to) = V{};
        for (int64_t x = k.w + 1; x < k.columns; ++x) *reinterpret_cast<V*>(to + x * slot) = V{};
      }
      for (int64_t x = 0; x < k.w; ++x, from += k.channels) {
        float* to = row + (x + 1) * slot;
        for (int64_t p = 0; p < whole; ++p) fill_slot<slot>(from + p * slot, to + p * k.plane);
        for (int64_t p = whole; p < planes; ++p) {
          const int64_t in_unit = p % blocks * slot, channel = p / blocks * k.unit_channels + in_unit;
          const int64_t of_unit = k.unit_channels - in_unit, there = k.channels - first_channel - channel;
          const int64_t left = of_unit < there ? of_unit : there;
          fill_slot<slot>(from + channel, left < slot ? left : slot, to + p * k.plane);
        }
      }
    }
}

}  // namespace
}  // namespace saccade::kernels::cpu::SACCADE_ISA
