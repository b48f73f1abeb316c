// Every pass of the CPU convolution against plain double-precision loops.
#include <saccade/kernels/cpu/conv_plan.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.h"

namespace saccade::kernels {
namespace {

struct Case {
  const char* name;
  Conv2d conv;
  Segments in;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

std::vector<double> random_values(int64_t n, uint32_t seed) {
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

int64_t output_rows(const Case& c) {
  return std::accumulate(c.in.begin(), c.in.end(), int64_t{0},
                         [&](int64_t sum, const Segment& s) { return sum + c.conv.output(s).rows(); });
}

/// A workspace exactly as long as asked for, at a cache line, filled with NaN bytes and followed by a guard.
class GuardedWorkspace {
 public:
  explicit GuardedWorkspace(size_t bytes) : bytes_(bytes), storage_(bytes + 2 * guard, std::byte{0xff}) {
    const auto address = reinterpret_cast<uintptr_t>(storage_.data());
    begin_ = storage_.data() + (guard - address % guard) % guard;
  }
  void* data() { return begin_; }
  bool guard_untouched() const {
    for (size_t i = bytes_; begin_ + i < storage_.data() + storage_.size(); ++i)
      if (begin_[i] != std::byte{0xff}) return false;
    return true;
  }

 private:
  static constexpr size_t guard = 64;
  size_t bytes_;
  std::vector<std::byte> storage_;
  std::byte* begin_;
};

/// Errors are judged against the size of the sum of the products' magnitudes, which bounds f32 rounding, and the
/// rounding of the result to its type.
void expect_close(const Array& got, const std::vector<double>& expected, const std::vector<double>& magnitude) {
  const double last = got.dtype == DType::f32 ? 0 : rounding(got.dtype);
  double worst = 0;
  size_t where = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double bound = 2e-6 * (magnitude[i] + 1e-3) + last * std::abs(expected[i]);
    const double error = std::isfinite(got.values[i]) ? std::abs(got.values[i] - expected[i]) / bound : 1e30;
    if (error > worst) worst = error, where = i;
  }
  EXPECT_LE(worst, 1) << "element " << where << ": got " << got.values[where] << ", expected " << expected[where];
}

class Convolution : public testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  Case c = with_dtype();
  const DType dtype = c.conv.dtype;
  Backend& cpu = backend(Device::cpu);
  Array x = array(dtype, random_values(total_rows(c.in) * c.conv.in_channels, 1));
  Array w = array(dtype, random_values(c.conv.weight_elements(), 2));
  Array y = array(dtype, random_values(output_rows(c) * c.conv.out_channels, 3));

  static Case with_dtype() {
    Case c = std::get<0>(GetParam());
    c.conv.dtype = std::get<1>(GetParam());
    return c;
  }

