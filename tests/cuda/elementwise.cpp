// Elementwise kernels, rows and sums in the emulator against the CPU backend.
#include <cstring>
#include <functional>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

constexpr int64_t sizes[] = {1, 7, 8, 9, 97, 2051, 8200};

using OfOne = std::function<void(DType, int64_t, const void*, void*)>;
using OfTwo = std::function<void(DType, int64_t, const void*, const void*, void*)>;

void check_unary(const char* name, const OfOne& on_cpu, const OfOne& on_cuda) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array x = array(dtype, normal(n, 1, 0, 3)), want = unwritten(dtype, n), got = want;
      Misaligned elsewhere(x);
      on_cpu(dtype, n, x.data(), want.data());
      on_cuda(dtype, n, x.data(), got.data());
      expect_same(got, want, name);
      on_cuda(dtype, n, elsewhere.data(), elsewhere.data());
      EXPECT_EQ(elsewhere.bytes(), got.bytes) << name << " in place, misaligned";
    }
  }
}

void check_binary(const char* name, const OfTwo& on_cpu, const OfTwo& on_cuda) {
  for (const DType dtype : floating) {
    for (const int64_t n : sizes) {
      Array a = array(dtype, normal(n, 1)), b = array(dtype, normal(n, 2)), want = unwritten(dtype, n), got = want;
      Misaligned elsewhere(b);
      on_cpu(dtype, n, a.data(), b.data(), want.data());
      on_cuda(dtype, n, a.data(), b.data(), got.data());
      expect_same(got, want, name);
      on_cuda(dtype, n, a.data(), elsewhere.data(), elsewhere.data());
      EXPECT_EQ(elsewhere.bytes(), got.bytes) << name << " in place, misaligned";
    }
  }
}

void check_map(Unary function) {
  const std::string name(name_of(function));
  check_unary(
      name.c_str(),
      [=](DType d, int64_t n, const void* x, void* y) {
        cpu().run(Map{function, d, n, x, y});
      },
      [=](DType d, int64_t n, const void* x, void* y) {
        run(stream, Map{function, d, n, x, y});
      });
  check_binary((name + "'s gradient").c_str(),
               [=](DType d, int64_t n, const void* kept, const void* dy, void* dx) {
                 cpu().run(MapGradient{function, d, n, kept, dy, dx});
               },
               [=](DType d, int64_t n, const void* kept, const void* dy, void* dx) {
                 run(stream, MapGradient{function, d, n, kept, dy, dx});
               });
}

void check_combination(Binary function) {
  check_binary(
      std::string(name_of(function)).c_str(),
      [=](DType d, int64_t n, const void* a, const void* b, void* y) {
        cpu().run(Combine{function, d, n, a, b, y});
      },
      [=](DType d, int64_t n, const void* a, const void* b, void* y) {
        run(stream, Combine{function, d, n, a, b, y});
      });
}

TEST(CudaElementwise, EveryFunctionEqualsTheCpuInEveryStorageTypeAndInPlace) {
  for (const Unary function : {Unary::relu, Unary::sigmoid, Unary::gelu}) check_map(function);
  for (const Binary function : {Binary::add, Binary::multiply}) check_combination(function);
  check_unary(
      "scale",
      [](DType d, int64_t n, const void* x, void* y) {
        cpu().run(Scale{d, n, x, -0.75f, y});
      },
      [](DType d, int64_t n, const void* x, void* y) {
        cuda::run(stream, kernels::Scale{d, n, x, -0.75f, y});
      });
  const float factor = 0.3f;
  check_unary(
      "scale by a factor on the device",
      [&](DType d, int64_t n, const void* x, void* y) {
        cpu().run(Scale{d, n, x, 1.f, y, &factor});
      },
      [&](DType d, int64_t n, const void* x, void* y) {
        cuda::run(stream, kernels::Scale{d, n, x, 1.f, y, &factor});
      });
}

