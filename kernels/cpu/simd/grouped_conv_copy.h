#pragma once

// What the files of the grouped convolution share (see ../grouped_conv.h): vectors, relations between the columns of
// both sides, and the copy of a group's channels into cache.
#include <saccade/kernels/cpu/grouped_conv.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

constexpr int64_t block = 8;  // source channels of a copied block
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
};

/// How source and result columns (and rows) are related.
enum Relation { same_size, halving, doubling };

/// Produced channels in one register: the widest where groups fill it.
inline int lanes_of(const GroupedConv& c) {
  return widest_lanes == 16 && (c.produced % 16 == 0 || c.produced % 16 > 8) ? 16 : narrow_lanes;
}

inline int64_t result_blocks(const GroupedConv& c) { return (c.produced + lanes_of(c) - 1) / lanes_of(c); }

inline int64_t input_blocks(const GroupedConv& c) { return (c.reduced + block - 1) / block; }

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
  void add(const float* images, int64_t h, int64_t w, int64_t channels, int64_t first, int64_t end, Rows rows,
           bool written) {
    const int64_t row_bytes = w * channels * static_cast<int64_t>(sizeof(float));
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

/// A copy of the channels of some groups: to (group, channel block, image, row, column, slot), where a channel block is
/// `slot` channels (zeros behind the group's last), with a zero column before the first and zeros up to `columns`.
struct ChannelCopy {
  int64_t h, w, channels;     // of the images; channels: of all groups
  int64_t group_channels;     // of one group
  int64_t columns;            // of the copy, with the zero ones
  int64_t row, image, plane;  // floats of the copy
};

/// So many floats that planes do not fall on the same cache sets: an odd number of cache lines.
inline int64_t plane_floats(int64_t floats) { return ((floats + 15) / 16 | 1) * 16; }

/// Reads whole pixels in their order, once, for all groups: memory likes that much better than a group at a time.
template <int slot>
[[gnu::always_inline]] inline void copy_rows(const ChannelCopy& k, const float* images, int64_t first_image, int64_t n,
                                             Rows rows, int64_t first_group, int64_t groups, float* copy) {
  using V = typename Vector<slot>::type;
  const int64_t blocks = (k.group_channels + slot - 1) / slot, planes = groups * blocks;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t y = rows.from; y < rows.to; ++y) {
      const float* from = images + (((first_image + i) * k.h + y) * k.w) * k.channels + first_group * k.group_channels;
      float* row = copy + i * k.image + (y - rows.from) * k.row;
      for (int64_t p = 0; p < planes; ++p) {
        float* to = row + p * k.plane;
        *reinterpret_cast<V*>(to) = V{};
        for (int64_t x = k.w + 1; x < k.columns; ++x) *reinterpret_cast<V*>(to + x * slot) = V{};
      }
      for (int64_t x = 0; x < k.w; ++x, from += k.channels) {
        float* to = row + (x + 1) * slot;
        if (k.group_channels == blocks * slot) {
          for (int64_t p = 0; p < planes; ++p)
            *reinterpret_cast<V*>(to + p * k.plane) = *reinterpret_cast<const V*>(from + p * slot);
        } else {
          for (int64_t p = 0; p < planes; ++p) {
            const int64_t first = p % blocks * slot, left = k.group_channels - first;
            const float* channel = from + p / blocks * k.group_channels + first;
            V value{};
            for (int64_t c = 0; c < (left < slot ? left : slot); ++c) value[c] = channel[c];
            *reinterpret_cast<V*>(to + p * k.plane) = value;
          }
        }
      }
    }
}

}  // namespace
}  // namespace saccade::kernels::cpu::SACCADE_ISA
