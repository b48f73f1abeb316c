// Batch normalisation on the CPU against its formula in doubles.
#include <algorithm>
#include <memory>

#include "arrays.h"
#include "in_parts.h"

namespace saccade::kernels {
namespace {

struct Case {
  BatchNorm spec;
  Segments segments;
  bool residual;
  double mean = 0.3, deviation = 1.;
};

struct Reference {
  std::vector<double> y, mean, var, dx, dresidual, dgamma, dbeta;
};

/// Forward, and backward with the ReLU mask of the forward result.
Reference reference(const Case& c, const Array& x, const Array& residual, const std::vector<float>& gamma,
                    const std::vector<float>& beta, const Array& dy) {
  const int64_t channels = c.spec.channels, total = total_rows(c.segments) * channels;
  Reference r;
  r.y.resize(total), r.dx.resize(total), r.dresidual.resize(total), r.dgamma.resize(channels), r.dbeta.resize(channels);
  int64_t first = 0;
  for (const Segment& s : c.segments) {
    const int64_t rows = s.rows();
    for (int64_t ch = 0; ch < channels; ++ch) {
      double mean = 0, var = 0, sum = 0, product = 0;
      for (int64_t i = 0; i < rows; ++i) mean += x[(first + i) * channels + ch] / double(rows);
      for (int64_t i = 0; i < rows; ++i) var += std::pow(x[(first + i) * channels + ch] - mean, 2) / double(rows);
      const double rstd = 1 / std::sqrt(var + c.spec.eps);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = (first + i) * channels + ch;
        const double xhat = (x[at] - mean) * rstd;
        r.y[at] = xhat * gamma[ch] + beta[ch] + (c.residual ? residual[at] : 0.);
        r.dresidual[at] = c.spec.relu && r.y[at] <= 0 ? 0. : dy[at];
        if (c.spec.relu) r.y[at] = std::max(r.y[at], 0.);
        sum += r.dresidual[at];
        product += r.dresidual[at] * xhat;
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t at = (first + i) * channels + ch;
        const double xhat = (x[at] - mean) * rstd;
        r.dx[at] = gamma[ch] * rstd * (r.dresidual[at] - sum / double(rows) - xhat * product / double(rows));
      }
      r.mean.push_back(mean);
      r.var.push_back(var);
      r.dgamma[ch] += product;
      r.dbeta[ch] += sum;
    }
    first += rows;
  }
  return r;
}

/// Everything that one forward and backward call write.
struct Results {
  Array y, dx, dresidual;
  std::vector<float> mean, rstd, running_mean, running_var, dgamma, dbeta;
};

enum class Saved { y, x_alone };
enum class Place { apart, dx_over_dy, dresidual_over_dy };

Results run(const Case& c, Array x, Array residual, const std::vector<float>& gamma, const std::vector<float>& beta,
            Array dy, Saved saved = Saved::y, Place place = Place::apart) {
  Backend& cpu = backend(Device::cpu);
  const int64_t channels = c.spec.channels, total = total_rows(c.segments) * channels;
  const size_t statistics = c.segments.size() * static_cast<size_t>(channels), one = static_cast<size_t>(channels);
  Results r{unwritten(c.spec.dtype, total),      unwritten(c.spec.dtype, total),      unwritten(c.spec.dtype, total),
            std::vector<float>(statistics, NAN), std::vector<float>(statistics, NAN), std::vector<float>(one, 0.f),
            std::vector<float>(one, 1.f),        std::vector<float>(one, NAN),        std::vector<float>(one, NAN)};
  Workspace workspace(cpu.workspace(BatchNormMoments{c.spec, c.segments}));
  batch_norm_forward(OnCpu{}, c.spec, c.segments, x.data(), c.residual ? residual.data() : nullptr, gamma.data(),
                     beta.data(), r.mean.data(), r.rstd.data(), r.running_mean.data(), r.running_var.data(), r.y.data(),
                     workspace.data());
  void* dx = place == Place::dx_over_dy ? dy.data() : r.dx.data();
  void* dresidual = !c.residual ? nullptr : place == Place::dresidual_over_dy ? dy.data() : r.dresidual.data();
  batch_norm_backward(OnCpu{}, c.spec, c.segments, x.data(), saved == Saved::y ? r.y.data() : nullptr, dy.data(),
                      gamma.data(), beta.data(), r.mean.data(), r.rstd.data(), dx, dresidual, r.dgamma.data(),
                      r.dbeta.data(), workspace.data());
  if (place == Place::dx_over_dy) r.dx = dy;
  if (place == Place::dresidual_over_dy) r.dresidual = dy;
  r.y.refresh(), r.dx.refresh(), r.dresidual.refresh();
  return r;
}

struct Inputs {
  Array x, residual, dy;
  std::vector<float> gamma, beta;
  explicit Inputs(const Case& c)
      : x(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 1, c.mean, c.deviation))),
        residual(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 2))),
        dy(array(c.spec.dtype, normal(total_rows(c.segments) * c.spec.channels, 3))),
        gamma(floats(normal(c.spec.channels, 4, 1., 0.3))),
        beta(floats(normal(c.spec.channels, 5, 0.1, 0.5))) {}
};

