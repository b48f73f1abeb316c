// The CPU matrix product against plain double-precision loops.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.h"

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
    const size_t bytes = cpu.workspace(MatrixProduct{s});
    std::vector<std::byte> workspace(bytes + 128, std::byte{0xff});
    const size_t shift = (64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64;
    cpu.run(MatrixProduct{s, a.data(), b.data(), row, c.data(), workspace.data() + shift});
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
  EXPECT_EQ(backend(Device::cpu).workspace(MatrixProduct{{0, 4, 4}}), 0u);
  backend(Device::cpu).run(MatrixProduct{{0, 4, 4}, nullptr, nullptr, nullptr, nullptr, nullptr});
}

class ReducedProduct : public testing::TestWithParam<std::tuple<Case, std::pair<DType, DType>>> {};

TEST_P(ReducedProduct, MatchesTheSumOfWhatItWasGiven) {
  const auto& [c, dtypes] = GetParam();
  MatMul s = c.shape;
  s.dtype = dtypes.first, s.out_dtype = dtypes.second;
  const auto doubles = [](const std::vector<float>& v) { return std::vector<double>(v.begin(), v.end()); };
  const auto rounded = [&](DType dtype, int64_t n, uint32_t seed) {
    return array(dtype, doubles(random_values(n, seed)));
  };
  Array a = rounded(s.dtype, s.m * s.k, 1), b = rounded(s.dtype, s.k * s.n, 2), bias = rounded(s.out_dtype, s.n, 3),
        product = s.beta != 0.f ? rounded(s.out_dtype, s.m * s.n, 4) : unwritten(s.out_dtype, s.m * s.n);
  const std::vector<float> row = floats(bias.values);
  const auto expected =
      reference(s, floats(a.values), floats(b.values), c.bias ? row.data() : nullptr, floats(product.values));
  Backend& cpu = backend(Device::cpu);
  Workspace workspace(cpu.workspace(MatrixProduct{s}));
  cpu.run(MatrixProduct{s, a.data(), b.data(), c.bias ? bias.data() : nullptr, product.data(), workspace.data()});
  product.refresh();
  const double relative = s.out_dtype == DType::f32 ? 0 : rounding(s.out_dtype);
  expect_near(product, expected, relative, 1e-6 * static_cast<double>(s.k) + 1e-6, "c");
}

std::string name_of_product(const testing::TestParamInfo<ReducedProduct::ParamType>& info) {
  const auto& [c, types] = info.param;
  return std::string(c.name) + "_" + std::string(name_of(types.first)) + "_to_" + std::string(name_of(types.second));
}

INSTANTIATE_TEST_SUITE_P(
    Cpu, ReducedProduct,
    testing::Combine(testing::ValuesIn(cases),
                     testing::Values(std::pair(DType::bf16, DType::bf16), std::pair(DType::bf16, DType::f32),
                                     std::pair(DType::f16, DType::f16), std::pair(DType::f16, DType::f32),
                                     std::pair(DType::f32, DType::bf16), std::pair(DType::bf16, DType::f16))),
    name_of_product);

TEST(ProductErrors, AnIntegerTypeIsRefusedInASentence) {
  try {
    backend(Device::cpu).workspace(MatrixProduct{{4, 4, 4, false, false, 1.f, 0.f, DType::f32, DType::u8}});
    FAIL() << "u8 was accepted";
  } catch (const std::exception& error) {
    EXPECT_STREQ(error.what(), "matmul: expected elements of f32, f16 or bf16, got u8");
  }
}

}  // namespace
}  // namespace saccade::kernels
