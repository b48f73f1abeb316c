// Sinkhorn and the losses in the emulator against the CPU backend.
#include <algorithm>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

std::vector<float> cosines(int64_t rows, int64_t prototypes, uint32_t seed, double spread = 0.3) {
  std::vector<double> values = normal(rows * prototypes, seed, 0, spread);
  for (double& v : values) v = std::clamp(v, -1., 1.);
  return floats(values);
}

struct Assigned {
  std::vector<float> potentials, q;
};

Assigned on_cpu(const Sinkhorn& spec, const std::vector<float>& scores) {
  Assigned a{std::vector<float>(static_cast<size_t>(spec.prototypes), NAN), std::vector<float>(scores.size(), NAN)};
  Workspace workspace(cpu().workspace(SinkhornRows{spec}));
  sinkhorn_potentials(OnCpu{}, spec, scores.data(), a.potentials.data(), workspace.data());
  cpu().run(SinkhornAssign{spec, scores.data(), a.potentials.data(), a.q.data()});
  return a;
}

Assigned on_cuda(const Sinkhorn& spec, const std::vector<float>& scores) {
  Assigned a{std::vector<float>(static_cast<size_t>(spec.prototypes), NAN), std::vector<float>(scores.size(), NAN)};
  Workspace workspace(cuda::workspace(SinkhornRows{spec}));
  sinkhorn_potentials(OnCuda{}, spec, scores.data(), a.potentials.data(), workspace.data());
  run(stream, SinkhornAssign{spec, scores.data(), a.potentials.data(), a.q.data()});
  return a;
}

void check(const Sinkhorn& spec, const std::vector<float>& scores) {
  SCOPED_TRACE(testing::Message() << spec.rows << " x " << spec.prototypes << ", eps " << spec.eps);
  const Assigned want = on_cpu(spec, scores), got = on_cuda(spec, scores);
  // An f32 exponent of 1/eps carries 1/eps roundings, and so does its exponential.
  const double rounding = 4e-7 / double{spec.eps};
  expect_near(got.potentials, {want.potentials.begin(), want.potentials.end()}, 1e-6, rounding, "potentials");
  expect_near(got.q, {want.q.begin(), want.q.end()}, 4 * rounding, 1e-7, "q");
}

TEST(CudaSinkhorn, TellsWhatTheFirstPotentialsAreOffByAndCountsTheRowsEverywhere) {
  Sinkhorn spec{.rows = 9, .prototypes = 37, .iterations = 2};
  spec.rows_everywhere = 36;
  const auto scores = cosines(9, 37, 1);
  const auto first = [&](auto run, Workspace& workspace) {
    std::vector<float> result(2 * 37 + 1, NAN);
    run(SinkhornRows{spec, 0, scores.data(), result.data(), workspace.data()});
    run(SinkhornColumns{spec, 0, scores.data(), result.data(), result.data() + 37, workspace.data()});
    std::copy_n(result.data(), 37, result.data() + 38);
    run(SinkhornRows{spec, 1, scores.data(), result.data() + 38, workspace.data()});
    run(SinkhornColumns{spec, 1, scores.data(), result.data() + 38, nullptr, workspace.data()});
    return result;
  };
  Workspace of_cpu(cpu().workspace(SinkhornRows{spec})), of_cuda(cuda::workspace(SinkhornRows{spec}));
  expect_same(first(OnCuda{}, of_cuda), first(OnCpu{}, of_cpu), "potentials", 20);
}

TEST(CudaSinkhorn, SmallOnesEqualTheCpu) { check({9, 37, 0.05f, 2}, cosines(9, 37, 1)); }

TEST(CudaSinkhorn, EqualsTheCpu) {
  for (const Sinkhorn spec : {Sinkhorn{64, 32, 0.05f, 3},
                              {64, 32, 0.03f, 10},
                              {5, 37, 0.05f, 3},
                              {100, 1, 0.05f, 3},
                              {1, 13, 0.05f, 3},
                              {97, 131, 0.03f, 10},
                              {64, 3000, 0.05f, 3},
                              {300, 300, 0.03f, 10},
                              {50, 20, 0.05f, 1}}) {
    check(spec, cosines(spec.rows, spec.prototypes, 7));
  }
}

