// The weight gradient of a 3x3 convolution, padding 1, for few channels a group (see grouped_conv.h).
//
// A job is a unit (a group, or a pair), a block of its output channels (`lanes`, one register) and a chunk of images. x
// and dy are copied, a few images or a band of rows at a time, to (row, column, 8) and (row, column, lanes) in cache,
// zero columns around; then for each kernel row the gradients of 3 kernel columns x 8 input channels stay in registers
// while all places pass by: each value of x is loaded once and met by the 3 columns of dy it belongs to. Chunks are cut
// by the size of the problem and added in their order, so that the result does not depend on the threads.
#include <omp.h>
#include <saccade/kernels/cpu/simd/grouped_conv_copy.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

#ifdef __AVX512F__
constexpr int inputs = 8;  // input channels whose gradients are in registers together
#else
constexpr int inputs = 4;
#endif

int64_t partial_floats_of_job(const GroupedConv& c) { return 9 * input_blocks(c) * block * lanes_of(c); }

/// Units of a job; images of one of its steps of copies, or rows of it where an image is too large.
struct Step {
  int64_t units, images, band;
  ChannelCopy x, dy;
  int64_t x_floats, floats;
};

constexpr int64_t copies_target = 32 * 1024;  // floats: 128 KiB, of an L2 cache of 512 or more

Step step_of(const GroupedConv& c, const GroupedImages& s) {
  Step k{};
  const int64_t lanes = lanes_of(c);
  const int64_t x_columns = (c.stride == 2 ? 2 * s.result_w : s.source_w) + 2, dy_columns = s.result_w + 2;
  const int64_t all = units(c), x_row = x_columns * slot_of(paired(c)), dy_row = dy_columns * lanes;
  const int64_t x_planes = input_blocks(c), dy_planes = result_blocks(c);
  const int64_t few = (8 + x_planes - 1) / x_planes;  // units whose channels fill 4 cache lines
  const int64_t whole = s.source_h * x_row * x_planes + s.result_h * dy_row * dy_planes;
  const int64_t a_row = c.stride * x_row * x_planes + dy_row * dy_planes;
  const int64_t fewest_rows = s.result_h < 4 ? s.result_h : 4;
  k.units = a_row * fewest_rows * all <= 2 * copies_target || few >= all ? all : few;
  k.images = 1;
  k.band = s.result_h;
  int64_t x_rows = s.source_h;
  if (whole * k.units <= copies_target) {
    while (k.images < s.n && (k.images + 1) * k.units * whole <= copies_target) ++k.images;
  } else {
    const int64_t fit = copies_target / k.units / a_row;
    k.band = fit < fewest_rows ? fewest_rows : fit;
    if (k.band >= s.result_h) {
      k.band = s.result_h;
    } else {
      x_rows = (k.band - 1) * c.stride + 3;
    }
  }
  k.x = {s.source_h, s.source_w, c.groups * c.reduced, unit_reduced(c),
         x_columns,  x_row,      x_rows * x_row,       plane_floats(k.images * x_rows * x_row)};
  k.dy = {s.result_h, s.result_w, c.groups * c.produced, unit_produced(c),
          dy_columns, dy_row,     k.band * dy_row,       plane_floats(k.images * k.band * dy_row)};
  k.x_floats = k.x.plane * x_planes * k.units;
  k.floats = k.x_floats + k.dy.plane * dy_planes * k.units;
  return k;
}

