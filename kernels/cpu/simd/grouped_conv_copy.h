#pragma once

// What the files of the grouped convolution share (see ../grouped_conv.h): vectors, relations between the columns of
// both sides, and the copy of a group's channels into cache.
#include <saccade/kernels/cpu/grouped_conv.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

constexpr int64_t block = 8;  // source channels of a copied block
#ifdef __AVX512F__
constexpr int max_accumulators = 16, widest_lanes = 16;
#elif defined(__AVX2__)
constexpr int max_accumulators = 12, widest_lanes = 8;
#else
constexpr int max_accumulators = 6, widest_lanes = 8;
#endif
constexpr int max_columns = 8;

template <int lanes>
struct Vector {
  typedef float type __attribute__((vector_size(4 * lanes), aligned(4), may_alias));
};

/// How source and result columns (and rows) are related.
enum Relation { same_size, halving, doubling };

/// Produced channels in one register: 16 where groups fill them, else 8.
inline int lanes_of(const GroupedConv& c) {
  return widest_lanes == 16 && (c.produced % 16 == 0 || c.produced % 16 > 8) ? 16 : 8;
}

inline int64_t result_blocks(const GroupedConv& c) { return (c.produced + lanes_of(c) - 1) / lanes_of(c); }

inline Relation relation_of(const GroupedConv& c) { return c.stride == 1 ? same_size : c.gradient ? doubling : halving; }

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

/// What copy_rows does: the channels [first, first + count) of some images' rows to (image, row, column, slot), `slot`
/// floats a column, those behind `count` zero; a zero column before, and zeros behind up to copied_columns.
struct ChannelCopy {
  int64_t h, w, channels;  // of the images; channels: of all groups
  int64_t first, count;
  int64_t image, row, copied_columns;  // floats of the copy; columns with the zero ones
};

template <int slot>
[[gnu::always_inline]] inline void copy_rows(const ChannelCopy& k, const float* images, int64_t first_image, int64_t n,
                                             Rows rows, float* copy) {
  using V = typename Vector<slot>::type;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t y = rows.from; y < rows.to; ++y) {
      const float* from = images + (((first_image + i) * k.h + y) * k.w) * k.channels + k.first;
      float* to = copy + i * k.image + (y - rows.from) * k.row;
      *reinterpret_cast<V*>(to) = V{};
      to += slot;
      if (k.count == slot) {
        for (int64_t x = 0; x < k.w; ++x)
          *reinterpret_cast<V*>(to + x * slot) = *reinterpret_cast<const V*>(from + x * k.channels);
      } else {
        for (int64_t x = 0; x < k.w; ++x) {
          V value{};
          for (int64_t c = 0; c < k.count; ++c) value[c] = from[x * k.channels + c];
          *reinterpret_cast<V*>(to + x * slot) = value;
        }
      }
      for (int64_t x = k.w; x < k.copied_columns - 1; ++x) *reinterpret_cast<V*>(to + x * slot) = V{};
    }
}

}  // namespace
}  // namespace saccade::kernels::cpu::SACCADE_ISA