TEST(CudaElementwise, SigmoidAndReluAtTheirEnds) {
  const std::vector<float> x = {-1000, -90, -88, 88, 90, 1000, INFINITY, -INFINITY, NAN};
  std::vector<float> y(x.size());
  run(stream, Map{Unary::sigmoid, DType::f32, static_cast<int64_t>(x.size()), x.data(), y.data()});
  for (size_t i = 0; i + 1 < x.size(); ++i) EXPECT_NEAR(y[i], 1 / (1 + std::exp(-double{x[i]})), 1e-7) << x[i];
  EXPECT_TRUE(std::isnan(y.back()));
  run(stream, Map{Unary::relu, DType::f32, static_cast<int64_t>(x.size()), x.data(), y.data()});
  EXPECT_EQ(y[0], 0);
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(CudaElementwise, FillsAndCastsGiveTheBitsOfTheCpu) {
  constexpr DType all[] = {DType::f32, DType::f16, DType::bf16, DType::i32, DType::i64, DType::u8};
  for (const int64_t n : {1, 15, 1027}) {
    for (const DType to : all) {
      std::vector<uint8_t> want(static_cast<size_t>(n) * size_of(to) + 16, 7), got = want;
      cpu().run(Fill{to, n, 3.25f, want.data()});
      run(stream, Fill{to, n, 3.25f, got.data()});
      EXPECT_EQ(got, want) << name_of(to);
      run(stream, Fill{to, n, 3.25f, got.data() + size_of(to)});
      EXPECT_EQ(std::memcmp(got.data() + size_of(to), want.data(), static_cast<size_t>(n) * size_of(to)), 0);
      for (const DType from : all) {
        std::vector<float> values = floats(normal(n, 1, 60, 20));
        std::vector<uint8_t> x(static_cast<size_t>(n) * size_of(from));
        cpu().run(Cast{DType::f32, from, n, values.data(), x.data()});
        cpu().run(Cast{from, to, n, x.data(), want.data()});
        cuda::run(stream, Cast{from, to, n, x.data(), got.data()});
        EXPECT_EQ(std::memcmp(got.data(), want.data(), static_cast<size_t>(n) * size_of(to)), 0)
            << name_of(from) << " to " << name_of(to);
      }
    }
  }
}

TEST(CudaRows, SumsEqualTheCpu) {
  for (const DType dtype : floating) {
    for (const auto& [rows, channels] : {std::pair{1, 1}, {97, 3}, {40, 746}, {9, 4103}, {700, 48}, {2000, 13}}) {
      Array x = array(dtype, normal(int64_t{rows} * channels, 1, 0.1));
      std::vector<float> want(static_cast<size_t>(channels), NAN), got = want;
      float want_sum = NAN, got_sum = NAN;
      cpu().run(ColumnSum{dtype, rows, channels, x.data(), want.data()});
      cpu().run(Sum{dtype, int64_t{rows} * channels, x.data(), &want_sum});
      Workspace workspace(cuda::workspace(ColumnSum{dtype, rows, channels}));
      Workspace sum_scratch(cuda::workspace(Sum{dtype, int64_t{rows} * channels}));
      run(stream, ColumnSum{dtype, rows, channels, x.data(), got.data(), workspace.data()});
      run(stream, Sum{dtype, int64_t{rows} * channels, x.data(), &got_sum, sum_scratch.data()});
      expect_same(got, want, "column_sum", std::sqrt(double(rows)));
      EXPECT_NEAR(got_sum, want_sum, 2e-6 * std::sqrt(double(rows) * channels) + 2e-6 * std::abs(want_sum));
      Misaligned elsewhere(x);
      run(stream, ColumnSum{dtype, rows, channels, elsewhere.data(), want.data(), workspace.data()});
      EXPECT_EQ(got, want) << "misaligned";
    }
  }
}

TEST(CudaRows, L2NormalizeEqualsTheCpuBothWays) {
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 16, 128, 131, 508, 746, 1492, 4103}) {
      const int64_t rows = channels < 1000 ? 21 : 5;
      std::vector<double> values = normal(rows * channels, 1);
      for (int64_t i = 0; i < channels; ++i) values[static_cast<size_t>(i)] = 1e-5;  // row 0: its norm is below eps
      const float eps = 0.01f;
      Array x = array(dtype, values), dy = array(dtype, normal(rows * channels, 2));
      Array want_y = unwritten(dtype, rows * channels), y = want_y, want_dx = want_y, dx = want_y;
      std::vector<float> want_norm(static_cast<size_t>(rows), NAN), norm = want_norm;
      cpu().run(L2Normalize{dtype, rows, channels, eps, x.data(), want_y.data(), want_norm.data()});
      run(stream, L2Normalize{dtype, rows, channels, eps, x.data(), y.data(), norm.data()});
      expect_same(norm, want_norm, "norm");
      expect_same(y, want_y, "y");
      cpu().run(
          L2NormalizeGradient{dtype, rows, channels, eps, want_y.data(), want_norm.data(), dy.data(), want_dx.data()});
      run(stream,
          L2NormalizeGradient{dtype, rows, channels, eps, want_y.data(), want_norm.data(), dy.data(), dx.data()});
      expect_same(dx, want_dx, "dx", 1 / double{eps});
      run(stream,
          L2NormalizeGradient{dtype, rows, channels, eps, want_y.data(), want_norm.data(), dy.data(), dy.data()});
      EXPECT_EQ(dy.bytes, dx.bytes);
    }
  }
}

TEST(CudaRows, LogSumExpEqualsTheCpuBothWays) {
  for (const DType dtype : floating) {
    for (const int64_t channels : {1, 3, 16, 131, 746, 4103}) {
      const int64_t rows = 21;
      std::vector<double> values = normal(rows * channels, 1, 0, 4);
      for (int64_t i = 0; i < channels; ++i) values[static_cast<size_t>(i)] -= 200;
      Array x = array(dtype, values), want_dx = unwritten(dtype, rows * channels), dx = want_dx;
      std::vector<float> want(static_cast<size_t>(rows), NAN), got = want, dout = floats(normal(rows, 2));
      cpu().run(LogSumExp{dtype, rows, channels, x.data(), want.data()});
      run(stream, LogSumExp{dtype, rows, channels, x.data(), got.data()});
      expect_same(got, want, "out", 2);
      cpu().run(LogSumExpGradient{dtype, rows, channels, x.data(), want.data(), dout.data(), want_dx.data()});
      run(stream, LogSumExpGradient{dtype, rows, channels, x.data(), want.data(), dout.data(), dx.data()});
      expect_same(dx, want_dx, "dx", 4);
    }
  }
}

}  // namespace
}  // namespace saccade::kernels::cuda