Case make(int64_t channels, Segments segments, bool relu, bool residual, DType dtype = DType::f32) {
  Case c{{channels, 1e-5f, 0.1f, relu, dtype}, std::move(segments), residual};
  return c;
}

void expect_matches(const Case& c, const Results& got, const Reference& want) {
  const double r = c.spec.dtype == DType::f32 ? 2e-5 : 2 * rounding(c.spec.dtype);
  expect_near(got.y, want.y, r, r, "y");
  expect_near(got.mean, want.mean, 1e-6, 1e-6, "mean");
  std::vector<double> rstd;
  for (double var : want.var) rstd.push_back(1 / std::sqrt(var + c.spec.eps));
  expect_near(got.rstd, rstd, 1e-5, 0, "rstd");
  const double total = std::sqrt(static_cast<double>(total_rows(c.segments)));
  expect_near(got.dgamma, want.dgamma, 1e-4, 2e-5 * total, "dgamma");
  expect_near(got.dbeta, want.dbeta, 1e-4, 2e-5 * total, "dbeta");
  // dx is a difference of terms of the size of rstd * dy.
  expect_near(got.dx, want.dx, r, 2 * r * std::max(1., *std::max_element(rstd.begin(), rstd.end())), "dx");
  if (c.residual) expect_near(got.dresidual, want.dresidual, r, r, "dresidual");
}

class BatchNormAtAnySize : public testing::TestWithParam<std::tuple<int, int, bool, bool>> {};

TEST_P(BatchNormAtAnySize, MatchesTheFormula) {
  const auto [channels, rows, relu, residual] = GetParam();
  const Case c = make(channels, {{1, rows, 1}, {2, rows, 1}}, relu, residual);
  const Inputs in(c);
  expect_matches(c, run(c, in.x, in.residual, in.gamma, in.beta, in.dy),
                 reference(c, in.x, in.residual, in.gamma, in.beta, in.dy));
}

INSTANTIATE_TEST_SUITE_P(OddSizes, BatchNormAtAnySize,
                         testing::Combine(testing::Values(1, 3, 7, 13, 16, 48, 104, 440),
                                          testing::Values(2, 5, 97, 400), testing::Bool(), testing::Bool()));

TEST(BatchNorm, ApplyingAgainGivesForwardsBitsAndNeedsNoRunningStatistics) {
  Backend& cpu = backend(Device::cpu);
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16})
    for (const int64_t channels : {3, 48, 440})
      for (const bool relu : {false, true}) {
        const Case c = make(channels, {{2, 9, 7}, {1, 17, 13}}, relu, false, dtype);
        Inputs in(c);
        const Results first = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
        Results again = first;
        again.y = again.dx = unwritten(dtype, total_rows(c.segments) * channels);
        cpu.run(BatchNormApply{c.spec, c.segments, in.x.data(), nullptr, in.gamma.data(), in.beta.data(),
                               first.mean.data(), first.rstd.data(), again.y.data()});
        EXPECT_EQ(again.y.bytes, first.y.bytes) << name_of(dtype) << ", " << channels << " channels";
        std::fill(again.mean.begin(), again.mean.end(), NAN), std::fill(again.rstd.begin(), again.rstd.end(), NAN);
        Workspace workspace(cpu.workspace(BatchNormMoments{c.spec, c.segments}));
        batch_norm_forward(OnCpu{}, c.spec, c.segments, in.x.data(), nullptr, in.gamma.data(), in.beta.data(),
                           again.mean.data(), again.rstd.data(), nullptr, nullptr, again.dx.data(), workspace.data());
        EXPECT_EQ(again.dx.bytes, first.y.bytes);
        EXPECT_EQ(again.mean, first.mean);
        EXPECT_EQ(again.rstd, first.rstd);
      }
}

