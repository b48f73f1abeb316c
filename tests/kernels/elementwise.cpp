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

using OfOne = std::function<void(Backend&, DType, int64_t, const void*, void*)>;
using OfTwo = std::function<void(Backend&, DType, int64_t, const void*, const void*, void*)>;

void check_unary(const char* name, const OfOne& call, double (*formula)(double), double absolute = 1e-7) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array x = array(dtype, normal(n, 1, 0, 3)), y = unwritten(dtype, n);
      std::vector<double> want;
      for (double v : x.values) want.push_back(formula(v));
      call(backend(Device::cpu), dtype, n, x.data(), y.data());
      y.refresh();
      const double r = dtype == DType::f32 ? 1e-6 : rounding(dtype);
      expect_near(y, want, r, absolute, name);
      call(backend(Device::cpu), dtype, n, x.data(), x.data());
      EXPECT_EQ(x.bytes, y.bytes) << name << " in place";
    }
  }
}

void check_binary(const char* name, const OfTwo& call, double (*formula)(double, double), double absolute = 1e-7) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array a = array(dtype, normal(n, 1)), b = array(dtype, normal(n, 2)), y = unwritten(dtype, n);
      std::vector<double> want;
      for (int64_t i = 0; i < n; ++i) want.push_back(formula(a[i], b[i]));
      call(backend(Device::cpu), dtype, n, a.data(), b.data(), y.data());
      y.refresh();
      expect_near(y, want, dtype == DType::f32 ? 1e-6 : rounding(dtype), absolute, name);
      call(backend(Device::cpu), dtype, n, a.data(), b.data(), b.data());
      EXPECT_EQ(b.bytes, y.bytes) << name << " in place";
    }
  }
}

void check_map(Unary function, double (*formula)(double), double (*gradient)(double kept, double dy),
               double absolute = 1e-7) {
  const std::string name(name_of(function));
  check_unary(
      name.c_str(),
      [=](Backend& b, DType d, int64_t n, const void* x, void* y) {
        b.run(Map{function, d, n, x, y});
      },
      formula, absolute);
  check_binary((name + "'s gradient").c_str(),
               [=](Backend& b, DType d, int64_t n, const void* kept, const void* dy, void* dx) {
                 b.run(MapGradient{function, d, n, kept, dy, dx});
               },
               gradient, absolute);
}

void check_combination(Binary function, double (*formula)(double, double)) {
  check_binary(
      std::string(name_of(function)).c_str(),
      [=](Backend& backend, DType d, int64_t n, const void* a, const void* b, void* y) {
        backend.run(Combine{function, d, n, a, b, y});
      },
      formula);
}

TEST(Elementwise, EveryFunctionMatchesItsFormulaInEveryStorageTypeAndInPlace) {
  check_unary(
      "scale",
      [](Backend& b, DType d, int64_t n, const void* x, void* y) {
        b.run(Scale{d, n, x, -0.75f, y});
      },
      [](double x) { return -0.75 * x; });
  check_unary(
      "scale by a factor on the device",
      [](Backend& b, DType d, int64_t n, const void* x, void* y) {
        const float factor = 0.3f;
        b.run(Scale{d, n, x, 1.f, y, &factor});
      },
      [](double x) { return double{0.3f} * x; });
  check_map(
      Unary::relu, [](double x) { return x > 0 ? x : 0.; }, [](double y, double dy) { return y > 0 ? dy : 0.; });
  check_map(
      Unary::sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); },
      [](double y, double dy) { return dy * y * (1 - y); });
  check_map(
      Unary::gelu, [](double x) { return x * std::erfc(-x / std::sqrt(2.)) / 2; },
      [](double x, double dy) {
        return dy * (std::erfc(-x / std::sqrt(2.)) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI));
      },
      1e-6);
  check_combination(Binary::add, [](double a, double b) { return a + b; });
  check_combination(Binary::multiply, [](double a, double b) { return a * b; });
}

