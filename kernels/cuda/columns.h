#pragma once

// Rows of channels, read in whole vectors whatever the number of channels: 746, 1492 and 4103 are no multiples of 8.
//
// Maps (batch norm's second pass) see the rows in bands: the fewest rows whose elements are a whole number of vectors,
// or some more so that 32 lanes have work. A thread owns the same columns of every band, so that what belongs to their
// channels stays in registers; column u belongs to channel u % channels. Every vector is read and written once.
//
// Reductions over rows (sums a channel) see them in lines: one row, or as many rows as fit a tile of 32 vectors. A row
// may begin within a vector; but the 8 row lanes of a block take every eighth line, so that the shift between vectors
// and columns is constant for each of them, and sums stay in registers until the end, when a block folds its row lanes
// and the rows of a line. A vector across the border of two tiles is read by both.

#include <saccade/kernels/cuda/vectors.h>
#include <saccade/kernels/segments.h>

#include <algorithm>
#include <numeric>
#include <span>

namespace saccade::kernels::cuda {

constexpr int row_lanes = 8, tile_threads = lanes * row_lanes;
constexpr Extent tile{lanes, row_lanes};
constexpr int most_segments = 16;

/// The rows of a ragged batch cut into parts, one or more a segment or image; a part is the work of one block (and
/// tile). Part p of segment s belongs to its group (p - first_part[s]) / parts_each[s].
struct Cut {
  int segments;
  int64_t first_part[most_segments + 1];  ///< the last: number of parts
  int64_t first_row[most_segments];
  int64_t group_rows[most_segments];  ///< of an image, or of the segment
  int64_t parts_each[most_segments];
};

/// Where a part lies.
struct Part {
  int segment;
  int64_t group;      ///< number of the image, or 0, within the segment
  int64_t index;      ///< of this part in its group
  int64_t first_row;  ///< of the group
  int64_t rows;       ///< of the group
};

SACCADE_DEVICE Part locate(const Cut& cut, int64_t part) {
  int s = 0;
  while (part >= cut.first_part[s + 1]) ++s;
  const int64_t local = part - cut.first_part[s], group = local / cut.parts_each[s];
  return {s, group, local % cut.parts_each[s], cut.first_row[s] + group * cut.group_rows[s], cut.group_rows[s]};
}

/// Index into a shared array that lanes fill with V elements each: shifted so that neither lanes a vector apart nor
/// neighbours meet in a bank.
template <int V>
SACCADE_DEVICE int padded(int column) {
  return column + column / V;
}
template <int V>
constexpr int padded_tile = lanes*(V + 1);

// ---- bands

struct Bands {
  int64_t width;     ///< elements of a band
  int64_t channels;  ///< elements of a row
  int64_t tiles;     ///< of 32 vectors, that make up a band
  int64_t part_bands;
};

/// A thread's place in a map.
template <int V>
struct BandTile {
  Part part;
  int64_t column, first_column;   ///< of the band: of this thread, of the block
  int64_t begin, end;             ///< elements of the group
  int64_t first_band, last_band;  ///< of the part, the last excluded
};

template <int V>
SACCADE_DEVICE BandTile<V> band_tile(const Cut& cut, const Bands& bands) {
  const int64_t tile = block_x() % bands.tiles;
  BandTile<V> t;
  t.part = locate(cut, block_x() / bands.tiles);
  t.first_column = tile * lanes * V;
  t.column = t.first_column + thread_x() * V;
  t.begin = t.part.first_row * bands.channels;
  t.end = t.begin + t.part.rows * bands.channels;
  t.first_band = t.begin / bands.width + t.part.index * bands.part_bands;
  const int64_t beyond = (t.end + bands.width - 1) / bands.width;
  t.last_band = t.first_band + bands.part_bands < beyond ? t.first_band + bands.part_bands : beyond;
  return t;
}

/// Number of the thread in its block, of `tile_threads`.
SACCADE_DEVICE int tile_thread() { return thread_y() * lanes + thread_x(); }

/// Channel of column `own` of the block's tile; -1 beyond the band.
template <int V>
SACCADE_DEVICE int64_t channel_of(const BandTile<V>& t, const Bands& bands, int own) {
  return t.first_column + own < bands.width ? (t.first_column + own) % bands.channels : -1;
}

/// This thread's columns of an array staged for the tile.
template <int V>
SACCADE_DEVICE Floats<V> own_columns(const float* staged) {
  Floats<V> v;
  SACCADE_UNROLL
  for (int j = 0; j < V; ++j) v.at[j] = load(staged + thread_x() * (V + 1) + j);
  return v;
}

// ---- lines

struct Lines {
  int64_t channels;
  int64_t rows_each;   ///< rows of a line
  int64_t tiles;       ///< that make up a line
  int64_t tile_width;  ///< columns of a tile: at most 32 vectors, less one where rows may begin within a vector
  int64_t part_lines;
  int64_t total;  ///< elements of the whole tensor: vectors across a border may be read as far as that
};

/// A thread's place in a reduction.
template <int V>
struct LineTile {
  Part part;
  int64_t begin, end;     ///< elements of the part, the end cut at that of the group
  int64_t first_column;   ///< of the tile in a line
  int64_t line_elements;  ///< of a line
  int lines;              ///< of the part, the last perhaps not whole
  int columns;            ///< of this tile
};

template <int V>
SACCADE_DEVICE LineTile<V> line_tile(const Cut& cut, const Lines& lines) {
  LineTile<V> t;
  t.part = locate(cut, block_x() / lines.tiles);
  t.first_column = block_x() % lines.tiles * lines.tile_width;
  t.line_elements = lines.rows_each * lines.channels;
  const int64_t group_end = (t.part.first_row + t.part.rows) * lines.channels;
  t.begin = t.part.first_row * lines.channels + t.part.index * lines.part_lines * t.line_elements;
  t.end = t.begin + lines.part_lines * t.line_elements;
  if (t.end > group_end) t.end = group_end;
  t.lines = static_cast<int>((t.end - t.begin + t.line_elements - 1) / t.line_elements);
  const int64_t left = t.line_elements - t.first_column;
  t.columns = static_cast<int>(left < lines.tile_width ? left : lines.tile_width);
  return t;
}

/// How far into a vector the tile's columns begin in the lines of a row lane.
template <int V>
SACCADE_DEVICE int shift_of(const LineTile<V>& t, int row_lane) {
  return static_cast<int>((t.begin + row_lane * t.line_elements + t.first_column) % V);
}

/// One vector of a line: elements [first, last) of it are the tile's.
struct Window {
  int64_t at;
  int first, last;
};

template <int V>
SACCADE_DEVICE Window window(const LineTile<V>& t, int line, int shift) {
  const int64_t begin = t.begin + line * t.line_elements + t.first_column;
  int64_t end = begin + t.columns;
  if (end > t.end) end = t.end;
  Window w;
  w.at = begin - shift + thread_x() * V;
  w.first = w.at < begin ? static_cast<int>(begin - w.at) : 0;
  w.last = end - w.at < V ? static_cast<int>(end - w.at) : V;  // 0 or less: nothing
  return w;
}

/// Puts a thread's V sums where fold() finds them.
template <int V>
SACCADE_DEVICE void keep_for_fold(float* parts, const Floats<V>& sums) {
  SACCADE_UNROLL
  for (int j = 0; j < V; ++j) store(parts + thread_y() * padded_tile<V> + thread_x() * (V + 1) + j, sums.at[j]);
}

/// The sum of row lane w's part for column u of the tile.
template <int V>
SACCADE_DEVICE float kept(const float* parts, const LineTile<V>& t, int w, int u) {
  return load(parts + w * padded_tile<V> + padded<V>(u + shift_of(t, w)));
}

/// Channels that this tile finishes: column `own` is the first of channel first_column + own.
template <int V>
SACCADE_DEVICE int finished_channels(const LineTile<V>& t, const Lines& lines) {
  return lines.rows_each > 1 ? static_cast<int>(lines.channels) : t.columns;
}

/// Sum over row lanes and the rows of a line, for channel `own` of the tile.
template <int V>
SACCADE_DEVICE float fold(const float* parts, const LineTile<V>& t, const Lines& lines, int own) {
  float sum = 0;
  for (int row = 0; row < lines.rows_each; ++row) {
    SACCADE_UNROLL
    for (int w = 0; w < row_lanes; ++w) sum += kept(parts, t, w, own + row * static_cast<int>(lines.channels));
  }
  return sum;
}

// ---- on the host

/// Blocks that fill any device of today; parts are sized for about as many, whatever the device, so that results do not
/// depend on it.
constexpr int64_t wanted_blocks = 1024;

inline void require_segments(std::span<const Segment> segments, std::string_view where) {
  if (segments.size() > most_segments) {
    throw Error(std::string(where) + ": expected at most " + std::to_string(most_segments) + " segments, got " +
                std::to_string(segments.size()));
  }
}

/// by_image: a group is an image, else a segment. parts_in(first row, rows): into how many parts a group is cut.
template <class PartsIn>
Cut cut(std::span<const Segment> segments, bool by_image, PartsIn parts_in) {
  Cut result{};
  result.segments = static_cast<int>(segments.size());
  int64_t row = 0;
  for (size_t s = 0; s < segments.size(); ++s) {
    const int64_t groups = by_image ? segments[s].n : 1, rows = segments[s].rows() / std::max<int64_t>(groups, 1);
    result.first_row[s] = row;
    result.group_rows[s] = rows;
    result.parts_each[s] = 1;
    for (int64_t g = 0; g < groups; ++g) {
      result.parts_each[s] = std::max(result.parts_each[s], parts_in(row + g * rows, rows));
    }
    result.first_part[s + 1] = result.first_part[s] + (rows == 0 ? 0 : groups * result.parts_each[s]);
    row += segments[s].rows();
  }
  return result;
}

struct BandPlan {
  Bands bands;
  Cut cut;
  unsigned blocks() const { return static_cast<unsigned>(cut.first_part[cut.segments] * bands.tiles); }
};

/// V: elements of a vector.
inline BandPlan plan_bands(int V, std::span<const Segment> segments, int64_t channels, bool by_image,
                           std::string_view where) {
  require_segments(segments, where);
  const int64_t fewest_rows = V / std::gcd(channels, int64_t{V}), vectors = fewest_rows * channels / V;
  int64_t times = 1;  // bands of so many times the fewest rows: no more than a tenth of the lanes idle
  while (times < lanes && 10 * vectors * times < 9 * divide_up(vectors * times, lanes) * lanes) ++times;
  Bands bands{fewest_rows * channels * times, channels, divide_up(vectors * times, lanes), 0};
  // What a block reads of its channels is amortised over 64 bands or more.
  const int64_t all = divide_up(total_rows(segments) * channels, bands.width) * bands.tiles;
  bands.part_bands = std::clamp<int64_t>(all / wanted_blocks, 64, 256);
  return {bands, cut(segments, by_image, [&](int64_t first_row, int64_t rows) {
            const int64_t begin = first_row * channels, end = begin + rows * channels;
            return divide_up(divide_up(end, bands.width) - begin / bands.width, bands.part_bands);
          })};
}

struct LinePlan {
  Lines lines;
  Cut cut;
  int64_t parts() const { return cut.first_part[cut.segments]; }
  unsigned blocks() const { return static_cast<unsigned>(parts() * lines.tiles); }
};

/// V: elements of a vector; by_image: a part is a whole image.
inline LinePlan plan_lines(int V, std::span<const Segment> segments, int64_t channels, bool by_image,
                           std::string_view where) {
  require_segments(segments, where);
  const bool whole = channels % V == 0;
  const int64_t widest = (whole ? lanes : lanes - 1) * V;
  Lines lines{};
  lines.channels = channels;
  lines.rows_each = std::max<int64_t>(1, widest / channels);
  const int64_t elements = lines.rows_each * channels;
  lines.tiles = divide_up(elements, widest);
  lines.tile_width = divide_up(elements, lines.tiles);
  if (whole) lines.tile_width = divide_up(lines.tile_width, V) * V;
  lines.total = total_rows(segments) * channels;
  const int64_t all = divide_up(total_rows(segments), lines.rows_each) * lines.tiles;
  // Few enough parts that their sums are little beside the rows.
  lines.part_lines = by_image ? INT32_MAX / 2 : std::clamp<int64_t>(all / wanted_blocks, 128, 1024);
  return {lines, cut(segments, by_image, [&](int64_t, int64_t rows) {
            return divide_up(divide_up(rows, lines.rows_each), lines.part_lines);
          })};
}

/// All rows as one segment.
inline Segment rows_as_segment(int64_t rows) { return {rows, 1, 1}; }

}  // namespace saccade::kernels::cuda