/// Adds to (3, 8, lanes) gradients, input channels [first, first + inputs) of them, what `images` x `rows` rows of
/// `columns` output places give.
template <int stride, int lanes, bool pair>
[[gnu::always_inline]] inline void accumulate(const float* x, const float* dy, const Step& k, int64_t images,
                                              int64_t rows, int64_t columns, int first, float* gradient, Ahead& ahead) {
  using V = typename Vector<lanes>::type;
  constexpr int slot = slot_of(pair);
  static_assert(!pair || inputs == block);  // `first` is 0 for pairs
  V sum[3][inputs];
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
    for (int c = 0; c < inputs; ++c)
      sum[kx][c] = *reinterpret_cast<const V*>(gradient + (kx * block + first + c) * lanes);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t y = 0; y < rows; ++y) {
      ahead.step();
      const float* pixel = x + n * k.x.image + y * stride * k.x.row + first;
      const float* d = dy + n * k.dy.image + y * k.dy.row;
      for (int64_t p = 0; p < columns; ++p, pixel += stride * slot, d += lanes) {
        if constexpr (stride == 1) {
          const V right = *reinterpret_cast<const V*>(d + lanes), here = *reinterpret_cast<const V*>(d),
                  left = *reinterpret_cast<const V*>(d - lanes);
#pragma GCC unroll 8
          for (int c = 0; c < inputs; ++c) {
            const auto value = Spread<lanes, pair>(c).of(pixel);
            sum[0][c] += value * right;
            sum[1][c] += value * here;
            sum[2][c] += value * left;
          }
        } else {
          const V here = *reinterpret_cast<const V*>(d);
#pragma GCC unroll 3
          for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
            for (int c = 0; c < inputs; ++c) sum[kx][c] += Spread<lanes, pair>(c).of(pixel + (kx - 1) * slot) * here;
        }
      }
    }
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
    for (int c = 0; c < inputs; ++c) *reinterpret_cast<V*>(gradient + (kx * block + first + c) * lanes) = sum[kx][c];
}

/// One unit and block of output channels: adds to gradient (kernel row, input block, kernel column, 8, lanes) what the
/// copied output rows [from, to) of some images give. One function for all types of images, said outright: left to
/// itself the compiler cuts elsewhere, and groups of 24 are 13 % slower.
template <int stride, int lanes, bool pair>
[[gnu::noinline]] void run_unit(const GroupedConv& c, const GroupedImages& s, const Step& k, const float* x,
                                const float* dy, int64_t images, int64_t from, int64_t to, Rows copied, float* gradient,
                                Ahead& ahead) {
  for (int64_t ky = 0; ky < 3; ++ky) {
    // Output rows y with a source row y * stride + ky - 1 in the image.
    const int64_t low = from * stride + ky - 1 < 0 ? from + 1 : from;
    int64_t high = to;
    while (high > low && (high - 1) * stride + ky - 1 >= s.source_h) --high;
    if (high <= low) continue;
    const float* x_row = x + (low * stride + ky - 1 - copied.from) * k.x.row + slot_of(pair);
    const float* dy_row = dy + (low - from) * k.dy.row + lanes;
    for (int64_t b = 0; b < input_blocks(c); ++b)
      for (int first = 0; first < block; first += inputs)
        accumulate<stride, lanes, pair>(x_row + b * k.x.plane, dy_row, k, images, high - low,
                                        stride == 1 ? s.source_w : s.result_w, first,
                                        gradient + (ky * input_blocks(c) + b) * 3 * block * lanes, ahead);
  }
}

template <int stride, int lanes, bool pair, class T>
void run_chunks(const GroupedConv& c, const GroupedImages& s, int64_t chunks, const T* x, const T* dy, float* partial,
                float* scratch) {
  constexpr Relation relation = stride == 1 ? same_size : halving;
  const Step k = step_of(c, s);
  const int64_t outs = result_blocks(c), parts = (units(c) + k.units - 1) / k.units;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < chunks * parts; ++i) {
    const int64_t chunk = i / parts, unit = i % parts * k.units,
                  job_units = k.units < units(c) - unit ? k.units : units(c) - unit;
    const int64_t first = s.n * chunk / chunks, end = s.n * (chunk + 1) / chunks;
    float* gradient = partial + (chunk * units(c) + unit) * outs * partial_floats_of_job(c);
    for (int64_t j = 0; j < job_units * outs * partial_floats_of_job(c); ++j) gradient[j] = 0.f;
    float* x_copy = scratch + omp_get_thread_num() * k.floats;
    float* dy_copy = x_copy + k.x_floats;
    for (int64_t n = first; n < end; n += k.images)
      for (int64_t from = 0; from < s.result_h; from += k.band) {
        const int64_t images = end - n < k.images ? end - n : k.images;
        const int64_t to = from + k.band < s.result_h ? from + k.band : s.result_h;
        const Rows rows = source_rows(relation, from, to, s.source_h);
        copy_rows<slot_of(pair)>(k.x, x, n, images, rows, unit, job_units, x_copy);
        copy_rows<lanes>(k.dy, dy, n, images, {from, to}, unit, job_units, dy_copy);
        Ahead ahead;
        const bool last_band = to == s.result_h;
        if (parts == 1 && (!last_band || n + images < s.n)) {
          const int64_t next = last_band ? n + images : n, next_end = next + k.images < s.n ? next + k.images : s.n;
          const int64_t low = last_band ? 0 : to, high = low + k.band < s.result_h ? low + k.band : s.result_h;
          ahead.add(x, s.source_h, s.source_w, c.groups * c.reduced, next, next_end,
                    source_rows(relation, low, high, s.source_h), false);
          ahead.add(dy, s.result_h, s.result_w, c.groups * c.produced, next, next_end, {low, high}, false);
          ahead.spread_over(job_units * outs * 3 * input_blocks(c) * (block / inputs) * images * (to - from));
        }
        for (int64_t j = 0; j < job_units * outs; ++j)
          run_unit<stride, lanes, pair>(c, s, k, x_copy + j / outs * input_blocks(c) * k.x.plane,
                                        dy_copy + j * k.dy.plane, images, from, to, rows,
                                        gradient + j * partial_floats_of_job(c), ahead);
      }
  }
}

