// Batch normalisation in the emulator against the CPU backend.
#include <algorithm>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

struct Case {
  BatchNorm spec;
  Segments segments;
  bool residual;
};

/// What forward gives on each side; backward then starts from the CPU's results on both, so that masks are the same.
struct Both {
  Array x, residual, dy;
  std::vector<float> gamma, beta;
  explicit Both(const Case& c, double mean = 0.3, double deviation = 1)
      : x(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 1, mean, deviation))),
        residual(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 2))),
        dy(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 3))),
        gamma(floats(normal(c.spec.channels, 4, 1., 0.3))),
        beta(floats(normal(c.spec.channels, 5, 0.1, 0.5))) {}
};

struct Statistics {
  std::vector<float> mean, rstd, running_mean, running_var;
  explicit Statistics(const Case& c)
      : mean(c.segments.size() * static_cast<size_t>(c.spec.channels), NAN),
        rstd(mean),
        running_mean(static_cast<size_t>(c.spec.channels), 0.f),
        running_var(running_mean.size(), 1.f) {}
};

void check(const Case& c) {
  SCOPED_TRACE(testing::Message() << c.spec.channels << " channels, " << total_rows(c.segments) << " rows, "
                                  << name_of(c.spec.dtype) << (c.spec.relu ? ", relu" : "")
                                  << (c.residual ? ", residual" : ""));
  Both in(c);
  const int64_t total = total_rows(c.segments) * c.spec.channels;
  const void* residual = c.residual ? in.residual.data() : nullptr;
  Statistics want(c), got(c);
  Array want_y = unwritten(c.spec.dtype, total), y = want_y;
  Workspace cpu_workspace(cpu().workspace(BatchNormMoments{c.spec, c.segments}));
  batch_norm_forward(OnCpu{}, c.spec, c.segments, in.x.data(), residual, in.gamma.data(), in.beta.data(),
                     want.mean.data(), want.rstd.data(), want.running_mean.data(), want.running_var.data(),
                     want_y.data(), cpu_workspace.data());
  Workspace workspace(cuda::workspace(BatchNormMoments{c.spec, c.segments}));
  batch_norm_forward(OnCuda{}, c.spec, c.segments, in.x.data(), residual, in.gamma.data(), in.beta.data(),
                     got.mean.data(), got.rstd.data(), got.running_mean.data(), got.running_var.data(), y.data(),
                     workspace.data());
  expect_same(got.mean, want.mean, "mean");
  expect_same(got.rstd, want.rstd, "rstd");
  expect_same(got.running_mean, want.running_mean, "running_mean");
  expect_same(got.running_var, want.running_var, "running_var");
  expect_same(y, want_y, "y", 4);

  if (!c.residual) {
    Array again = unwritten(c.spec.dtype, total);
    run(stream, BatchNormApply{c.spec, c.segments, in.x.data(), nullptr, in.gamma.data(), in.beta.data(),
                               got.mean.data(), got.rstd.data(), again.data()});
    EXPECT_EQ(again.bytes, y.bytes) << "apply is not what forward was";
  }

  const auto inference = [&](Array& result) {
    return BatchNormInference{c.spec,
                              total_rows(c.segments),
                              in.x.data(),
                              residual,
                              in.gamma.data(),
                              in.beta.data(),
                              want.running_mean.data(),
                              want.running_var.data(),
                              result.data()};
  };
  Array want_inferred = unwritten(c.spec.dtype, total), inferred = want_inferred;
  cpu().run(inference(want_inferred));
  run(stream, inference(inferred));
  expect_same(inferred, want_inferred, "inference", 4);

  for (const bool from_y : {true, false}) {
    if (!from_y && c.residual) continue;
    std::vector<float> want_dgamma(in.gamma.size(), NAN), want_dbeta = want_dgamma, dgamma = want_dgamma,
                                                          dbeta = want_dgamma;
    Array want_dx = unwritten(c.spec.dtype, total), dx = want_dx, want_dresidual = want_dx, dresidual = want_dx;
    const auto backward = [&](auto call, Array& to, Array& to_residual, std::vector<float>& to_gamma,
                              std::vector<float>& to_beta, Workspace& scratch) {
      call(c.spec, c.segments, in.x.data(), from_y ? want_y.data() : nullptr, in.dy.data(), in.gamma.data(),
           in.beta.data(), want.mean.data(), want.rstd.data(), to.data(), c.residual ? to_residual.data() : nullptr,
           to_gamma.data(), to_beta.data(), scratch.data());
    };
    backward([&](auto&&... arguments) { batch_norm_backward(OnCpu{}, arguments...); }, want_dx, want_dresidual,
             want_dgamma, want_dbeta, cpu_workspace);
    backward([&](auto&&... arguments) { batch_norm_backward(OnCuda{}, arguments...); }, dx, dresidual, dgamma, dbeta,
             workspace);
    const double size = std::sqrt(double(total_rows(c.segments)));
    expect_same(dgamma, want_dgamma, "dgamma", 4 * size);
    expect_same(dbeta, want_dbeta, "dbeta", 4 * size);
    const double steepest = *std::max_element(want.rstd.begin(), want.rstd.end());
    expect_same(dx, want_dx, "dx", 8 * steepest);
    if (c.residual) {
      EXPECT_EQ(dresidual.bytes, want_dresidual.bytes);
    }
  }
}

