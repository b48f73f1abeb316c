// Elementwise and row kernels on the CPU against their formulas in doubles, for every storage type.
#include <saccade/kernels/error.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "arrays.h"

namespace saccade::kernels {
namespace {

constexpr DType floating[] = {DType::f32, DType::f16, DType::bf16};
constexpr int64_t sizes[] = {1, 2, 15, 16, 17, 97, 40000};  // the last is shared by threads

using Unary = std::function<void(Backend&, DType, int64_t, const void*, void*)>;
using Binary = std::function<void(Backend&, DType, int64_t, const void*, const void*, void*)>;

void check_unary(const char* name, const Unary& call, double (*formula)(double)) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array x = array(dtype, normal(n, 1, 0, 3)), y = unwritten(dtype, n);
      std::vector<double> want;
      for (double v : x.values) want.push_back(formula(v));
      call(backend(Device::cpu), dtype, n, x.data(), y.data());
      y.refresh();
      const double r = dtype == DType::f32 ? 1e-6 : rounding(dtype);
      expect_near(y, want, r, 1e-7, name);
      call(backend(Device::cpu), dtype, n, x.data(), x.data());
      EXPECT_EQ(x.bytes, y.bytes) << name << " in place";
    }
  }
}

void check_binary(const char* name, const Binary& call, double (*formula)(double, double)) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array a = array(dtype, normal(n, 1)), b = array(dtype, normal(n, 2)), y = unwritten(dtype, n);
      std::vector<double> want;
      for (int64_t i = 0; i < n; ++i) want.push_back(formula(a[i], b[i]));
      call(backend(Device::cpu), dtype, n, a.data(), b.data(), y.data());
      y.refresh();
      expect_near(y, want, dtype == DType::f32 ? 1e-6 : rounding(dtype), 1e-7, name);
      call(backend(Device::cpu), dtype, n, a.data(), b.data(), b.data());
      EXPECT_EQ(b.bytes, y.bytes) << name << " in place";
    }
  }
}

TEST(Elementwise, EveryFunctionMatchesItsFormulaInEveryStorageTypeAndInPlace) {
  check_unary(
      "scale", [](Backend& b, DType d, int64_t n, const void* x, void* y) { b.scale(d, n, x, -0.75f, y); },
      [](double x) { return -0.75 * x; });
  check_unary(
      "scale_by",
      [](Backend& b, DType d, int64_t n, const void* x, void* y) {
        const float factor = 0.3f;
        b.scale_by(d, n, x, &factor, y);
      },
      [](double x) { return double{0.3f} * x; });
  check_unary("relu", std::mem_fn(&Backend::relu_forward), [](double x) { return x > 0 ? x : 0.; });
  check_unary("sigmoid", std::mem_fn(&Backend::sigmoid_forward), [](double x) { return 1 / (1 + std::exp(-x)); });
  check_binary("add", std::mem_fn(&Backend::add), [](double a, double b) { return a + b; });
  check_binary("multiply", std::mem_fn(&Backend::multiply), [](double a, double b) { return a * b; });
  check_binary("relu_backward", std::mem_fn(&Backend::relu_backward),
               [](double y, double dy) { return y > 0 ? dy : 0.; });
  check_binary("sigmoid_backward", std::mem_fn(&Backend::sigmoid_backward),
               [](double y, double dy) { return dy * y * (1 - y); });
}

TEST(Elementwise, TheSigmoidHoldsAtItsEnds) {
  std::vector<float> x = {-1000, -200, -90, -88, -87, -20, 0, 20, 87, 88, 89, 200, 1000, INFINITY, -INFINITY, NAN};
  std::vector<float> y(x.size());
  backend(Device::cpu).sigmoid_forward(DType::f32, static_cast<int64_t>(x.size()), x.data(), y.data());
  for (size_t i = 0; i + 1 < x.size(); ++i) EXPECT_NEAR(y[i], 1 / (1 + std::exp(-double{x[i]})), 1e-7) << x[i];
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(Elementwise, ReluPassesNotANumberOn) {
  const float x[] = {NAN, -1, 2};
  float y[3];
  backend(Device::cpu).relu_forward(DType::f32, 3, x, y);
  EXPECT_TRUE(std::isnan(y[0]));
  EXPECT_EQ(y[1], 0);
  EXPECT_EQ(y[2], 2);
}

TEST(Elementwise, CastsRoundAsTheConversionsOfDtypeDoForEveryKindOfFloat) {
  std::vector<float> x;
  for (uint32_t exponent = 0; exponent < 256; ++exponent) {
    for (const uint32_t fraction :
         {0u, 1u, 0xfffu, 0x1000u, 0x1001u, 0x2fffu, 0x3000u, 0x7fffu, 0x8000u, 0x8001u, 0x7fffffu}) {
      x.push_back(std::bit_cast<float>(exponent << 23 | fraction));
      x.push_back(-x.back());
    }
  }
  const auto n = static_cast<int64_t>(x.size());
  std::vector<uint16_t> half(x.size()), brain(x.size());
  Backend& cpu = backend(Device::cpu);
  cpu.cast(DType::f32, DType::f16, n, x.data(), half.data());
  cpu.cast(DType::f32, DType::bf16, n, x.data(), brain.data());
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::isnan(x[i])) {
      EXPECT_TRUE(std::isnan(Half{half[i]}.to_float()) && std::isnan(BFloat16{brain[i]}.to_float()));
      continue;
    }
    EXPECT_EQ(half[i], Half::from(x[i]).bits) << x[i];
    EXPECT_EQ(brain[i], BFloat16::from(x[i]).bits) << x[i];
  }
  // Back, over all 65,536 halves.
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> back(all.size());
  for (const DType dtype : {DType::f16, DType::bf16}) {
    cpu.cast(dtype, DType::f32, 65536, all.data(), back.data());
    for (size_t i = 0; i < all.size(); ++i) {
      const float want = dtype == DType::f16 ? Half{all[i]}.to_float() : BFloat16{all[i]}.to_float();
      EXPECT_TRUE(back[i] == want || (std::isnan(back[i]) && std::isnan(want))) << i;
    }
  }
}

