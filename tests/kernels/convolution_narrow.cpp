// Every way to compute every pass of a convolution, on narrow, odd and tiny shapes: against double precision, with
// guards around workspace and result. Vector code and vendors' libraries go wrong where a vector is not full.
#include <fmt/format.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/cpu/conv_plan.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "convolution_reference.h"

namespace saccade::kernels {
namespace {

struct Way {
  const char* name;
  cpu::ConvPlan plan;
};

/// The chosen way, and all others that there are.
std::vector<Way> ways(const Conv2d& c, const Segments& in, ConvPass pass) {
  std::vector<Way> result{{"chosen", cpu::choose_plan(c, in, pass)}};
  if (cpu::onednn_computes_in(c.dtype)) {
    result.push_back({"oneDNN", cpu::plan_onednn(c, in, pass)});
    if (cpu::is_pointwise(c)) result.push_back({"product", cpu::plan_pointwise(c, in, pass)});
    if (cpu::unfold_is_possible(c, pass)) result.push_back({"unfolded", cpu::plan_unfold(c, in, pass)});
  }
  if (c.dtype != DType::f32) result.push_back({"widened", cpu::plan_widened(c, in, pass)});
  if (cpu::grouped_is_possible(c)) {
    result.push_back({"own", cpu::plan_grouped(c, in, pass, false)});
    result.push_back({"own, in pairs", cpu::plan_grouped(c, in, pass, true)});
  }
  return result;
}

/// Runs all ways of all passes; one failure a shape at the most.
void check(const Conv2d& c, const Segments& in) {
  const Array x = array(c.dtype, random_values(total_rows(in) * c.in_channels, 1));
  const Array w = array(c.dtype, random_values(c.weight_elements(), 2));
  const Array y = array(c.dtype, random_values(output_rows(c, in) * c.out_channels, 3));
  struct Pass {
    ConvPass pass;
    const char* name;
    const Array &a, &b;
    DType result;
    std::vector<double> expected, magnitude;
  };
  const auto zeros = [](const Array& like) { return std::vector<double>(like.values.size()); };
  Pass passes[] = {{ConvPass::forward, "forward", x, w, c.dtype, zeros(y), zeros(y)},
                   {ConvPass::backward_data, "data gradient", y, w, c.dtype, zeros(x), zeros(x)},
                   {ConvPass::backward_weight, "weight gradient", x, y, DType::f32, zeros(w), zeros(w)}};
  const auto add = [](Pass& pass, int64_t at, double product) {
    pass.expected[static_cast<size_t>(at)] += product;
    pass.magnitude[static_cast<size_t>(at)] += std::abs(product);
  };
  for_each_product(c, in, [&](int64_t ix, int64_t iw, int64_t iy) {
    add(passes[0], iy, x[ix] * w[iw]);
    add(passes[1], ix, y[iy] * w[iw]);
    add(passes[2], iw, x[ix] * y[iy]);
  });
  for (const Pass& p : passes) {
    for (const Way& way : ways(c, in, p.pass)) {
      SCOPED_TRACE(fmt::format("{} {}: {}x{} stride {} padding {}, {} to {} channels in {} groups, {}, {}x{}x{}",
                               p.name, way.name, c.kernel, c.kernel, c.stride, c.padding, c.in_channels, c.out_channels,
                               c.groups, name_of(c.dtype), in[0].n, in[0].h, in[0].w));
      Array result = unwritten(p.result, static_cast<int64_t>(p.expected.size()));
      GuardedBytes workspace(way.plan.workspace), out(result.bytes.size());
      way.plan.run(p.a.bytes.data(), p.b.bytes.data(), out.data(), workspace.data());
      ASSERT_TRUE(workspace.guards_untouched()) << "written beside the workspace of " << way.plan.workspace << " bytes";
      ASSERT_TRUE(out.guards_untouched()) << "written beside the result";
      std::memcpy(result.bytes.data(), out.data(), result.bytes.size());
      result.refresh();
      expect_close(result, p.expected, p.magnitude);
    }
  }
}

constexpr Segment maps[] = {{1, 1, 1}, {2, 7, 7}, {3, 13, 9}, {2, 2, 31}, {1, 1, 6}, {1, 6, 1}, {1, 48, 48}};

/// All maps of which an output is left, each beside a second segment where that has one, too.
void check_on_maps(const Conv2d& c) {
  const auto fits = [&](const Segment& s) { return std::min(s.h, s.w) + 2 * c.padding >= c.kernel; };
  for (const Segment& map : maps) {
    const int64_t products = map.rows() * c.weight_elements() / (c.stride * c.stride);
    if (!fits(map) || products > 3'000'000) continue;  // minutes in plain loops
    Segments in{map};
    if (fits({2, 5, 6})) in.push_back({2, 5, 6});
    check(c, in);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(NarrowConvolution, WeightGradientsOf1x1WithAStrideStayInTheirWorkspace) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const int64_t in : {1, 4, 7, 8, 15, 16, 31})
      for (const int64_t out : {8, 13}) check_on_maps({in, out, 1, 2, 0, 1, dtype});
}

class NarrowConvolutionLong : public testing::TestWithParam<DType> {};

TEST_P(NarrowConvolutionLong, Dense) {
  for (const int64_t in : {1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 20, 24, 31, 33, 48, 64})
    for (const int64_t out : {1, 3, 8, 13, 16, 24, 31, 48, 65})
      for (const int64_t kernel : {1, 3, 5})
        for (const int64_t stride : {1, 2, 3})
          for (const int64_t padding : {int64_t{0}, kernel / 2})
            if (padding > 0 || kernel == 1) check_on_maps({in, out, kernel, stride, padding, 1, GetParam()});
}

TEST_P(NarrowConvolutionLong, InGroups) {
  for (const int64_t width : {1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 32})
    for (const int64_t groups : {2, 3, 5})
      for (const int64_t out : {width, 2 * width, int64_t{1}})
        for (const int64_t kernel : {1, 3})
          for (const int64_t stride : {1, 2})
            check_on_maps({width * groups, out * groups, kernel, stride, kernel / 2, groups, GetParam()});
}

INSTANTIATE_TEST_SUITE_P(Cpu, NarrowConvolutionLong, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

/// A product of all its forms; alpha and beta go their own way in each version of oneDNN.
TEST(NarrowProductLong, EveryFormStaysInItsBounds) {
  Backend& cpu = backend(Device::cpu);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const int64_t m : {1, 2, 5, 16, 33})
      for (const int64_t n : {1, 3, 8, 15, 16, 17, 48, 65})
        for (const int64_t k : {1, 3, 4, 7, 8, 15, 17, 48, 129})
          for (const int form : {0, 1, 2, 3})
            for (const auto& [alpha, beta] : {std::pair{1.f, 0.f}, {0.5f, 0.f}, {1.f, 1.f}, {0.5f, 2.f}})
              for (const bool bias : {false, true}) {
                const MatMul shape{m, n, k, (form & 1) != 0, (form & 2) != 0, alpha, beta, dtype, DType::f32};
                SCOPED_TRACE(fmt::format("({}, {}) by ({}, {}), form {}, alpha {}, beta {}, bias {}, {}", m, k, k, n,
                                         form, alpha, beta, bias, name_of(dtype)));
                const Array a = array(dtype, random_values(m * k, 1)), b = array(dtype, random_values(k * n, 2));
                const Array row = array(DType::f32, random_values(n, 3)),
                            c = array(DType::f32, random_values(m * n, 4));
                std::vector<double> expected(c.values.size()), magnitude(c.values.size());
                for (int64_t i = 0; i < m * n; ++i) {
                  double sum = 0, size = 0;
                  for (int64_t j = 0; j < k; ++j) {
                    const double product = a[shape.transpose_a ? j * m + i / n : i / n * k + j] *
                                           b[shape.transpose_b ? i % n * k + j : j * n + i % n];
                    sum += product, size += std::abs(product);
                  }
                  const auto at = static_cast<size_t>(i);
                  expected[at] = double{alpha} * sum + double{beta} * c[i] + (bias ? row[i % n] : 0.);
                  magnitude[at] = size + 3;
                }
                GuardedBytes workspace(cpu.workspace(MatrixProduct{shape})), out(c.bytes.size());
                std::memcpy(out.data(), c.bytes.data(), c.bytes.size());
                cpu.run(MatrixProduct{shape, a.bytes.data(), b.bytes.data(), bias ? row.bytes.data() : nullptr,
                                      out.data(), workspace.data()});
                ASSERT_TRUE(workspace.guards_untouched() && out.guards_untouched());
                Array result = unwritten(DType::f32, m * n);
                std::memcpy(result.bytes.data(), out.data(), result.bytes.size());
                result.refresh();
                expect_close(result, expected, magnitude);
                ASSERT_FALSE(testing::Test::HasFailure());
              }
}

}  // namespace
}  // namespace saccade::kernels