TEST(Elementwise, TheSigmoidHoldsAtItsEnds) {
  std::vector<float> x = {-1000, -200, -90, -88, -87, -20, 0, 20, 87, 88, 89, 200, 1000, INFINITY, -INFINITY, NAN};
  std::vector<float> y(x.size());
  backend(Device::cpu).run(Map{Unary::sigmoid, DType::f32, static_cast<int64_t>(x.size()), x.data(), y.data()});
  for (size_t i = 0; i + 1 < x.size(); ++i) EXPECT_NEAR(y[i], 1 / (1 + std::exp(-double{x[i]})), 1e-7) << x[i];
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(Elementwise, ReluPassesNotANumberOn) {
  const float x[] = {NAN, -1, 2};
  float y[3];
  backend(Device::cpu).run(Map{Unary::relu, DType::f32, 3, x, y});
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
  cpu.run(Cast{DType::f32, DType::f16, n, x.data(), half.data()});
  cpu.run(Cast{DType::f32, DType::bf16, n, x.data(), brain.data()});
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
    cpu.run(Cast{dtype, DType::f32, 65536, all.data(), back.data()});
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
  cpu.run(Cast{DType::u8, DType::f32, 4, pixels, as_float});
  EXPECT_EQ(as_float[3], 255.f);
  int64_t as_long[4];
  const float values[] = {-1.9f, 0, 1.9f, 16777216.f};
  cpu.run(Cast{DType::f32, DType::i64, 4, values, as_long});
  EXPECT_EQ(as_long[0], -1);
  EXPECT_EQ(as_long[2], 1);
  EXPECT_EQ(as_long[3], 16777216);
  uint16_t as_brain[4];
  const int32_t labels[] = {1, 2, 3, -7};
  cpu.run(Cast{DType::i32, DType::bf16, 4, labels, as_brain});
  EXPECT_EQ(BFloat16{as_brain[3]}.to_float(), -7.f);
}

TEST(Elementwise, FillWritesEveryElementOfEveryType) {
  Backend& cpu = backend(Device::cpu);
  for (const DType dtype : floating) {
    Array y = unwritten(dtype, 40001);
    cpu.run(Fill{dtype, 40001, 1.5f, y.data()});
    y.refresh();
    expect_near(y, std::vector<double>(40001, 1.5), 0, 0, "fill");
  }
  std::vector<int32_t> ints(5, -1);
  cpu.run(Fill{DType::i32, 5, 3.f, ints.data()});
  EXPECT_EQ(ints, std::vector<int32_t>(5, 3));
}

TEST(Elementwise, AnIntegerTypeIsRefusedInASentence) {
  int32_t x[4] = {};
  try {
    backend(Device::cpu).run(Combine{Binary::add, DType::i32, 4, x, x, x});
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
          cpu.run(ColumnSum{dtype, rows, channels, x.data(), one.data()});
          cpu.run(Sum{dtype, rows * channels, x.data(), &sum_one});
        });
        with_threads(2, [&] {
          cpu.run(ColumnSum{dtype, rows, channels, x.data(), two.data()});
          cpu.run(Sum{dtype, rows * channels, x.data(), &sum_two});
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
      cpu.run(L2Normalize{dtype, rows, channels, eps, x.data(), y.data(), norm.data()});
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
      cpu.run(L2NormalizeGradient{dtype, rows, channels, eps, y.data(), norm.data(), dy.data(), dy.data()});
      dy.refresh();
      expect_near(dy, want_dx, r, 1e-6 * steepest, "dx");
    }
  }
}

TEST(Rows, LogSumExpMatchesItsFormulaBothWaysAndDoesNotOverflow) {
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 16, 131}) {
      const int64_t rows = 70;
      std::vector<double> values = normal(rows * channels, 1, 0, 4);
      for (int64_t i = 0; i < channels; ++i) values[static_cast<size_t>(i)] += 1000;
      Array x = array(dtype, values), dx = unwritten(dtype, rows * channels);
      std::vector<float> out(rows, NAN), dout = floats(normal(rows, 2));
      backend(Device::cpu).run(LogSumExp{dtype, rows, channels, x.data(), out.data()});
      backend(Device::cpu).run(LogSumExpGradient{dtype, rows, channels, x.data(), out.data(), dout.data(), dx.data()});
      dx.refresh();
      std::vector<double> want, want_dx;
      for (int64_t row = 0; row < rows; ++row) {
        double largest = x[row * channels], sum = 0;
        for (int64_t c = 0; c < channels; ++c) largest = std::max(largest, x[row * channels + c]);
        for (int64_t c = 0; c < channels; ++c) sum += std::exp(x[row * channels + c] - largest);
        want.push_back(largest + std::log(sum));
        for (int64_t c = 0; c < channels; ++c)
          want_dx.push_back(std::exp(x[row * channels + c] - want.back()) * dout[static_cast<size_t>(row)]);
      }
      expect_near(out, want, 1e-6, 1e-6, "out");
      // The first row's exponents are differences of numbers of about 1000, in f32.
      expect_near(dx, want_dx, (dtype == DType::f32 ? 0 : rounding(dtype)) + 2e-4, 1e-7, "dx");
    }
  }
}

}  // namespace
}  // namespace saccade::kernels