TEST(Elementwise, CastsBetweenIntegersAndFloats) {
  Backend& cpu = backend(Device::cpu);
  const uint8_t pixels[] = {0, 1, 128, 255};
  float as_float[4];
  cpu.cast(DType::u8, DType::f32, 4, pixels, as_float);
  EXPECT_EQ(as_float[3], 255.f);
  int64_t as_long[4];
  const float values[] = {-1.9f, 0, 1.9f, 16777216.f};
  cpu.cast(DType::f32, DType::i64, 4, values, as_long);
  EXPECT_EQ(as_long[0], -1);
  EXPECT_EQ(as_long[2], 1);
  EXPECT_EQ(as_long[3], 16777216);
  uint16_t as_brain[4];
  const int32_t labels[] = {1, 2, 3, -7};
  cpu.cast(DType::i32, DType::bf16, 4, labels, as_brain);
  EXPECT_EQ(BFloat16{as_brain[3]}.to_float(), -7.f);
}

TEST(Elementwise, FillWritesEveryElementOfEveryType) {
  Backend& cpu = backend(Device::cpu);
  for (const DType dtype : floating) {
    Array y = unwritten(dtype, 40001);
    cpu.fill(dtype, 40001, 1.5f, y.data());
    y.refresh();
    expect_near(y, std::vector<double>(40001, 1.5), 0, 0, "fill");
  }
  std::vector<int32_t> ints(5, -1);
  cpu.fill(DType::i32, 5, 3.f, ints.data());
  EXPECT_EQ(ints, std::vector<int32_t>(5, 3));
}

TEST(Elementwise, AnIntegerTypeIsRefusedInASentence) {
  int32_t x[4] = {};
  try {
    backend(Device::cpu).add(DType::i32, 4, x, x, x);
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "add: expected elements of f32, f16 or bf16, got i32");
  }
}

TEST(Rows, ColumnSumAndSumMatchDoublesAndDoNotDependOnThreads) {
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 7, 13, 48, 440}) {
      for (const int64_t rows : {1, 2, 97, 1000}) {
        Array x = array(dtype, normal(rows * channels, 1, 0.5));
        std::vector<float> one(static_cast<size_t>(channels), NAN), two = one;
        std::vector<double> want(static_cast<size_t>(channels), 0.);
        double total = 0;
        for (int64_t i = 0; i < rows * channels; ++i) want[static_cast<size_t>(i % channels)] += x[i], total += x[i];
        float sum_one = NAN, sum_two = NAN;
        Backend& cpu = backend(Device::cpu);
        with_threads(1, [&] {
          cpu.column_sum(dtype, rows, channels, x.data(), one.data());
          cpu.sum(dtype, rows * channels, x.data(), &sum_one);
        });
        with_threads(2, [&] {
          cpu.column_sum(dtype, rows, channels, x.data(), two.data());
          cpu.sum(dtype, rows * channels, x.data(), &sum_two);
        });
        EXPECT_EQ(one, two);
        EXPECT_EQ(sum_one, sum_two);
        expect_near(one, want, 1e-6, 2e-5 * std::sqrt(double(rows)), "column_sum");
        EXPECT_NEAR(sum_one, total, 1e-6 * std::abs(total) + 1e-4);
      }
    }
  }
}

TEST(Rows, L2NormalizeMatchesItsFormulaBothWays) {
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 16, 128, 131}) {
      const int64_t rows = 150;
      std::vector<double> values = normal(rows * channels, 1);
      for (int64_t i = 0; i < channels; ++i) values[static_cast<size_t>(i)] = 1e-4;  // row 0: its norm is below eps
      Array x = array(dtype, values), dy = array(dtype, normal(rows * channels, 2)),
            y = unwritten(dtype, rows * channels);
      const float eps = 0.01f;
      std::vector<float> norm(rows, NAN);
      Backend& cpu = backend(Device::cpu);
      cpu.l2_normalize_forward(dtype, rows, channels, eps, x.data(), y.data(), norm.data());
      y.refresh();
      std::vector<double> want, want_dx;
      for (int64_t row = 0; row < rows; ++row) {
        double squares = 0, dot = 0;
        for (int64_t c = 0; c < channels; ++c) squares += x[row * channels + c] * x[row * channels + c];
        const double length = std::max(std::sqrt(squares), double{eps});
        EXPECT_NEAR(norm[row], length, 1e-6 * length);
        for (int64_t c = 0; c < channels; ++c) {
          want.push_back(x[row * channels + c] / length);
          dot += y[row * channels + c] * dy[row * channels + c];
        }
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t at = row * channels + c;
          want_dx.push_back((dy[at] - (std::sqrt(squares) > eps ? y[at] * dot : 0.)) / length);
        }
      }
      const double r = dtype == DType::f32 ? 2e-6 : rounding(dtype);
      expect_near(y, want, r, 1e-7, "y");
      const double steepest = 1 / *std::min_element(norm.begin(), norm.end());
      cpu.l2_normalize_backward(dtype, rows, channels, eps, y.data(), norm.data(), dy.data(), dy.data());
      dy.refresh();
      expect_near(dy, want_dx, r, 1e-6 * steepest, "dx");
    }
  }
}

}  // namespace
}  // namespace saccade::kernels
