// Every pass of the CPU convolution against plain double-precision loops.
#include <saccade/kernels/cpu/conv_plan.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "convolution_reference.h"

namespace saccade::kernels {
namespace {

struct Case {
  const char* name;
  Conv2d conv;
  Segments in;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

class Convolution : public testing::TestWithParam<std::tuple<Case, DType>> {
 protected:
  Case c = with_dtype();
  const DType dtype = c.conv.dtype;
  Backend& cpu = backend(Device::cpu);
  Array x = array(dtype, random_values(total_rows(c.in) * c.conv.in_channels, 1));
  Array w = array(dtype, random_values(c.conv.weight_elements(), 2));
  Array y = array(dtype, random_values(output_rows(c.conv, c.in) * c.conv.out_channels, 3));

  static Case with_dtype() {
    Case c = std::get<0>(GetParam());
    c.conv.dtype = std::get<1>(GetParam());
    return c;
  }

  /// Runs a call twice, its result (`out`) into NaN, with a guarded workspace; returns the first result.
  template <class Call, class Out>
  Array twice(Call call, const Array& like, Out* Call::*out) {
    std::vector<Array> results;
    for (int i = 0; i < 2; ++i) {
      GuardedBytes workspace(cpu.workspace(call));
      Array& result = results.emplace_back(
          unwritten(std::is_same_v<Out, float> ? DType::f32 : dtype, static_cast<int64_t>(like.values.size())));
      call.*out = static_cast<Out*>(result.data());
      call.workspace = workspace.data();
      cpu.run(call);
      EXPECT_TRUE(workspace.guards_untouched());
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
  expect_close(twice(Conv2dForward{c.conv, c.in, x.data(), w.data()}, y, &Conv2dForward::y), expected, magnitude);
}

TEST_P(Convolution, DataGradientMatchesTheSum) {
  std::vector<double> expected(x.values.size()), magnitude(x.values.size());
  for_each_product(c.conv, c.in, [&](int64_t ix, int64_t iw, int64_t iy) {
    const double product = y[iy] * w[iw];
    expected[ix] += product, magnitude[ix] += std::abs(product);
  });
  expect_close(twice(Conv2dBackwardData{c.conv, c.in, y.data(), w.data()}, x, &Conv2dBackwardData::dx), expected,
               magnitude);
}

TEST_P(Convolution, WeightGradientMatchesTheSum) {
  std::vector<double> expected(w.values.size()), magnitude(w.values.size());
  for_each_product(c.conv, c.in, [&](int64_t ix, int64_t iw, int64_t iy) {
    const double product = y[iy] * x[ix];
    expected[iw] += product, magnitude[iw] += std::abs(product);
  });
  expect_close(twice(Conv2dBackwardWeight{c.conv, c.in, x.data(), y.data()}, w, &Conv2dBackwardWeight::dw), expected,
               magnitude);
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
      GuardedBytes workspace(plan.workspace);
      plan.run(p.a.data(), p.b.data(), results[pair].data(), workspace.data());
      EXPECT_TRUE(workspace.guards_untouched());
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
  GuardedBytes workspace(cpu.workspace(Conv2dBackwardWeight{c.conv, c.in}));
  cpu.run(Conv2dBackwardWeight{c.conv, c.in, x.data(), y.data(), static_cast<float*>(chosen.data()), workspace.data()});
  const cpu::ConvPlan plan = cpu::plan_widened(c.conv, c.in, ConvPass::backward_weight);
  GuardedBytes other(plan.workspace);
  plan.run(x.data(), y.data(), widened.data(), other.data());
  EXPECT_TRUE(other.guards_untouched());
  chosen.refresh(), widened.refresh();
  expect_near(widened, chosen.values, 1e-4, 1e-4 * std::sqrt(double(output_rows(c.conv, c.in))), "dw");
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
    backend(Device::cpu).workspace(Conv2dForward{conv, in});
    FAIL() << "i32 was accepted";
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "conv2d: expected elements of f32, f16 or bf16, got i32");
  }
}

}  // namespace
}  // namespace saccade::kernels
