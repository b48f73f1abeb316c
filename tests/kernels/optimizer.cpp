// Multi-tensor updates on the CPU against the algorithms in doubles.
#include <saccade/kernels/error.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "arrays.h"

namespace saccade::kernels {
namespace {

/// Some tensors with gradients and states, of sizes below and above what one thread takes at a time.
struct Parameters {
  std::vector<std::vector<float>> p, g, m, v;
  std::vector<ParameterSlot> slots;
  explicit Parameters(bool with_states = true) {
    for (const int64_t n : {1, 3, 13, 48, 440, 16384, 40001}) {
      const auto seed = static_cast<uint32_t>(n);
      p.push_back(floats(normal(n, seed)));
      g.push_back(floats(normal(n, seed + 1, 0, 0.1)));
      m.emplace_back(static_cast<size_t>(n), 0.f);
      v.emplace_back(static_cast<size_t>(n), 0.f);
    }
    std::fill(p[3].begin(), p[3].end(), 0.f);  // as a fresh bias: LARC leaves its gradient alone
    std::fill(g[2].begin(), g[2].end(), 0.f);  // as a frozen tensor
    for (size_t i = 0; i < p.size(); ++i) {
      slots.push_back({p[i].data(), g[i].data(), with_states ? m[i].data() : nullptr,
                       with_states ? v[i].data() : nullptr, static_cast<int64_t>(p[i].size())});
    }
  }
};

using Doubles = std::vector<double>;

void sgd_step(const Sgd& s, Doubles& p, const Doubles& gradient, Doubles& m, bool stateless) {
  Doubles g = gradient;
  double pp = 0, gg = 0;
  for (size_t i = 0; i < p.size(); ++i) pp += p[i] * p[i], gg += g[i] * g[i];
  pp = std::sqrt(pp), gg = std::sqrt(gg);
  const double wd = s.weight_decay;
  if (s.trust == 0.f) {
    for (size_t i = 0; i < p.size(); ++i) g[i] += wd * p[i];
  } else if (pp != 0 && gg != 0) {
    const double ratio = double{s.trust} * pp / (gg + wd * pp + double{s.larc_eps});
    for (size_t i = 0; i < p.size(); ++i) g[i] = (g[i] + wd * p[i]) * ratio;
  }
  for (size_t i = 0; i < p.size(); ++i) {
    m[i] = double{s.momentum} * m[i] + g[i];
    p[i] -= double{s.lr} * (stateless ? g[i] : s.nesterov ? g[i] + double{s.momentum} * m[i] : m[i]);
  }
}

class SgdVariants : public testing::TestWithParam<Sgd> {};

TEST_P(SgdVariants, ThreeStepsMatchTheAlgorithm) {
  const Sgd spec = GetParam();
  const bool stateless = spec.momentum == 0.f;
  Parameters parameters(!stateless);
  std::vector<Doubles> p, g, m;
  for (size_t i = 0; i < parameters.p.size(); ++i) {
    p.emplace_back(parameters.p[i].begin(), parameters.p[i].end());
    g.emplace_back(parameters.g[i].begin(), parameters.g[i].end());
    m.emplace_back(parameters.p[i].size(), 0.);
  }
  for (int step = 0; step < 3; ++step) {
    backend(Device::cpu).run(SgdUpdate{spec, parameters.slots});
    for (size_t i = 0; i < p.size(); ++i) sgd_step(spec, p[i], g[i], m[i], stateless);
  }
  for (size_t i = 0; i < p.size(); ++i) {
    expect_near(parameters.p[i], p[i], 1e-6, 1e-6, "parameter");
    if (!stateless) expect_near(parameters.m[i], m[i], 1e-5, 1e-8, "momentum");
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, SgdVariants,
                         testing::Values(Sgd{.lr = 0.1f, .momentum = 0.f}, Sgd{.lr = 0.1f, .weight_decay = 1e-2f},
                                         Sgd{.lr = 0.1f, .weight_decay = 1e-2f, .nesterov = true},
                                         Sgd{.lr = 0.6f, .weight_decay = 1e-6f, .trust = 1e-3f},
                                         Sgd{.lr = 0.6f, .weight_decay = 1e-2f, .trust = 1e-1f, .nesterov = true}));

TEST(AdamWUpdate, FiveStepsMatchTheAlgorithm) {
  Parameters parameters;
  AdamW spec{.lr = 2e-3f, .weight_decay = 0.05f};
  std::vector<Doubles> p, m, v;
  for (const auto& tensor : parameters.p) {
    p.emplace_back(tensor.begin(), tensor.end());
    m.emplace_back(tensor.size(), 0.);
    v.emplace_back(tensor.size(), 0.);
  }
  for (spec.step = 1; spec.step <= 5; ++spec.step) {
    backend(Device::cpu).run(AdamWUpdate{spec, parameters.slots});
    for (size_t t = 0; t < p.size(); ++t) {
      for (size_t i = 0; i < p[t].size(); ++i) {
        const double g = parameters.g[t][i], b1 = spec.beta1, b2 = spec.beta2;
        m[t][i] = b1 * m[t][i] + (1 - b1) * g;
        v[t][i] = b2 * v[t][i] + (1 - b2) * g * g;
        const double m_hat = m[t][i] / (1 - std::pow(b1, spec.step)), v_hat = v[t][i] / (1 - std::pow(b2, spec.step));
        p[t][i] = p[t][i] * (1 - double{spec.lr} * double{spec.weight_decay}) -
                  double{spec.lr} * m_hat / (std::sqrt(v_hat) + double{spec.eps});
      }
    }
  }
  for (size_t t = 0; t < p.size(); ++t) {
    expect_near(parameters.p[t], p[t], 2e-6, 2e-6, "parameter");
    expect_near(parameters.m[t], m[t], 1e-5, 1e-7, "first moment");
    expect_near(parameters.v[t], v[t], 1e-4, 1e-9, "second moment");
  }
}

/// One round of Philox4x32 after the other, as the paper writes it.
std::vector<uint32_t> philox(uint64_t key, uint64_t stream, uint64_t block) {
  uint64_t c[4] = {block & 0xffffffff, block >> 32, stream & 0xffffffff, stream >> 32};
  uint64_t k[2] = {key & 0xffffffff, key >> 32};
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = 0xD2511F53u * c[0], p1 = 0xCD9E8D57u * c[2];
    const uint64_t next[4] = {(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xffffffff, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xffffffff};
    std::copy(next, next + 4, c);
    k[0] = (k[0] + 0x9E3779B9u) & 0xffffffff, k[1] = (k[1] + 0xBB67AE85u) & 0xffffffff;
  }
  return {c, c + 4};
}

TEST(BFloat16Momentum, RoundsByItsOwnRandomNumbersWhateverTheThreadsAndTheGrouping) {
  // Philox4x32-10 of zeros, from Random123's known answers.
  ASSERT_EQ(philox(0, 0, 0), (std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  const uint64_t seed = 0x123456789abcdef0, stream = 0xfedcba9876543210;
  for (const bool nesterov : {false, true}) {
    const Sgd spec{.lr = 0.1f, .nesterov = nesterov, .momentum_dtype = DType::bf16, .rounding_seed = seed};
    const int64_t n = 40001;
    const auto start = floats(normal(n, 1)), gradient = floats(normal(n, 2, 0, 0.1));
    Array momentum = array(DType::bf16, normal(n, 3));
    momentum.bytes[2 * 77] = 0x80, momentum.bytes[2 * 77 + 1] = 0x7f;  // infinity
    momentum.bytes[2 * 78] = 0xc0, momentum.bytes[2 * 78 + 1] = 0x7f;  // NaN
    momentum.refresh();
    const Array before = momentum;
    std::vector<float> p = start, other(100, 1.f), q = start;
    Array other_momentum = array(DType::bf16, std::vector<double>(100, 0.)), again = before;
    with_threads(2, [&] {
      backend(Device::cpu)
          .run(SgdUpdate{spec, std::vector<ParameterSlot>{
                                   {other.data(), gradient.data(), other_momentum.data(), nullptr, 100, stream + 1},
                                   {p.data(), gradient.data(), momentum.data(), nullptr, n, stream}}});
    });
    with_threads(1, [&] {
      backend(Device::cpu)
          .run(SgdUpdate{spec,
                         std::vector<ParameterSlot>{{q.data(), gradient.data(), again.data(), nullptr, n, stream}}});
    });
    EXPECT_EQ(momentum.bytes, again.bytes);
    EXPECT_EQ(std::memcmp(p.data(), q.data(), p.size() * sizeof(float)), 0);
    momentum.refresh();
    int64_t differ_from_nearest = 0, last_bits = 0;
    for (int64_t i = 0; i < n; ++i) {
      const float m = static_cast<float>(before[i]) * spec.momentum + gradient[i],
                  fused = std::fma(static_cast<float>(before[i]), spec.momentum, gradient[i]);
      if (!std::isfinite(m)) {
        ASSERT_EQ(momentum.bytes[2 * i], before.bytes[2 * i]);
        ASSERT_EQ(momentum.bytes[2 * i + 1], before.bytes[2 * i + 1]);
        continue;
      }
      const uint32_t random = philox(seed, stream, i / 64 * 16 + i % 16)[i / 16 % 4] >> 16;
      const auto rounded = [&](float v) { return static_cast<uint16_t>((std::bit_cast<uint32_t>(v) + random) >> 16); };
      uint16_t got;
      std::memcpy(&got, &momentum.bytes[2 * i], 2);
      ASSERT_TRUE(got == rounded(m) || got == rounded(fused)) << "element " << i;
      differ_from_nearest += got != BFloat16::from(m).bits;
      last_bits += got & 1;
      const double step = nesterov ? gradient[i] + double{spec.momentum} * m : m;
      ASSERT_NEAR(p[i], start[i] - double{spec.lr} * step, 1e-6);
    }
    EXPECT_NEAR(double(differ_from_nearest) / double(n), 0.25, 0.02);  // the mean distance to the nearest, in ulp
    EXPECT_NEAR(double(last_bits) / double(n), 0.5, 0.02);
  }
}

TEST(BFloat16Momentum, KeepsTheMeanOfUpdatesThatNearestRoundingWouldLose) {
  const int64_t n = 4096;
  std::vector<float> p(n, 0.f), g(n, 1.f / 2048);
  Array m = array(DType::bf16, std::vector<double>(n, 1.));
  for (int step = 0; step < 64; ++step) {
    const Sgd spec{.lr = 0.f, .momentum = 1.f, .momentum_dtype = DType::bf16, .rounding_seed = uint64_t(step)};
    backend(Device::cpu)
        .run(SgdUpdate{spec, std::vector<ParameterSlot>{{p.data(), g.data(), m.data(), nullptr, n, 5}}});
  }
  m.refresh();
  double mean = 0;
  for (const double v : m.values) mean += v / double(n);
  EXPECT_NEAR(mean, 1 + 64. / 2048, 1e-3);  // deviation: sqrt(64 * 1/16) / 256 ulps' worth / sqrt(4096) = 1e-4
}

TEST(BFloat16Momentum, AHalfIsRefusedInASentence) {
  try {
    backend(Device::cpu).run(SgdUpdate{Sgd{.momentum_dtype = DType::f16}, {}});
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "sgd: expected a momentum of f32 or bf16, got f16");
  }
}

TEST(Unscale, MultipliesEveryGradientAndTellsOfTheFirstThatIsNotFinite) {
  Backend& cpu = backend(Device::cpu);
  const float factor = 1.f / 1024;
  for (const float bad : {0.f, INFINITY, -INFINITY, NAN})
    for (const int64_t place : {0, 16383, 16384, 39999, 40000}) {
      std::vector<std::vector<float>> tensors = {floats(normal(3, 1)), floats(normal(40001, 2)), {}};
      tensors[1][static_cast<size_t>(place)] = bad;
      const auto before = tensors;
      std::vector<GradientSlot> slots;
      for (auto& t : tensors) slots.push_back({t.data(), static_cast<int64_t>(t.size())});
      float nonfinite = 0.f;
      cpu.run(Unscale{factor, slots, &nonfinite});
      EXPECT_EQ(nonfinite, bad == 0.f ? 0.f : 1.f) << bad << " at " << place;
      for (size_t t = 0; t < tensors.size(); ++t)
        for (size_t i = 0; i < tensors[t].size(); ++i)
          if (std::isfinite(before[t][i])) {
            ASSERT_EQ(tensors[t][i], before[t][i] * factor);
          }
    }
  // What an earlier call found stays.
  std::vector<float> fine = {1.f, 3e38f};
  float nonfinite = 1.f;
  cpu.run(Unscale{factor, std::vector<GradientSlot>{{fine.data(), 2}}, &nonfinite});
  EXPECT_EQ(nonfinite, 1.f);
}

TEST(Optimizers, ThreadsDoNotChangeABit) {
  Parameters one, two;
  const Sgd larc{.lr = 0.6f, .weight_decay = 1e-2f, .trust = 1e-2f};
  with_threads(1, [&] { backend(Device::cpu).run(SgdUpdate{larc, one.slots}); });
  with_threads(2, [&] { backend(Device::cpu).run(SgdUpdate{larc, two.slots}); });
  EXPECT_EQ(one.p, two.p);
  EXPECT_EQ(one.m, two.m);
}

TEST(MovingAverageUpdate, FollowsEveryTensorByItsShareWhateverTheThreads) {
  Parameters one(false), two(false);
  std::vector<AverageSlot> of_one, of_two;
  std::vector<Doubles> want;
  const float momentum = 0.996f;
  for (size_t i = 0; i < one.p.size(); ++i) {
    const auto n = static_cast<int64_t>(one.p[i].size());
    of_one.push_back({one.p[i].data(), one.g[i].data(), n});
    of_two.push_back({two.p[i].data(), two.g[i].data(), n});
    Doubles& average = want.emplace_back();
    for (size_t k = 0; k < one.p[i].size(); ++k)
      average.push_back(double{momentum} * one.p[i][k] + (1 - double{momentum}) * one.g[i][k]);
  }
  with_threads(1, [&] { backend(Device::cpu).run(MovingAverage{momentum, of_one}); });
  with_threads(2, [&] { backend(Device::cpu).run(MovingAverage{momentum, of_two}); });
  EXPECT_EQ(one.p, two.p);
  for (size_t i = 0; i < want.size(); ++i) expect_near(one.p[i], want[i], 1e-6, 1e-7, "average");
}

}  // namespace
}  // namespace saccade::kernels