TEST(BatchNorm, TwoProcessesThatExchangeInBetweenGiveWhatOneGives) {
  // One process has both halves of the rows, two have one each.
  for (const int64_t channels : {3, 48}) {
    const Case c = make(channels, {{8, 9, 7}, {4, 5, 5}}, true, false);
    const Segments half = {{4, 9, 7}, {2, 5, 5}};
    Inputs in(c);
    const Results want = run(c, in.x, in.residual, in.gamma, in.beta, in.dy, Saved::x_alone);
    Backend& cpu = backend(Device::cpu);
    const auto statistics = static_cast<size_t>(2 * channels);
    std::vector<float> means(2 * statistics), mean(statistics), rstd(statistics);
    std::vector<double> squares(2 * statistics);
    // The rows of a process: of each segment its half.
    const auto part = [&](const Array& all, int process) {
      std::vector<double> values;
      int64_t first = 0;
      for (size_t s = 0; s < half.size(); ++s) {
        const int64_t n = half[s].rows() * channels, begin = first + process * n;
        values.insert(values.end(), all.values.begin() + begin, all.values.begin() + begin + n);
        first += 2 * n;
      }
      return array(DType::f32, values);
    };
    for (int process = 0; process < 2; ++process) {
      Array x = part(in.x, process);
      BatchNormMoments moments{c.spec, half, x.data(), means.data() + process * statistics};
      Workspace workspace(cpu.workspace(moments));
      moments.workspace = workspace.data();
      cpu.run(moments);
      std::memcpy(squares.data() + process * statistics, moments.squares(), statistics * sizeof(double));
    }
    std::vector<float> running_mean(static_cast<size_t>(channels), 0.f), running_var(running_mean.size(), 1.f);
    cpu.run(BatchNormMerge{c.spec, half, 2, means.data(), squares.data(), mean.data(), rstd.data(), running_mean.data(),
                           running_var.data()});
    expect_near(mean, {want.mean.begin(), want.mean.end()}, 1e-6, 1e-6, "mean");
    expect_near(rstd, {want.rstd.begin(), want.rstd.end()}, 1e-6, 0, "rstd");
    expect_near(running_var, {want.running_var.begin(), want.running_var.end()}, 1e-6, 0, "running_var");

    std::vector<std::vector<float>> factors(2, std::vector<float>(3 * statistics));
    std::vector<double> dgamma(static_cast<size_t>(channels), 0.);
    for (int process = 0; process < 2; ++process) {
      Array x = part(in.x, process), dy = part(in.dy, process);
      std::vector<float> own_dgamma(static_cast<size_t>(channels)), dbeta(own_dgamma.size());
      BatchNormBackwardSums sums{c.spec,          half,           x.data(),    nullptr,     dy.data(),
                                 in.gamma.data(), in.beta.data(), mean.data(), rstd.data(), own_dgamma.data(),
                                 dbeta.data()};
      Workspace workspace(cpu.workspace(sums));
      sums.workspace = workspace.data();
      cpu.run(sums);
      std::memcpy(factors[process].data(), sums.factors(), 3 * statistics * sizeof(float));
      for (size_t i = 0; i < dgamma.size(); ++i) dgamma[i] += own_dgamma[i];
    }
    for (size_t i = statistics; i < 3 * statistics; ++i) factors[0][i] = (factors[0][i] + factors[1][i]) / 2;
    expect_near(want.dgamma, dgamma, 1e-5, 1e-4, "dgamma");
    for (int process = 0; process < 2; ++process) {
      Array x = part(in.x, process), dy = part(in.dy, process), want_dx = part(want.dx, process), dx = want_dx;
      cpu.run(BatchNormBackwardMap{c.spec, half, x.data(), nullptr, dy.data(), in.gamma.data(), in.beta.data(),
                                   mean.data(), rstd.data(), factors[0].data(), dx.data(), nullptr});
      dx.refresh();
      expect_near(dx, want_dx.values, 1e-4, 1e-5, "dx");
    }
  }
}