template <int lanes, bool pair>
void run_chunks(const GroupedConv& c, const GroupedImages& s, int64_t chunks, const void* x, const void* dy,
                float* partial, float* scratch) {
  with_storage(c.dtype, [&](auto type) {
    using T = decltype(type);
    const auto run = c.stride == 1 ? run_chunks<1, lanes, pair, T> : run_chunks<2, lanes, pair, T>;
    run(c, s, chunks, static_cast<const T*>(x), static_cast<const T*>(dy), partial, scratch);
  });
}

int64_t weight_chunks(const GroupedImages& s) {
  constexpr int64_t most = 16;  // enough for as many threads; each costs a copy of the weights
  return s.n < most ? s.n : most;
}

size_t weight_partial_bytes(const GroupedConv& c) {
  return static_cast<size_t>(units(c) * result_blocks(c) * partial_floats_of_job(c)) * sizeof(float);
}

size_t weight_scratch_bytes(const GroupedConv& c, const GroupedImages& s) {
  return static_cast<size_t>(step_of(c, s).floats) * sizeof(float);
}

void weight_partials(const GroupedConv& c, const GroupedImages& s, const void* x, const void* dy, float* partial,
                     float* scratch) {
  const int64_t chunks = weight_chunks(s);
  if constexpr (widest_lanes == 16) {
    if (paired(c)) return run_chunks<16, true>(c, s, chunks, x, dy, partial, scratch);
    if (lanes_of(c) == 16) return run_chunks<16, false>(c, s, chunks, x, dy, partial, scratch);
  }
  run_chunks<narrow_lanes, false>(c, s, chunks, x, dy, partial, scratch);
}

void weight_sum(const GroupedConv& c, int64_t chunks, float* partial, float* dw) {
  const int64_t lanes = lanes_of(c), job = partial_floats_of_job(c), all = units(c) * result_blocks(c);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < all; ++i) {
    float* sum = partial + i * job;
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const float* next = partial + (chunk * all + i) * job;
      for (int64_t j = 0; j < job; ++j) sum[j] += next[j];
    }
    const int64_t unit = i / result_blocks(c), first = i % result_blocks(c) * lanes;
    for (int64_t l = 0; l < lanes; ++l) {
      const int64_t group = paired(c) ? 2 * unit + l / block : unit, output = paired(c) ? l % block : first + l;
      if (output >= c.produced || group >= c.groups) continue;
      float* to = dw + (group * c.produced + output) * 9 * c.reduced;
      for (int64_t tap = 0; tap < 9; ++tap)
        for (int64_t r = 0; r < c.reduced; ++r)
          to[tap * c.reduced + r] =
              sum[(((tap / 3 * input_blocks(c) + r / block) * 3 + tap % 3) * block + r % block) * lanes + l];
    }
  }
}

}  // namespace

}  // namespace saccade::kernels::cpu::SACCADE_ISA

namespace saccade::kernels::cpu {
const GroupedConvWeightKernels GroupedConvWeightKernels::SACCADE_ISA = {
    SACCADE_ISA::weight_chunks, SACCADE_ISA::weight_partial_bytes, SACCADE_ISA::weight_scratch_bytes,
    SACCADE_ISA::weight_partials, SACCADE_ISA::weight_sum};
}  // namespace saccade::kernels::cpu
