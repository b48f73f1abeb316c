// What every op owes, from one table: see tests/support/op_table.h.
#include <gtest/gtest.h>
#include <omp.h>
#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>
#include <support/op_table.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace saccade::testing {
namespace {

class OpTable : public ::testing::TestWithParam<OpCase> {};

double largest(const reference::Values& v) {
  double top = 0;
  for (const double x : v) top = std::max(top, std::abs(x));
  return top;
}

void expect_close(const Tensor& got, const reference::Values& expected, double tolerance) {
  const auto values = got.data<float>();
  ASSERT_EQ(values.size(), expected.size());
  const double bound = tolerance * std::max(largest(expected), 1e-3);
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_NEAR(static_cast<double>(values[i]), expected[i], bound) << "element " << i;
}

/// Output and all gradients of the case's scalar functional.
struct Result {
  Tensor output;
  std::vector<Tensor> gradients;
};

Result run(const OpCase& c, const std::vector<Tensor>& inputs) {
  Result result;
  result.output = c.op(inputs);
  if (result.output.requires_grad()) inner_product(result.output, functional_of(c, result.output)).backward();
  for (const Tensor& t : inputs) result.gradients.push_back(t.grad());
  return result;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || (a.bytes() == b.bytes() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0);
}

TEST_P(OpTable, ForwardEqualsTheDoublePrecisionReference) {
  const auto inputs = make_inputs(GetParam());
  std::vector<reference::Values> values;
  for (const Tensor& t : inputs) values.push_back(to_double(t));
  expect_close(GetParam().op(inputs), GetParam().reference(values), GetParam().tolerance);
}

TEST_P(OpTable, GradientsEqualCentralDifferencesOfTheReference) {
  const OpCase& c = GetParam();
  const auto inputs = make_inputs(c);
  const Result got = run(c, inputs);
  const reference::Values functional = to_double(functional_of(c, got.output));
  std::vector<reference::Values> values;
  for (const Tensor& t : inputs) values.push_back(to_double(t));
  auto scalar = [&] {
    const reference::Values y = c.reference(values);
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * functional[i];
    return sum;
  };
  Philox random(17);
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!c.inputs[i].differentiable) continue;
    ASSERT_TRUE(got.gradients[i].defined()) << "input " << i;
    ASSERT_EQ(got.gradients[i].shape(), inputs[i].shape()) << "input " << i;
    const reference::Values gradient = to_double(got.gradients[i]);
    const double bound = c.gradient_tolerance * std::max(largest(gradient), 1e-2);
    const size_t checks = std::min<size_t>(gradient.size(), 40);
    for (size_t n = 0; n < checks; ++n) {
      const size_t at = checks == gradient.size() ? n : random.below(static_cast<uint32_t>(gradient.size()));
      const double before = values[i][at], eps = 1e-6;
      values[i][at] = before + eps;
      const double above = scalar();
      values[i][at] = before - eps;
      const double below = scalar();
      values[i][at] = before;
      EXPECT_NEAR(gradient[at], (above - below) / (2 * eps), bound) << "input " << i << ", element " << at;
    }
  }
}

TEST_P(OpTable, MetaRunHasTheSameShapesAndBytes) {
  const OpCase& c = GetParam();
  struct Seen {
    Shape shape;
    Segments segments;
    DType dtype;
    MemoryStats stats;
    int64_t before;
  };
  auto observe = [&](Device device) {
    const DeviceScope scope(device);
    const auto inputs = make_inputs(c);
    allocator(device).reset_peaks();
    const int64_t live = allocator(device).stats().total.live, count = allocator(device).stats().allocations;
    const Result got = run(c, inputs);
    Seen seen{got.output.shape(), got.output.segments(), got.output.dtype(), allocator(device).stats(), live};
    seen.stats.allocations -= count;
    return seen;
  };
  observe(Device::cpu);  // the first run fills the primitive cache
  const Seen real = observe(Device::cpu), meta = observe(Device::meta);
  EXPECT_EQ(real.shape, meta.shape);
  EXPECT_EQ(real.segments, meta.segments);
  EXPECT_EQ(real.dtype, meta.dtype);
  EXPECT_EQ(real.stats.total.peak - real.before, meta.stats.total.peak - meta.before);
  EXPECT_EQ(real.stats.total.live - real.before, meta.stats.total.live - meta.before);
  EXPECT_EQ(real.stats.allocations, meta.stats.allocations);
}

TEST_P(OpTable, TheSameCallGivesTheSameBits) {
  const Result a = run(GetParam(), make_inputs(GetParam())), b = run(GetParam(), make_inputs(GetParam()));
  EXPECT_TRUE(same_bits(a.output, b.output));
  for (size_t i = 0; i < a.gradients.size(); ++i) EXPECT_TRUE(same_bits(a.gradients[i], b.gradients[i])) << i;
}

TEST_P(OpTable, OneThreadAgreesWithMany) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the thread sanitizer does not see how OpenMP's threads wait for each other";
#endif
  const OpCase& c = GetParam();
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const Result one = run(c, make_inputs(c));
  omp_set_num_threads(std::max(threads, 3));
  const Result many = run(c, make_inputs(c));
  omp_set_num_threads(threads);
  expect_close(many.output, to_double(one.output), 1e-6);
  for (size_t i = 0; i < one.gradients.size(); ++i)
    if (one.gradients[i].defined()) expect_close(many.gradients[i], to_double(one.gradients[i]), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(AllOps, OpTable, ::testing::ValuesIn(op_table()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace saccade::testing
