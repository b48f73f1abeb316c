#pragma once

// What tests of convolutions measure by: inputs, plain loops in double precision, bytes with guards around them.

#include <saccade/kernels/conv.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "arrays.h"

namespace saccade::kernels {

inline std::vector<double> random_values(int64_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<double> values(static_cast<size_t>(n));
  for (double& v : values) v = static_cast<double>(generator() >> 8) * 0x1p-23 - 1.;
  return values;
}

/// Calls visit(x index, w index, y index) for every multiply-accumulate of the convolution.
template <class Visit>
void for_each_product(const Conv2d& c, const Segments& in, Visit visit) {
  const int64_t gi = c.in_channels / c.groups, go = c.out_channels / c.groups;
  int64_t x0 = 0, y0 = 0;
  for (const Segment& s : in) {
    const Segment o = c.output(s);
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t p = 0; p < o.h * o.w; ++p)
        for (int64_t ky = 0; ky < c.kernel; ++ky)
          for (int64_t kx = 0; kx < c.kernel; ++kx) {
            const int64_t iy = p / o.w * c.stride + ky - c.padding, ix = p % o.w * c.stride + kx - c.padding;
            if (iy < 0 || iy >= s.h || ix < 0 || ix >= s.w) continue;
            const int64_t x_row = (x0 + (n * s.h + iy) * s.w + ix) * c.in_channels;
            const int64_t y_row = (y0 + n * o.h * o.w + p) * c.out_channels;
            for (int64_t co = 0; co < c.out_channels; ++co)
              for (int64_t ci = 0; ci < gi; ++ci)
                visit(x_row + co / go * gi + ci, ((co * c.kernel + ky) * c.kernel + kx) * gi + ci, y_row + co);
          }
    x0 += s.rows();
    y0 += o.rows();
  }
}

inline int64_t output_rows(const Conv2d& conv, const Segments& in) {
  return std::accumulate(in.begin(), in.end(), int64_t{0},
                         [&](int64_t sum, const Segment& s) { return sum + conv.output(s).rows(); });
}

/// Bytes from a cache line on, exactly as many as asked for, filled with NaN; guards before and behind them.
class GuardedBytes {
 public:
  explicit GuardedBytes(size_t bytes) : bytes_(bytes), storage_(bytes + 2 * guard + line, mark) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    begin_ = storage_.data() + guard + (line - address % line) % line;
    std::fill_n(begin_, bytes, std::byte{0xff});
  }
  void* data() { return begin_; }
  bool guards_untouched() const {
    const auto is_mark = [](std::byte b) { return b == mark; };
    const std::byte* first = storage_.data();
    return std::all_of(first, static_cast<const std::byte*>(begin_), is_mark) &&
           std::all_of(static_cast<const std::byte*>(begin_) + bytes_, first + storage_.size(), is_mark);
  }

 private:
  static constexpr size_t guard = 16384, line = 64;
  static constexpr std::byte mark{0xab};
  size_t bytes_;
  std::vector<std::byte> storage_;
  std::byte* begin_;
};

/// Errors are judged against the size of the sum of the products' magnitudes, which bounds f32 rounding, and the
/// rounding of the result to its type.
inline void expect_close(const Array& got, const std::vector<double>& expected, const std::vector<double>& magnitude) {
  const double last = got.dtype == DType::f32 ? 0 : rounding(got.dtype);
  const double subnormal = got.dtype == DType::f16 ? 0x1p-25 : 0;  // below 2^-14 f16 rounds to multiples of 2^-24
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = 2e-6 * (magnitude[i] + 1e-3) + last * std::abs(expected[i]) + subnormal;
    const double error = std::isfinite(got.values[i]) ? std::abs(got.values[i] - expected[i]) / bound : 1e30;
    if (error > worst) worst = error, where = i;
  }
  EXPECT_LE(worst, 1) << "element " << where << ": got " << got.values[where] << ", expected " << expected[where];
}

}  // namespace saccade::kernels