#if defined(__SANITIZE_THREAD__)
constexpr int64_t channel_counts[] = {3, 48};
const Segments two_resolutions = {{2, 5, 3}, {3, 2, 2}};
#else
constexpr int64_t channel_counts[] = {1, 3, 13, 24, 48, 104, 440, 746, 1492, 4103};
const Segments two_resolutions = {{2, 9, 7}, {5, 3, 3}};
#endif

TEST(CudaBatchNorm, EqualsTheCpuForAllChannelsAndDtypes) {
  for (const DType dtype : floating) {
    for (const int64_t channels : channel_counts) {
      check({{channels, 1e-5f, 0.1f, true, dtype}, two_resolutions, false});
      check({{channels, 1e-5f, 0.1f, true, dtype}, two_resolutions, true});
    }
  }
}

TEST(CudaBatchNorm, EqualsTheCpuWithoutRelu) {
  for (const DType dtype : floating) check({{37, 1e-5f, 0.1f, false, dtype}, two_resolutions, false});
  check({{37, 1e-5f, 0.1f, false, DType::f32}, two_resolutions, true});
}

TEST(CudaBatchNorm, JoinsTheManyPartsOfLargeSegments) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "too large for the thread sanitizer";
#endif
  check({{104, 1e-5f, 0.1f, true, DType::f16}, {{4, 30, 30}, {8, 14, 14}, {1, 1, 2}}, true});
  check({{13, 1e-5f, 0.1f, true, DType::f32}, {{9, 50, 50}}, false});
}

TEST(CudaBatchNorm, AMeanFarAboveTheDeviationDoesNotCancelTheVariance) {
  const Case c{{19, 1e-5f, 0.1f, false, DType::f32}, {{3, 16, 16}}, false};
  Both in(c, 1e4, 0.5);
  Statistics got(c);
  Array y = unwritten(DType::f32, total_rows(c.segments) * 19);
  Workspace workspace(cuda::workspace(BatchNormMoments{c.spec, c.segments}));
  batch_norm_forward(OnCuda{}, c.spec, c.segments, in.x.data(), nullptr, in.gamma.data(), in.beta.data(),
                     got.mean.data(), got.rstd.data(), nullptr, nullptr, y.data(), workspace.data());
  for (int64_t ch = 0; ch < 19; ++ch) {
    double mean = 0, var = 0;
    const int64_t rows = total_rows(c.segments);
    for (int64_t i = 0; i < rows; ++i) mean += in.x[i * 19 + ch] / double(rows);
    for (int64_t i = 0; i < rows; ++i) var += std::pow(in.x[i * 19 + ch] - mean, 2) / double(rows);
    EXPECT_NEAR(got.rstd[static_cast<size_t>(ch)], 1 / std::sqrt(var + 1e-5), 1e-3 / std::sqrt(var));
  }
}