TEST(BatchNorm, MatchesTheFormulaInHalfPrecisions) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    for (const int64_t channels : {7, 48}) {
      // Without ReLU: its mask would follow the rounded y.
      const Case c = make(channels, {{2, 9, 7}, {4, 5, 3}}, false, true, dtype);
      const Inputs in(c);
      expect_matches(c, run(c, in.x, in.residual, in.gamma, in.beta, in.dy),
                     reference(c, in.x, in.residual, in.gamma, in.beta, in.dy));
    }
  }
}

TEST(BatchNorm, TheMaskRecomputedFromTheInputIsTheOneOfTheOutput) {
  for (const int64_t channels : {13, 48}) {
    const Case c = make(channels, {{4, 20, 20}, {3, 7, 7}}, true, false);
    const Inputs in(c);
    const Results from_y = run(c, in.x, in.residual, in.gamma, in.beta, in.dy, Saved::y);
    const Results from_x = run(c, in.x, in.residual, in.gamma, in.beta, in.dy, Saved::x_alone);
    EXPECT_EQ(from_y.dx.bytes, from_x.dx.bytes);
    EXPECT_EQ(from_y.dgamma, from_x.dgamma);
  }
}

TEST(BatchNorm, GradientsMayLieOverTheIncomingGradient) {
  const Case c = make(40, {{4, 20, 20}, {3, 7, 7}}, true, true);
  const Inputs in(c);
  const Results apart = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  EXPECT_EQ(apart.dx.bytes, run(c, in.x, in.residual, in.gamma, in.beta, in.dy, Saved::y, Place::dx_over_dy).dx.bytes);
  const Results over = run(c, in.x, in.residual, in.gamma, in.beta, in.dy, Saved::y, Place::dresidual_over_dy);
  EXPECT_EQ(apart.dx.bytes, over.dx.bytes);
  EXPECT_EQ(apart.dresidual.bytes, over.dresidual.bytes);
}

TEST(BatchNorm, OneAndTwoAndThreeThreadsGiveTheSameBits) {
  for (const int64_t channels : {24, 440}) {
    const Case c = make(channels, {{8, 24, 24}, {16, 6, 6}}, true, true);
    const Inputs in(c);
    Results one, more;
    with_threads(1, [&] { one = run(c, in.x, in.residual, in.gamma, in.beta, in.dy); });
    for (const int threads : {2, 3}) {
      with_threads(threads, [&] { more = run(c, in.x, in.residual, in.gamma, in.beta, in.dy); });
      EXPECT_EQ(one.y.bytes, more.y.bytes);
      EXPECT_EQ(one.dx.bytes, more.dx.bytes);
      EXPECT_EQ(one.dgamma, more.dgamma);
      EXPECT_EQ(one.running_var, more.running_var);
    }
  }
}

