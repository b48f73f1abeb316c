// The weight gradient of a 3x3 convolution, padding 1, for few channels a group (see grouped_conv.h).
//
// A job is a group, a block of its output channels (`lanes` of them, one register) and a chunk of images. x and dy are
// copied, a few images or a band of rows at a time, to (row, column, 8) and (row, column, lanes) in cache, zero columns
// around; then for each kernel row the gradients of 3 kernel columns x 8 input channels stay in registers while all
// places pass by: each value of x is loaded once and met by the 3 columns of dy it belongs to.
// Chunks are cut by the size of the problem and added in their order, so that the result does not depend on the
// threads.
#include <omp.h>
#include <saccade/kernels/cpu/simd/grouped_conv_copy.h>

namespace saccade::kernels::cpu::SACCADE_ISA {
namespace {

#ifdef __AVX512F__
constexpr int inputs = 8;  // input channels whose gradients are in registers together
#elif defined(__AVX2__)
constexpr int inputs = 4;
#else
constexpr int inputs = 2;
#endif

int64_t input_blocks(const GroupedConv& c) { return (c.reduced + block - 1) / block; }
int64_t partial_floats_of_job(const GroupedConv& c) { return 9 * input_blocks(c) * block * lanes_of(c); }

/// Images of one step of copies, or rows of it where an image is too large; and its sizes in floats.
struct Step {
  int64_t images, band, x_rows;
  int64_t x_row, x_image, x_plane, dy_row, dy_image;
  int64_t floats;
};

Step step_of(const GroupedConv& c, const GroupedImages& s, int lanes) {
  Step k{};
  const int64_t x_columns = (c.stride == 2 ? 2 * s.result_w : s.source_w) + 2;
  k.x_row = x_columns * block;
  k.dy_row = (s.result_w + 2) * lanes;
  const int64_t x_whole = s.source_h * k.x_row * input_blocks(c), dy_whole = s.result_h * k.dy_row;
  constexpr int64_t target = 6 * 1024;  // floats: 24 KiB
  k.images = 1;
  if (x_whole + dy_whole <= 2 * target) {
    k.band = s.result_h, k.x_rows = s.source_h;
    while (k.images < s.n && (k.images + 1) * (x_whole + dy_whole) <= target) ++k.images;
  } else {
    const int64_t fit = target / (c.stride * k.x_row * input_blocks(c) + k.dy_row);
    k.band = fit < 1 ? 1 : fit < s.result_h ? fit : s.result_h;
    k.x_rows = (k.band - 1) * c.stride + 3;
  }
  k.x_image = k.x_rows * k.x_row;
  k.x_plane = k.images * k.x_image;
  k.dy_image = k.band * k.dy_row;
  k.floats = k.x_plane * input_blocks(c) + k.images * k.dy_image;
  return k;
}

/// Adds to (3, 8, lanes) gradients, input channels [first, first + inputs) of them, what `images` x `rows` rows of
/// `columns` output places give.
template <int stride, int lanes>
void accumulate(const float* x, const float* dy, const Step& k, int64_t images, int64_t rows, int64_t columns,
                int first, float* gradient) {
  using V = typename Vector<lanes>::type;
  V sum[3][inputs];
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
    for (int c = 0; c < inputs; ++c)
      sum[kx][c] = *reinterpret_cast<const V*>(gradient + (kx * block + first + c) * lanes);
  for (int64_t n = 0; n < images; ++n)
    for (int64_t y = 0; y < rows; ++y) {
      const float* value = x + n * k.x_image + y * stride * k.x_row + first;
      const float* d = dy + n * k.dy_image + y * k.dy_row;
      for (int64_t p = 0; p < columns; ++p, value += stride * block, d += lanes) {
        if constexpr (stride == 1) {
          const V right = *reinterpret_cast<const V*>(d + lanes), here = *reinterpret_cast<const V*>(d),
                  left = *reinterpret_cast<const V*>(d - lanes);
#pragma GCC unroll 8
          for (int c = 0; c < inputs; ++c) {
            sum[0][c] += value[c] * right;
            sum[1][c] += value[c] * here;
            sum[2][c] += value[c] * left;
          }
        } else {
          const V here = *reinterpret_cast<const V*>(d);
#pragma GCC unroll 3
          for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
            for (int c = 0; c < inputs; ++c) sum[kx][c] += value[(kx - 1) * block + c] * here;
        }
      }
    }
#pragma GCC unroll 3
  for (int kx = 0; kx < 3; ++kx)
#pragma GCC unroll 8
    for (int c = 0; c < inputs; ++c) *reinterpret_cast<V*>(gradient + (kx * block + first + c) * lanes) = sum[kx][c];
}

/// gradient: (kernel row, input block, kernel column, 8, lanes) of one job.
template <int stride, int lanes>
void run_job(const GroupedConv& c, const GroupedImages& s, const Step& k, const float* x, const float* dy,
             int64_t first_image, int64_t end_image, int64_t group, int64_t out_block, float* copy, float* gradient) {
  for (int64_t i = 0; i < partial_floats_of_job(c); ++i) gradient[i] = 0.f;
  float* dy_copy = copy + k.x_plane * input_blocks(c);
  const int64_t outputs = c.produced - out_block * lanes < lanes ? c.produced - out_block * lanes : lanes;
  const ChannelCopy copy_dy{
      s.result_h, s.result_w, c.groups * c.produced, group * c.produced + out_block * lanes, outputs,
      k.dy_image, k.dy_row,   s.result_w + 2};
  for (int64_t n = first_image; n < end_image; n += k.images)
    for (int64_t from = 0; from < s.result_h; from += k.band) {
      const int64_t images = end_image - n < k.images ? end_image - n : k.images;
      const int64_t to = from + k.band < s.result_h ? from + k.band : s.result_h;
      const Rows rows = source_rows(stride == 1 ? same_size : halving, from, to, s.source_h);
      for (int64_t b = 0; b < input_blocks(c); ++b) {
        const int64_t count = c.reduced - b * block < block ? c.reduced - b * block : block;
        copy_rows<block>({s.source_h, s.source_w, c.groups * c.reduced, group * c.reduced + b * block, count, k.x_image,
                          k.x_row, k.x_row / block},
                         x, n, images, rows, copy + b * k.x_plane);
      }
      copy_rows<lanes>(copy_dy, dy, n, images, {from, to}, dy_copy);
      for (int64_t ky = 0; ky < 3; ++ky) {
        // Output rows y with a source row y * stride + ky - 1 in the image.
        const int64_t low = from * stride + ky - 1 < 0 ? from + 1 : from;
        int64_t high = to;
        while (high > low && (high - 1) * stride + ky - 1 >= s.source_h) --high;
        if (high <= low) continue;
        const float* x_row = copy + (low * stride + ky - 1 - rows.from) * k.x_row + block;
        const float* dy_row = dy_copy + (low - from) * k.dy_row + lanes;
        for (int64_t b = 0; b < input_blocks(c); ++b)
          for (int first = 0; first < block; first += inputs)
            accumulate<stride, lanes>(x_row + b * k.x_plane, dy_row, k, images, high - low,
                                      stride == 1 ? s.source_w : s.result_w, first,
                                      gradient + (ky * input_blocks(c) + b) * 3 * block * lanes);
      }
    }
}

template <int lanes>
void run_chunks(const GroupedConv& c, const GroupedImages& s, int64_t chunks, const float* x, const float* dy,
                float* partial, float* scratch) {
  const Step k = step_of(c, s, lanes);
  const int64_t blocks = result_blocks(c), jobs = chunks * c.groups * blocks;
  const auto job = c.stride == 1 ? run_job<1, lanes> : run_job<2, lanes>;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < jobs; ++i) {
    const int64_t chunk = i / (c.groups * blocks), group = i / blocks % c.groups;
    job(c, s, k, x, dy, s.n * chunk / chunks, s.n * (chunk + 1) / chunks, group, i % blocks,
        scratch + omp_get_thread_num() * k.floats, partial + i * partial_floats_of_job(c));
  }
}

int64_t weight_chunks(const GroupedConv& c, const GroupedImages& s) {
  const int64_t wanted = 64 / (c.groups * result_blocks(c));
  const int64_t chunks = wanted < 8 ? 8 : wanted;
  return chunks < s.n ? chunks : s.n;
}

size_t weight_partial_bytes(const GroupedConv& c) {
  return static_cast<size_t>(c.groups * result_blocks(c) * partial_floats_of_job(c)) * sizeof(float);
}

size_t weight_scratch_bytes(const GroupedConv& c, const GroupedImages& s) {
  return static_cast<size_t>(step_of(c, s, lanes_of(c)).floats) * sizeof(float);
}

void weight_partials(const GroupedConv& c, const GroupedImages& s, const float* x, const float* dy, float* partial,
                     float* scratch) {
  const int64_t chunks = weight_chunks(c, s);
  if constexpr (widest_lanes == 16) {
    if (lanes_of(c) == 16) return run_chunks<16>(c, s, chunks, x, dy, partial, scratch);
  }
  run_chunks<8>(c, s, chunks, x, dy, partial, scratch);
}

void weight_sum(const GroupedConv& c, int64_t chunks, float* partial, float* dw) {
  const int64_t lanes = lanes_of(c), job = partial_floats_of_job(c), all = c.groups * result_blocks(c);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < all; ++i) {
    float* sum = partial + i * job;
    for (int64_t chunk = 1; chunk < chunks; ++chunk) {
      const float* next = partial + (chunk * all + i) * job;
      for (int64_t j = 0; j < job; ++j) sum[j] += next[j];
    }
    const int64_t group = i / result_blocks(c), first = i % result_blocks(c) * lanes;
    for (int64_t l = 0; l < lanes && first + l < c.produced; ++l)
      for (int64_t tap = 0; tap < 9; ++tap)
        for (int64_t r = 0; r < c.reduced; ++r)
          dw[((group * c.produced + first + l) * 9 + tap) * c.reduced + r] =
              sum[(((tap / 3 * input_blocks(c) + r / block) * 3 + tap % 3) * block + r % block) * lanes + l];
  }
}

}  // namespace

const GroupedConvWeightKernels grouped_conv_weight{weight_chunks, weight_partial_bytes, weight_scratch_bytes,
                                                   weight_partials, weight_sum};

}  // namespace saccade::kernels::cpu::SACCADE_ISA