TEST(CudaBatchNorm, MergesTheMomentsOfSeveralProcessesAsTheCpu) {
  const BatchNorm norm{.channels = 37};
  std::vector<float> means = floats(normal(3 * 2 * 37, 1));
  std::vector<double> squares = normal(3 * 2 * 37, 2);
  for (double& s : squares) s = std::abs(s) * 50;
  const auto check = [&](BatchNormMerge merge) {
    Statistics want({norm, two_resolutions, false}), got = want;
    const auto to = [&](Statistics& s) {
      merge.mean = s.mean.data(), merge.rstd = s.rstd.data();
      merge.running_mean = s.running_mean.data(), merge.running_var = s.running_var.data();
      return merge;
    };
    cpu().run(to(want));
    run(stream, to(got));
    expect_same(got.mean, want.mean, "mean");
    expect_same(got.rstd, want.rstd, "rstd");
    expect_same(got.running_var, want.running_var, "running_var");
  };
  BatchNormMerge merge{norm, two_resolutions, 3, means.data(), squares.data()};
  check(merge);
  merge.larger = 2, merge.images = two_resolutions.front().n;  // of the first two parts
  check(merge);
  merge.parts = 2, merge.larger = 1, merge.part_floats = 2 * 37 + 2;  // not dense
  check(merge);
}

TEST(CudaBatchNorm, SlicesThatBeginAnywhereGiveTheSameBits) {
  for (const DType dtype : floating) {
    const Case c{{24, 1e-5f, 0.1f, true, dtype}, two_resolutions, true};
    Both in(c);
    const int64_t total = total_rows(c.segments) * 24;
    Statistics aligned(c), elsewhere(c);
    Array y = unwritten(dtype, total);
    Misaligned x(in.x), residual(in.residual), its_y(y);
    Workspace workspace(cuda::workspace(BatchNormMoments{c.spec, c.segments}));
    batch_norm_forward(OnCuda{}, c.spec, c.segments, in.x.data(), in.residual.data(), in.gamma.data(), in.beta.data(),
                       aligned.mean.data(), aligned.rstd.data(), nullptr, nullptr, y.data(), workspace.data());
    batch_norm_forward(OnCuda{}, c.spec, c.segments, x.data(), residual.data(), in.gamma.data(), in.beta.data(),
                       elsewhere.mean.data(), elsewhere.rstd.data(), nullptr, nullptr, its_y.data(), workspace.data());
    EXPECT_EQ(aligned.mean, elsewhere.mean);
    EXPECT_EQ(y.bytes, its_y.bytes());
  }
}

TEST(CudaBatchNorm, GradientsMayLieOverTheIncomingGradient) {
  const Case c{{40, 1e-5f, 0.1f, true, DType::f16}, two_resolutions, true};
  Both in(c);
  const int64_t total = total_rows(c.segments) * 40;
  Statistics s(c);
  Array y = unwritten(DType::f16, total), dx = y, dresidual = y;
  std::vector<float> dgamma(40), dbeta(40);
  Workspace workspace(cuda::workspace(BatchNormMoments{c.spec, c.segments}));
  batch_norm_forward(OnCuda{}, c.spec, c.segments, in.x.data(), in.residual.data(), in.gamma.data(), in.beta.data(),
                     s.mean.data(), s.rstd.data(), nullptr, nullptr, y.data(), workspace.data());
  const auto backward = [&](void* dy, void* to, void* to_residual) {
    batch_norm_backward(OnCuda{}, c.spec, c.segments, in.x.data(), y.data(), dy, in.gamma.data(), in.beta.data(),
                        s.mean.data(), s.rstd.data(), to, to_residual, dgamma.data(), dbeta.data(), workspace.data());
  };
  Array over_dx = in.dy, over_dresidual = in.dy, other = y;
  backward(in.dy.data(), dx.data(), dresidual.data());
  backward(over_dx.data(), over_dx.data(), other.data());
  EXPECT_EQ(over_dx.bytes, dx.bytes);
  EXPECT_EQ(other.bytes, dresidual.bytes);
  backward(over_dresidual.data(), other.data(), over_dresidual.data());
  EXPECT_EQ(other.bytes, dx.bytes);
  EXPECT_EQ(over_dresidual.bytes, dresidual.bytes);
}

}  // namespace
}  // namespace saccade::kernels::cuda