TEST(CudaSinkhorn, EqualsTheCpuWhereRowsDoNotFitSharedMemory) {
  check({9, 4081, 0.05f, 3}, cosines(9, 4081, 1));
  check({3, 7000, 0.05f, 2}, cosines(3, 7000, 2));
}

TEST(CudaSinkhorn, EqualsTheCpuWhereThePlainFormOverflows) {
  for (const float eps : {0.005f, 0.001f}) check({96, 40, eps, 10}, cosines(96, 40, 3));
}

TEST(CudaSinkhorn, APrototypeThatNoSampleLikesStaysFinite) {
  for (const int iterations : {1, 10}) {
    auto scores = cosines(80, 24, 5, 0.05);
    for (int64_t b = 0; b < 80; ++b) scores[static_cast<size_t>(b * 24 + 11)] = -1.f;  // e^-200 beside the others
    check({80, 24, 0.005f, iterations}, scores);
  }
}

TEST(CudaSwappedPrediction, LossAndGradientEqualTheCpu) {
  for (const SwappedPrediction spec : {SwappedPrediction{1, 2, 2, 1, 0.1f},
                                       {3, 2, 2, 7, 0.1f},
                                       {8, 6, 2, 300, 0.1f},
                                       {5, 4, 1, 13, 0.2f},
                                       {9, 8, 3, 100, 0.1f},
                                       {2, 6, 2, 3000, 0.1f},
                                       {1, 3, 2, 6100, 0.1f}}) {
    const auto scores = cosines(spec.batch * spec.crops, spec.prototypes, 1);
    const Sinkhorn assigning{spec.assigning * spec.batch, spec.prototypes, 0.05f, 3};
    const auto q = on_cpu(assigning, cosines(assigning.rows, assigning.prototypes, 2)).q;
    float want = NAN, got = NAN;
    std::vector<float> want_gradient(scores.size(), NAN), gradient = want_gradient;
    cpu().run(SwappedPredictionLoss{spec, scores.data(), q.data(), &want, want_gradient.data()});
    Workspace workspace(cuda::workspace(SwappedPredictionLoss{spec}));
    run(stream, SwappedPredictionLoss{spec, scores.data(), q.data(), &got, gradient.data(), workspace.data()});
    EXPECT_NEAR(got, want, 2e-6 * want + 1e-7);
    const double weight = 1. / double(spec.assigning * (spec.crops - 1) * spec.batch);
    expect_near(gradient, {want_gradient.begin(), want_gradient.end()}, 1e-5, 2e-6 * weight / double{spec.temperature},
                "dscores");
  }
}

TEST(CudaCrossEntropy, LossAndGradientEqualTheCpuEvenForLogitsOfAThousand) {
  for (const double size : {1., 1000.}) {
    for (const int64_t classes : {1, 2, 10, 1000, 12400}) {
      const int64_t rows = classes > 1000 ? 3 : 37;
      const auto logits = floats(normal(rows * classes, 1, 0, size));
      for (const bool without_own : {false, true}) {
        if (without_own && rows > classes) continue;
        std::vector<int32_t> labels;
        for (int64_t i = 0; i < rows; ++i)
          labels.push_back(static_cast<int32_t>((without_own ? i + classes / 2 : i * 7) % classes));
        float want = NAN, got = NAN;
        std::vector<float> want_gradient(logits.size(), NAN), gradient = want_gradient;
        CrossEntropy call{rows,    classes,    logits.data(), labels.data(), &want, want_gradient.data(),
                          nullptr, without_own};
        cpu().run(call);
        Workspace workspace(cuda::workspace(call));
        call.loss = &got;
        call.dlogits = gradient.data();
        call.workspace = workspace.data();
        run(stream, call);
        EXPECT_NEAR(got, want, 2e-6 * want + 1e-6);
        expect_near(gradient, {want_gradient.begin(), want_gradient.end()}, 2e-5, 1e-7, "dlogits");
      }
    }
  }
}

}  // namespace
}  // namespace saccade::kernels::cuda
