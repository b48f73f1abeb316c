// Sinkhorn, the swapped-prediction loss and cross-entropy on the CPU against doubles.
#include <algorithm>

#include "arrays.h"
#include "in_parts.h"

namespace saccade::kernels {
namespace {

/// Cosines, as scores are: with `spread`, of features close to prototypes.
std::vector<float> cosines(int64_t rows, int64_t prototypes, uint32_t seed, double spread = 0.3) {
  std::vector<double> values = normal(rows * prototypes, seed, 0, spread);
  for (double& v : values) v = std::clamp(v, -1., 1.);
  return floats(values);
}

std::vector<double> softmax_rows(std::vector<double> logits, int64_t columns) {
  for (size_t row = 0; row < logits.size(); row += static_cast<size_t>(columns)) {
    const auto begin = logits.begin() + static_cast<int64_t>(row), end = begin + columns;
    const double largest = *std::max_element(begin, end);
    double sum = 0;
    for (auto i = begin; i != end; ++i) sum += * i = std::exp(*i - largest);
    for (auto i = begin; i != end; ++i) *i /= sum;
  }
  return logits;
}

/// The algorithm as the SwAV authors wrote it: scaling rows and columns of exp(S / eps).
std::vector<double> scaling(const Sinkhorn& spec, const std::vector<float>& scores) {
  const int64_t n = spec.rows, k = spec.prototypes;
  std::vector<double> q(scores.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = std::exp(double{scores[i]} / double{spec.eps});
  for (int iteration = 0; iteration < spec.iterations; ++iteration) {
    std::vector<double> column(k, 0.);
    for (int64_t i = 0; i < n * k; ++i) column[i % k] += q[i];
    for (int64_t i = 0; i < n * k; ++i) q[i] /= column[i % k] * double(k);
    for (int64_t b = 0; b < n; ++b) {
      double sum = 0;
      for (int64_t j = 0; j < k; ++j) sum += q[b * k + j];
      for (int64_t j = 0; j < k; ++j) q[b * k + j] /= sum;
    }
  }
  return q;
}

/// The same in the log domain, for an eps at which the exponentials above leave the range even of doubles.
std::vector<double> log_domain(const Sinkhorn& spec, const std::vector<float>& scores) {
  const int64_t n = spec.rows, k = spec.prototypes;
  std::vector<double> a(k, 0.), c(n, 0.);
  const auto entry = [&](int64_t b, int64_t j) { return double{scores[b * k + j]} / double{spec.eps}; };
  for (int iteration = 0; iteration < spec.iterations; ++iteration) {
    for (int64_t j = 0; j < k; ++j) {
      double largest = -INFINITY, sum = 0;
      for (int64_t b = 0; b < n; ++b) largest = std::max(largest, entry(b, j) + c[b]);
      for (int64_t b = 0; b < n; ++b) sum += std::exp(entry(b, j) + c[b] - largest);
      a[j] = -std::log(double(k)) - largest - std::log(sum);
    }
    for (int64_t b = 0; b < n; ++b) {
      double largest = -INFINITY, sum = 0;
      for (int64_t j = 0; j < k; ++j) largest = std::max(largest, entry(b, j) + a[j]);
      for (int64_t j = 0; j < k; ++j) sum += std::exp(entry(b, j) + a[j] - largest);
      c[b] = -std::log(double(n)) - largest - std::log(sum);
    }
  }
  std::vector<double> logits(scores.size());
  for (int64_t i = 0; i < n * k; ++i) logits[i] = entry(i / k, i % k) + a[i % k];
  return softmax_rows(logits, k);
}

std::vector<float> assign(const Sinkhorn& spec, const std::vector<float>& scores) {
  Backend& cpu = backend(Device::cpu);
  std::vector<float> potentials(spec.prototypes, NAN), q(scores.size(), NAN);
  Workspace workspace(cpu.workspace(SinkhornRows{spec}));
  sinkhorn_potentials(OnCpu{}, spec, scores.data(), potentials.data(), workspace.data());
  cpu.run(SinkhornAssign{spec, scores.data(), potentials.data(), q.data()});
  return q;
}

TEST(Sinkhorn, TwoProcessesThatExchangeTheirPotentialsGiveWhatOneGives) {
  Backend& cpu = backend(Device::cpu);
  for (const float eps : {0.05f, 0.002f}) {
    const Sinkhorn all{.rows = 40, .prototypes = 21, .eps = eps, .iterations = 4};
    Sinkhorn half = all;
    half.rows = 20, half.rows_everywhere = 40;
    const auto scores = floats(normal(40 * 21, 3, 0, 0.3));
    const std::vector<float> want = assign(all, scores);
    Workspace first(cpu.workspace(SinkhornRows{half})), second(cpu.workspace(SinkhornRows{half}));
    void* const workspaces[] = {first.data(), second.data()};
    std::vector<float> potentials(21), of_process[2] = {potentials, potentials};
    for (int i = 0; i < all.iterations; ++i) {
      float largest[2] = {};
      for (int p = 0; p < 2; ++p) {
        of_process[p] = potentials;
        const float* own = scores.data() + p * 20 * 21;
        cpu.run(SinkhornRows{half, i, own, of_process[p].data(), workspaces[p]});
        cpu.run(SinkhornColumns{half, i, own, of_process[p].data(), &largest[p], workspaces[p]});
      }
      for (size_t k = 0; k < potentials.size(); ++k) {
        const double a = double{of_process[0][k]} - (i == 0 ? largest[0] : 0.f),
                     b = double{of_process[1][k]} - (i == 0 ? largest[1] : 0.f), least = std::min(a, b);
        potentials[k] = static_cast<float>(least - std::log(std::exp(least - a) + std::exp(least - b)));
      }
    }
    std::vector<float> q(want.size(), NAN);
    cpu.run(SinkhornAssign{all, scores.data(), potentials.data(), q.data()});
    expect_near(q, {want.begin(), want.end()}, 4e-6 / double{eps}, 1e-7, "q");
  }
}

class SinkhornShapes : public testing::TestWithParam<Sinkhorn> {};

TEST_P(SinkhornShapes, EqualsTheScalingAlgorithm) {
  const Sinkhorn spec = GetParam();
  const auto scores = cosines(spec.rows, spec.prototypes, 7);
  expect_near(assign(spec, scores), scaling(spec, scores), 5e-5, 1e-7, "q");
}

INSTANTIATE_TEST_SUITE_P(Shapes, SinkhornShapes,
                         testing::Values(Sinkhorn{64, 32, 0.05f, 3}, Sinkhorn{64, 32, 0.03f, 10},
                                         Sinkhorn{5, 37, 0.05f, 3}, Sinkhorn{100, 1, 0.05f, 3},
                                         Sinkhorn{1, 13, 0.05f, 3}, Sinkhorn{97, 131, 0.03f, 10},
                                         Sinkhorn{64, 3000, 0.05f, 3}, Sinkhorn{700, 300, 0.03f, 10},
                                         Sinkhorn{50, 20, 0.05f, 1}));

TEST(SinkhornAssignment, IsExactWhereThePlainFormOverflows) {
  for (const int iterations : {1, 3, 10}) {
    // 1/eps = 200, 1000: exp(200) has no float, and rows differ by e^400 and more.
    for (const float eps : {0.005f, 0.001f}) {
      const Sinkhorn spec{96, 40, eps, iterations};
      const auto scores = cosines(spec.rows, spec.prototypes, 3);
      const std::vector<float> q = assign(spec, scores);
      // An f32 exponent of 1000 carries 6e-5 of rounding.
      expect_near(q, log_domain(spec, scores), 2e-3, 1e-6, "q");
      for (int64_t b = 0; b < spec.rows; ++b) {
        double sum = 0;
        for (int64_t k = 0; k < spec.prototypes; ++k) sum += q[b * spec.prototypes + k];
        EXPECT_NEAR(sum, 1, 1e-5);
      }
    }
  }
}

TEST(SinkhornAssignment, APrototypeThatNoSampleLikesStaysFinite) {
  const Sinkhorn spec{80, 24, 0.005f, 10};
  auto scores = cosines(spec.rows, spec.prototypes, 5, 0.05);
  for (int64_t b = 0; b < spec.rows; ++b) scores[b * spec.prototypes + 11] = -1.f;  // e^-200 beside the others
  expect_near(assign(spec, scores), log_domain(spec, scores), 1e-3, 1e-6, "q");
}

TEST(SinkhornAssignment, MarginalsAreUniformAfterManyIterations) {
  const Sinkhorn spec{128, 16, 0.05f, 100};
  const auto q = assign(spec, cosines(spec.rows, spec.prototypes, 9));
  for (int64_t k = 0; k < spec.prototypes; ++k) {
    double mass = 0;
    for (int64_t b = 0; b < spec.rows; ++b) mass += q[b * spec.prototypes + k];
    EXPECT_NEAR(mass, 8., 1e-3);
  }
}

TEST(SinkhornAssignment, ThreadsDoNotChangeABit) {
  const Sinkhorn spec{300, 200, 0.05f, 3};
  const auto scores = cosines(spec.rows, spec.prototypes, 11);
  std::vector<float> one, two;
  with_threads(1, [&] { one = assign(spec, scores); });
  with_threads(2, [&] { two = assign(spec, scores); });
  EXPECT_EQ(one, two);
}

struct Loss {
  float value = NAN;
  std::vector<float> gradient;
};

Loss swapped(const SwappedPrediction& spec, const std::vector<float>& scores, const std::vector<float>& q) {
  Loss result{NAN, std::vector<float>(scores.size(), NAN)};
  backend(Device::cpu).run(SwappedPredictionLoss{spec, scores.data(), q.data(), &result.value, result.gradient.data()});
  return result;
}

class SwappedPredictionShapes : public testing::TestWithParam<SwappedPrediction> {};

TEST_P(SwappedPredictionShapes, LossAndGradientMatchTheEquation) {
  const SwappedPrediction spec = GetParam();
  const int64_t rows = spec.batch * spec.crops, k = spec.prototypes;
  const auto scores = cosines(rows, k, 1);
  const auto q = floats(softmax_rows(normal(spec.assigning * spec.batch * k, 2, 0, 2), k));
  std::vector<double> logits(scores.size()), gradient(scores.size(), 0.);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = double{scores[i]} / double{spec.temperature};
  const std::vector<double> p = softmax_rows(logits, k);
  double loss = 0;
  const double weight = 1. / double(spec.assigning * (spec.crops - 1) * spec.batch);
  for (int64_t i = 0; i < spec.assigning; ++i) {
    for (int64_t v = 0; v < spec.crops; ++v) {
      if (v == i) continue;
      for (int64_t j = 0; j < spec.batch * k; ++j) {
        const double target = q[i * spec.batch * k + j], predicted = p[v * spec.batch * k + j];
        loss -= weight * target * std::log(predicted);
        gradient[v * spec.batch * k + j] += weight * (predicted - target) / double{spec.temperature};
      }
    }
  }
  const Loss got = swapped(spec, scores, q);
  EXPECT_NEAR(got.value, loss, 2e-6 * loss + 1e-7);
  expect_near(got.gradient, gradient, 1e-5, 1e-6 * weight / double{spec.temperature}, "dscores");
  Loss one;
  with_threads(1, [&] { one = swapped(spec, scores, q); });
  EXPECT_EQ(one.value, got.value);
  EXPECT_EQ(one.gradient, got.gradient);
}

INSTANTIATE_TEST_SUITE_P(Shapes, SwappedPredictionShapes,
                         testing::Values(SwappedPrediction{1, 2, 2, 1, 0.1f}, SwappedPrediction{3, 2, 2, 7, 0.1f},
                                         SwappedPrediction{8, 6, 2, 300, 0.1f}, SwappedPrediction{5, 4, 1, 13, 0.2f},
                                         SwappedPrediction{40, 8, 3, 100, 0.1f},
                                         SwappedPrediction{2, 6, 2, 3000, 0.1f}));

TEST(SwappedPredictionLoss, IsTheLogOfThePrototypesForUniformAssignments) {
  const SwappedPrediction spec{4, 6, 2, 512, 0.1f};
  const std::vector<float> scores(4 * 6 * 512, 0.25f), q(2 * 4 * 512, 1.f / 512);
  EXPECT_NEAR(swapped(spec, scores, q).value, std::log(512.), 1e-5);  // 6.238
}

TEST(CrossEntropy, LossAndGradientMatchTheFormulaEvenForLogitsOfAThousand) {
  for (const double size : {1., 1000.}) {
    for (const int64_t classes : {1, 2, 10, 1000}) {
      const int64_t rows = 97;
      const auto logits = floats(normal(rows * classes, 1, 0, size));
      std::vector<int32_t> labels;
      for (int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<int32_t>(i * 7 % classes));
      std::vector<double> wide(logits.begin(), logits.end()), gradient = softmax_rows(wide, classes);
      double loss = 0;
      for (int64_t i = 0; i < rows; ++i) {
        const auto row = wide.begin() + i * classes;
        const double largest = *std::max_element(row, row + classes);
        double sum = 0;
        for (int64_t k = 0; k < classes; ++k) sum += std::exp(row[k] - largest);
        loss += (largest + std::log(sum) - row[labels[i]]) / double(rows);
        gradient[i * classes + labels[i]] -= 1;
      }
      for (double& g : gradient) g /= double(rows);
      float got = NAN;
      std::vector<float> dlogits(logits.size(), NAN);
      backend(Device::cpu).run(CrossEntropy{rows, classes, logits.data(), labels.data(), &got, dlogits.data()});
      EXPECT_NEAR(got, loss, 1e-5 * loss + 1e-6);
      expect_near(dlogits, gradient, 2e-5, 1e-7, "dlogits");
    }
  }
}

TEST(CrossEntropy, WithoutItsOwnClassARowHasTheBitsOfOneInWhichThatIsHopeless) {
  for (const int64_t classes : {2, 37, 300}) {
    const int64_t rows = std::min<int64_t>(classes, 97);
    auto logits = floats(normal(rows * classes, 1, 0, 5));
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < rows; ++i) labels.push_back(static_cast<int32_t>((i + classes / 2) % classes));
    float got = NAN, want = NAN;
    std::vector<float> gradient(logits.size(), NAN), wanted = gradient;
    CrossEntropy call{rows, classes, logits.data(), labels.data(), &got, gradient.data(), nullptr, true};
    backend(Device::cpu).run(call);
    for (int64_t i = 0; i < rows; ++i) logits[static_cast<size_t>(i * classes + i)] = -1e9f;
    call.loss = &want;
    call.dlogits = wanted.data();
    call.without_own = false;
    backend(Device::cpu).run(call);
    EXPECT_EQ(got, want);
    EXPECT_EQ(gradient, wanted);
    for (int64_t i = 0; i < rows; ++i) EXPECT_EQ(gradient[static_cast<size_t>(i * classes + i)], 0.f);
  }
}

}  // namespace
}  // namespace saccade::kernels