TEST(BatchNorm, AMeanFarAboveTheDeviationDoesNotCancelTheVariance) {
  Case c = make(19, {{16, 24, 24}}, false, false);
  c.mean = 1e4;
  c.deviation = 0.5;
  const Inputs in(c);
  const Reference want = reference(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  const Results got = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  for (int64_t ch = 0; ch < c.spec.channels; ++ch) {
    EXPECT_NEAR(got.rstd[ch], 1 / std::sqrt(want.var[ch] + 1e-5), 1e-5 / std::sqrt(want.var[ch]));
  }
  // The mean itself is kept in f32, half a unit of 1e4 is 5e-4: a thousandth of the deviation.
  expect_near(got.y, want.y, 0, 2.5e-3, "y");
}

TEST(BatchNorm, AnOutlierInTheFirstRowDoesNoHarm) {
  const Case c = make(16, {{16, 24, 24}}, false, false);
  Inputs in(c);
  std::vector<double> values = in.x.values;
  for (int i = 0; i < 16; ++i) values[i] = 300;
  in.x = array(DType::f32, values);
  const Reference want = reference(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  const Results got = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  // Everything here is small beside the outlier's 100 deviations.
  expect_near(got.mean, want.mean, 0, 1e-5, "mean");
  expect_near(got.y, want.y, 5e-5, 5e-5, "y");
  expect_near(got.dx, want.dx, 5e-5, 5e-5, "dx");
}

TEST(BatchNorm, RunningStatisticsMoveOnceASegmentWithTheUnbiasedVariance) {
  const Case c = make(5, {{2, 3, 3}, {1, 2, 2}}, false, false);
  const Inputs in(c);
  const Reference want = reference(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  const Results got = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  for (int ch = 0; ch < 5; ++ch) {
    double mean = 0, var = 1;
    mean = 0.9 * mean + 0.1 * want.mean[ch], var = 0.9 * var + 0.1 * want.var[ch] * 18 / 17;
    mean = 0.9 * mean + 0.1 * want.mean[5 + ch], var = 0.9 * var + 0.1 * want.var[5 + ch] * 4 / 3;
    EXPECT_NEAR(got.running_mean[ch], mean, 1e-6);
    EXPECT_NEAR(got.running_var[ch], var, 1e-6);
  }
}

TEST(BatchNorm, ALargeResultStoredPastTheCachesIsTheSame) {
  // An aligned y of more than 6 M elements is streamed; one that begins within a register is not.
  const Case c = make(16, {{1, 640, 640}}, true, true);
  const int64_t total = total_rows(c.segments) * 16;
  std::vector<float> x(total), residual(total), gamma(16, 1.5f), beta(16, 0.1f), mean(16), rstd(16), y(total + 32, NAN);
  for (int64_t i = 0; i < total; ++i)
    x[i] = static_cast<float>(i * 7919 % 1000), residual[i] = static_cast<float>(i % 3);
  void* start = y.data();
  size_t room = y.size() * sizeof(float);
  float* aligned = static_cast<float*>(std::align(64, static_cast<size_t>(total) * sizeof(float), start, room));
  Backend& cpu = backend(Device::cpu);
  Workspace workspace(cpu.workspace(BatchNormMoments{c.spec, c.segments}));
  const auto run_into = [&](float* to) {
    batch_norm_forward(OnCpu{}, c.spec, c.segments, x.data(), residual.data(), gamma.data(), beta.data(), mean.data(),
                       rstd.data(), nullptr, nullptr, to, workspace.data());
    return std::vector<float>(to, to + total);
  };
  const std::vector<float> streamed = run_into(aligned);
  EXPECT_EQ(streamed, run_into(aligned + 1));
}

TEST(BatchNorm, NotANumberIsNotHidden) {
  const Case c = make(3, {{1, 4, 4}}, true, false);
  Inputs in(c);
  std::vector<double> values = in.x.values;
  values[3 * 7 + 1] = std::nan("");
  in.x = array(DType::f32, values);
  const Results got = run(c, in.x, in.residual, in.gamma, in.beta, in.dy);
  EXPECT_TRUE(std::isnan(got.y[1]));
  EXPECT_TRUE(std::isnan(got.running_var[1]));
  EXPECT_FALSE(std::isnan(got.y[0]));
}

TEST(BatchNorm, InferenceUsesTheRunningStatisticsAndMayWorkInPlace) {
  for (const int64_t channels : {1, 7, 48, 440}) {
    for (const bool residual : {false, true}) {
      const int64_t rows = 97;
      const BatchNorm spec{channels, 1e-5f, 0.1f, true, DType::f32};
      Array x = array(DType::f32, normal(rows * channels, 1)), r = array(DType::f32, normal(rows * channels, 2));
      const auto gamma = floats(normal(channels, 3)), beta = floats(normal(channels, 4)),
                 mean = floats(normal(channels, 5));
      auto var = floats(normal(channels, 6));
      for (float& v : var) v = std::abs(v) + 0.1f;
      std::vector<double> want;
      for (int64_t i = 0; i < rows * channels; ++i) {
        const int64_t ch = i % channels;
        const double y =
            (x[i] - mean[ch]) / std::sqrt(double{var[ch]} + 1e-5) * gamma[ch] + beta[ch] + (residual ? r[i] : 0.);
        want.push_back(std::max(y, 0.));
      }
      backend(Device::cpu)
          .run(BatchNormInference{spec, rows, x.data(), residual ? r.data() : nullptr, gamma.data(), beta.data(),
                                  mean.data(), var.data(), x.data()});
      x.refresh();
      expect_near(x, want, 1e-5, 1e-5, "y");
    }
  }
}

}  // namespace
}  // namespace saccade::kernels