  /// Runs a pass twice into NaN-filled results, with a guarded workspace; returns the first result.
  template <class Run>
  Array twice(ConvPass pass, const Array& like, Run run) {
    std::vector<Array> results;
    for (int i = 0; i < 2; ++i) {
      GuardedWorkspace workspace(cpu.conv2d_workspace(c.conv, c.in, pass));
      Array& out = results.emplace_back(
          unwritten(pass == ConvPass::backward_weight ? DType::f32 : dtype, static_cast<int64_t>(like.values.size())));
      run(out.data(), workspace.data());
      EXPECT_TRUE(workspace.guard_untouched());
    }
    EXPECT_EQ(results[0].bytes, results[1].bytes) << "not repeatable";
    results[0].refresh();
    return results[0];
  }
};

TEST_P(Convolution, ForwardMatchesTheSum) {
  std::vector<double> expected(y.values.size()), magnitude(y.values.size());
  for_each_product(c.conv, c.in, [&](int64_t ix, int64_t iw, int64_t iy) {
    const double product = x[ix] * w[iw];
    expected[iy] += product, magnitude[iy] += std::abs(product);
  });
  expect_close(twice(ConvPass::forward, y,
                     [&](void* out, void* ws) { cpu.conv2d_forward(c.conv, c.in, x.data(), w.data(), out, ws); }),
               expected, magnitude);
}

TEST_P(Convolution, DataGradientMatchesTheSum) {
  std::vector<double> expected(x.values.size()), magnitude(x.values.size());
  for_each_product(c.conv, c.in, [&](int64_t ix, int64_t iw, int64_t iy) {
    const double product = y[iy] * w[iw];
    expected[ix] += product, magnitude[ix] += std::abs(product);
  });
  expect_close(twice(ConvPass::backward_data, x,
                     [&](void* out, void* ws) { cpu.conv2d_backward_data(c.conv, c.in, y.data(), w.data(), out, ws); }),
               expected, magnitude);
}

TEST_P(Convolution, WeightGradientMatchesTheSum) {
  std::vector<double> expected(w.values.size()), magnitude(w.values.size());
  for_each_product(c.conv, c.in, [&](int64_t ix, int64_t iw, int64_t iy) {
    const double product = y[iy] * x[ix];
    expected[iw] += product, magnitude[iw] += std::abs(product);
  });
  expect_close(twice(ConvPass::backward_weight, w,
                     [&](void* out, void* ws) {
                       cpu.conv2d_backward_weight(c.conv, c.in, x.data(), y.data(), static_cast<float*>(out), ws);
                     }),
               expected, magnitude);
}

const Case cases[] = {
    {"dense_3x3", {16, 24, 3, 1, 1, 1}, {{2, 9, 7}}},
    {"dense_3x3_two_segments", {16, 32, 3, 1, 1, 1}, {{2, 8, 8}, {3, 5, 4}}},
    {"dense_3x3_stride_2", {16, 16, 3, 2, 1, 1}, {{2, 9, 8}, {2, 4, 4}}},
    {"resnet_stem", {3, 64, 7, 2, 3, 1}, {{2, 20, 21}, {1, 12, 12}}},
    {"stem_of_one_channel", {1, 16, 3, 1, 1, 1}, {{3, 14, 14}, {3, 8, 8}}},
    {"stem_of_one_channel_stride_2", {1, 32, 3, 2, 1, 1}, {{3, 28, 28}, {3, 16, 16}}},
    {"stem_of_one_channel_odd_width", {1, 13, 3, 2, 1, 1}, {{2, 7, 10}}},
    {"stem_of_three_channels_stride_2", {3, 32, 3, 2, 1, 1}, {{2, 24, 24}, {2, 13, 11}}},
    {"stem_of_three_channels", {3, 24, 3, 1, 1, 1}, {{2, 8, 8}, {1, 1, 3}}},
    {"pointwise", {24, 40, 1, 1, 0, 1}, {{3, 7, 7}, {2, 4, 4}}},
    {"pointwise_to_one_pixel", {160, 160, 1, 1, 0, 1}, {{5, 1, 1}}},
    {"pointwise_stride_2", {24, 40, 1, 2, 0, 1}, {{2, 7, 7}, {3, 4, 4}}},
    {"pointwise_stride_2_one_pixel", {24, 16, 1, 2, 0, 1}, {{4, 1, 1}, {2, 2, 2}}},
    {"pointwise_many_channels", {136, 144, 1, 1, 0, 1}, {{3, 7, 7}, {2, 4, 4}}},
    {"pointwise_many_channels_stride_2", {136, 144, 1, 2, 0, 1}, {{3, 7, 7}, {2, 4, 4}, {2, 1, 1}}},
    {"dense_more_weights_than_pixels", {96, 80, 3, 1, 1, 1}, {{3, 3, 3}, {5, 2, 2}}},
    {"dense_more_weights_than_pixels_stride_2", {96, 80, 3, 2, 1, 1}, {{3, 6, 5}, {5, 3, 3}}},
    {"group_8", {48, 48, 3, 1, 1, 6}, {{2, 12, 12}, {2, 6, 6}}},
    {"group_8_odd_sizes", {24, 24, 3, 1, 1, 3}, {{2, 7, 9}, {1, 3, 5}, {1, 17, 23}}},
    {"group_8_stride_2_even", {16, 16, 3, 2, 1, 2}, {{3, 14, 14}, {3, 8, 8}}},
    {"group_8_stride_2_odd", {16, 16, 3, 2, 1, 2}, {{3, 7, 7}, {2, 5, 9}, {2, 4, 7}}},
    {"group_8_tiny_maps", {40, 40, 3, 1, 1, 5}, {{9, 2, 2}, {7, 1, 1}, {3, 1, 2}, {3, 3, 1}}},
    {"group_8_tiny_maps_stride_2", {40, 40, 3, 2, 1, 5}, {{9, 2, 2}, {7, 1, 1}, {3, 1, 2}, {5, 4, 4}, {2, 3, 3}}},
    {"group_8_one_group", {8, 8, 3, 1, 1, 1}, {{2, 10, 10}}},
    {"group_16", {64, 64, 3, 1, 1, 4}, {{3, 7, 7}, {3, 4, 4}}},
    {"group_16_stride_2", {32, 32, 3, 2, 1, 2}, {{3, 14, 14}, {2, 9, 7}}},
    {"group_24", {72, 72, 3, 1, 1, 3}, {{2, 6, 6}, {2, 3, 3}}},
    {"group_24_stride_2", {48, 48, 3, 2, 1, 2}, {{2, 6, 6}, {2, 5, 7}}},
    {"group_13", {39, 39, 3, 1, 1, 3}, {{2, 6, 5}}},
    {"group_8_to_16", {32, 64, 3, 1, 1, 4}, {{2, 6, 5}}},
    {"group_8_many_images", {8, 8, 3, 1, 1, 1}, {{70, 4, 4}, {33, 2, 2}}},
    {"more_than_one_widened_chunk", {4, 16, 1, 1, 0, 1}, {{9, 100, 90}, {2, 3, 3}}},
    {"group_8_many_images_stride_2", {16, 16, 3, 2, 1, 2}, {{41, 8, 8}}},
};

/// Both ways of the grouped kernels, of which a processor uses one only.
class GroupedConvolution : public Convolution {};

TEST_P(GroupedConvolution, PairsOfGroupsMatchSingleGroups) {
  const struct {
    ConvPass pass;
    Array &a, &b, &like;
    DType result;
  } passes[] = {{ConvPass::forward, x, w, y, dtype},
                {ConvPass::backward_data, y, w, x, dtype},
                {ConvPass::backward_weight, x, y, w, DType::f32}};
  for (const auto& p : passes) {
    const auto n = static_cast<int64_t>(p.like.values.size());
    Array results[2] = {unwritten(p.result, n), unwritten(p.result, n)};
    for (const bool pair : {false, true}) {
      const cpu::ConvPlan plan = cpu::plan_grouped(c.conv, c.in, p.pass, pair);
      GuardedWorkspace workspace(plan.workspace);
      plan.run(p.a.data(), p.b.data(), results[pair].data(), workspace.data());
      EXPECT_TRUE(workspace.guard_untouched());
      results[pair].refresh();
    }
    const double relative = p.result == DType::f32 ? 0 : 2 * rounding(p.result);
    for (int64_t i = 0; i < n; ++i)
      ASSERT_NEAR(results[0][i], results[1][i], 1e-4 + relative * std::abs(results[0][i]))
          << "pass " << static_cast<int>(p.pass) << ", element " << i;
  }
}

/// What no instruction set but the narrow ones would choose.
class WidenedConvolution : public Convolution {};

TEST_P(WidenedConvolution, MatchesWhatTheBackendDoes) {
  Array chosen = unwritten(DType::f32, static_cast<int64_t>(w.values.size())), widened = chosen;
  GuardedWorkspace workspace(cpu.conv2d_workspace(c.conv, c.in, ConvPass::backward_weight));
  cpu.conv2d_backward_weight(c.conv, c.in, x.data(), y.data(), static_cast<float*>(chosen.data()), workspace.data());
  const cpu::ConvPlan plan = cpu::plan_widened(c.conv, c.in, ConvPass::backward_weight);
  GuardedWorkspace other(plan.workspace);
  plan.run(x.data(), y.data(), widened.data(), other.data());
  EXPECT_TRUE(other.guard_untouched());
  chosen.refresh(), widened.refresh();
  expect_near(widened, chosen.values, 1e-4, 1e-4 * std::sqrt(double(output_rows(c))), "dw");
}

std::string name_of_case(const testing::TestParamInfo<std::tuple<Case, DType>>& info) {
  return std::string(std::get<0>(info.param).name) + "_in_" + std::string(name_of(std::get<1>(info.param)));
}

std::vector<Case> grouped_cases() {
  std::vector<Case> chosen;
  std::copy_if(std::begin(cases), std::end(cases), std::back_inserter(chosen),
               [](const Case& c) { return cpu::grouped_is_possible(c.conv); });
  return chosen;
}

const auto dtypes = testing::Values(DType::f32, DType::bf16, DType::f16);
INSTANTIATE_TEST_SUITE_P(Cpu, Convolution, testing::Combine(testing::ValuesIn(cases), dtypes), name_of_case);
INSTANTIATE_TEST_SUITE_P(Cpu, GroupedConvolution, testing::Combine(testing::ValuesIn(grouped_cases()), dtypes),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Cpu, WidenedConvolution,
                         testing::Combine(testing::ValuesIn(cases), testing::Values(DType::bf16)), name_of_case);

TEST(ConvolutionErrors, AnIntegerTypeIsRefusedInASentence) {
  const Conv2d conv{8, 8, 3, 1, 1, 1, DType::i32};
  const Segments in{{1, 4, 4}};
  try {
    backend(Device::cpu).conv2d_workspace(conv, in, ConvPass::forward);
    FAIL() << "i32 was accepted";
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "conv2d: expected elements of f32, f16 or bf16, got i32");
  }
}

}  // namespace
}  // namespace saccade::kernels
