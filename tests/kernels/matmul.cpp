// The CPU matrix product against plain double-precision loops.
#include <gtest/gtest.h>
#include <saccade/kernels/backend.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace saccade::kernels {
namespace {

std::vector<float> random_values(int64_t n, uint32_t seed) {
  std::mt19937 generator(seed);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(generator() >> 8) * 0x1p-23f - 1.f;
  return values;
}

/// alpha op(a) op(b) + beta c + bias, in doubles.
std::vector<double> reference(const MatMul& s, const std::vector<float>& a, const std::vector<float>& b,
                              const float* bias, const std::vector<float>& c) {
  std::vector<double> result(static_cast<size_t>(s.m * s.n));
  for (int64_t i = 0; i < s.m; ++i)
    for (int64_t j = 0; j < s.n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < s.k; ++l)
        sum += double{a[s.transpose_a ? l * s.m + i : i * s.k + l]} * b[s.transpose_b ? j * s.k + l : l * s.n + j];
      result[i * s.n + j] = s.alpha * sum + (s.beta != 0.f ? s.beta * c[i * s.n + j] : 0.) + (bias ? bias[j] : 0.f);
    }
  return result;
}

struct Case {
  const char* name;
  MatMul shape;
  bool bias;
};

class Product : public testing::TestWithParam<Case> {};

TEST_P(Product, MatchesTheSum) {
  const MatMul& s = GetParam().shape;
  Backend& cpu = backend(Device::cpu);
  const auto a = random_values(s.m * s.k, 1), b = random_values(s.k * s.n, 2), bias = random_values(s.n, 3);
  const auto before = s.beta != 0.f ? random_values(s.m * s.n, 4) : std::vector<float>(s.m * s.n, NAN);
  const float* row = GetParam().bias ? bias.data() : nullptr;
  const auto expected = reference(s, a, b, row, before);

  std::vector<float> results[2] = {before, before};
  for (std::vector<float>& c : results) {
    const size_t bytes = cpu.matmul_workspace(s);
    std::vector<std::byte> workspace(bytes + 128, std::byte{0xff});
    const size_t shift = (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
    cpu.matmul(s, a.data(), b.data(), row, c.data(), workspace.data() + shift);
    for (size_t i = shift + bytes; i < workspace.size(); ++i) ASSERT_EQ(workspace[i], std::byte{0xff}) << "overrun";
  }
  EXPECT_EQ(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)), 0);
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(results[0][i], expected[i], 1e-6 * static_cast<double>(s.k) + 1e-6) << "element " << i;
}

const Case cases[] = {
    {"plain", {17, 9, 33}, false},
    {"bias", {17, 9, 33}, true},
    {"transposed_b", {33, 48, 24, false, true}, true},
    {"transposed_a", {24, 16, 301, true, false}, false},
    {"both_transposed", {7, 5, 11, true, true}, false},
    {"alpha", {8, 16, 32, false, true, 0.5f}, false},
    {"alpha_and_bias", {8, 16, 32, false, true, 0.5f}, true},
    {"accumulates", {8, 16, 32, false, false, 1.f, 1.f}, false},
    {"alpha_beta_bias", {8, 16, 32, false, true, 0.25f, 0.5f}, true},
    {"one_row", {1, 128, 64, false, true}, true},
    {"one_column", {64, 1, 128}, false},
    {"weight_gradient_of_many_rows", {24, 40, 20000, true, false}, false},
    {"odd_weight_gradient", {13, 7, 4097, true, false}, false},
};

INSTANTIATE_TEST_SUITE_P(Cpu, Product, testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(ProductOfNothing, LeavesNothing) {
  EXPECT_EQ(backend(Device::cpu).matmul_workspace({0, 4, 4}), 0u);
  backend(Device::cpu).matmul({0, 4, 4}, nullptr, nullptr, nullptr, nullptr, nullptr);
}

TEST(ProductInBFloat16, AccumulatesInFloat) {
  const MatMul s{16, 8, 2048, false, true, 1.f, 0.f, DType::bf16, DType::f32};
  std::vector<BFloat16> a, b;
  std::vector<float> af, bf, c(128, NAN);
  for (float v : random_values(s.m * s.k, 1)) af.push_back(a.emplace_back(BFloat16::from(v)).to_float());
  for (float v : random_values(s.k * s.n, 2)) bf.push_back(b.emplace_back(BFloat16::from(v)).to_float());
  Backend& cpu = backend(Device::cpu);
  std::vector<std::byte> workspace(64);
  try {
    workspace.resize(cpu.matmul_workspace(s) + 64);
  } catch (const std::exception&) {
    GTEST_SKIP() << "this instruction set has no bf16 product";
  }
  cpu.matmul(s, a.data(), b.data(), nullptr, c.data(), workspace.data());
  const auto expected = reference(s, af, bf, nullptr, c);
  for (size_t i = 0; i < c.size(); ++i) EXPECT_NEAR(c[i], expected[i], 1e-2);
}

}  // namespace
}  // namespace saccade::kernels
