// Multi-tensor updates, random numbers and input in the emulator against the CPU.
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>

#include <algorithm>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

/// More tensors than go along with one launch, of sizes below and above a piece; one begins off alignment.
struct Parameters {
  std::vector<std::vector<float>> p, g, m, v;
  std::vector<std::vector<uint16_t>> brain;
  std::vector<ParameterSlot> slots;

  explicit Parameters(DType momentum, bool with_states) {
    for (int i = 0; i < 67; ++i) {
      const int64_t n = i == 5 ? 40001 : i == 66 ? 16384 : 1 + i * 13 % 200;
      const auto seed = static_cast<uint32_t>(i);
      p.push_back(floats(normal(n + 1, seed)));
      g.push_back(floats(normal(n + 1, seed + 1000, 0, 0.1)));
      m.emplace_back(static_cast<size_t>(n + 1), 0.f);
      v.emplace_back(static_cast<size_t>(n + 1), 0.f);
      brain.emplace_back(static_cast<size_t>(n + 1), uint16_t{0});
    }
    std::fill(p[3].begin(), p[3].end(), 0.f);  // as a fresh bias: LARC leaves its gradient alone
    std::fill(g[2].begin(), g[2].end(), 0.f);  // as a frozen tensor
    for (size_t i = 0; i < p.size(); ++i) {
      const size_t from = i % 2;
      void* state = momentum == DType::bf16 ? static_cast<void*>(brain[i].data() + from) : m[i].data() + from;
      slots.push_back({p[i].data() + from, g[i].data() + from, with_states ? state : nullptr,
                       with_states ? v[i].data() + from : nullptr, static_cast<int64_t>(p[i].size()) - 1, i * 77});
    }
  }
};

TEST(CudaOptimizers, SgdAndLarcEqualTheCpu) {
  for (const Sgd base : {Sgd{.lr = 0.1f, .momentum = 0.f}, Sgd{.lr = 0.1f, .weight_decay = 1e-2f},
                         Sgd{.lr = 0.1f, .weight_decay = 1e-2f, .nesterov = true},
                         Sgd{.lr = 0.6f, .weight_decay = 1e-2f, .trust = 1e-1f, .nesterov = true},
                         Sgd{.lr = 0.6f, .weight_decay = 1e-6f, .trust = 1e-3f}}) {
    for (const DType momentum : {DType::f32, DType::bf16}) {
      Sgd spec = base;
      spec.momentum_dtype = momentum;
      const bool with_states = spec.momentum > 0;
      Parameters want(momentum, with_states), got(momentum, with_states);
      auto before = want.brain;
      for (int step = 0; step < 2; ++step) {
        before = want.brain;
        spec.rounding_seed = static_cast<uint64_t>(step) + 99;
        cpu().run(SgdUpdate{spec, want.slots});
        Workspace workspace(cuda::workspace(SgdUpdate{spec, got.slots}));
        cuda::run(stream, SgdUpdate{spec, got.slots, workspace.data()});
      }
      for (size_t i = 0; i < want.p.size(); ++i) {
        expect_same(got.m[i], want.m[i], "momentum");
        // A last bit of the sum may carry through the random bits: a momentum's neighbour, now and then, in bf16. The
        // next step takes that one from the first step to the parameter.
        size_t different = 0, moved = 0;
        for (size_t k = 0; k < want.p[i].size(); ++k) {
          different += got.brain[i][k] != want.brain[i][k] ? 1 : 0;
          const double neighbour = 0x1p-7 * std::abs(double{BFloat16{before[i][k]}.to_float()});
          const double off = std::abs(double{got.p[i][k]} - double{want.p[i][k]});
          const double rounding = 2e-6 * (1 + std::abs(double{want.p[i][k]}));
          moved += off > rounding ? 1 : 0;
          EXPECT_LE(off, rounding + double{spec.lr} * neighbour) << i << ", " << k;
        }
        const size_t few = momentum == DType::bf16 ? 1 + want.p[i].size() / 1000 : 0;
        EXPECT_LE(different, few) << i;
        EXPECT_LE(moved, few) << i;
      }
    }
  }
}

TEST(CudaOptimizers, AdamWEqualsTheCpu) {
  Parameters want(DType::f32, true), got(DType::f32, true);
  AdamW spec{.lr = 2e-3f, .weight_decay = 0.05f};
  for (spec.step = 1; spec.step <= 3; ++spec.step) {
    cpu().run(AdamWUpdate{spec, want.slots});
    cuda::run(stream, AdamWUpdate{spec, got.slots});
  }
  for (size_t i = 0; i < want.p.size(); ++i) {
    expect_same(got.p[i], want.p[i], "parameter");
    expect_same(got.m[i], want.m[i], "first moment");
    expect_same(got.v[i], want.v[i], "second moment");
  }
}

TEST(CudaOptimizers, UnscaleMultipliesAndTellsOfWhatIsNotFinite) {
  Parameters parameters(DType::f32, false);
  auto want = parameters.g;
  for (auto& tensor : want) {
    for (float& g : tensor) g *= 0.25f;
  }
  std::vector<GradientSlot> slots;
  for (size_t i = 0; i < 67; ++i) slots.push_back({parameters.g[i].data(), int64_t(parameters.g[i].size())});
  for (size_t i = 0; i < 70; ++i) slots.push_back({nullptr, 0});
  float flag = 0;
  run(stream, Unscale{0.25f, slots, &flag});
  EXPECT_EQ(flag, 0);
  EXPECT_EQ(parameters.g, want);
  for (const float bad : {INFINITY, -INFINITY, NAN}) {
    flag = 0;
    parameters.g[5][40000] = bad;
    run(stream, Unscale{1.f, slots, &flag});
    EXPECT_EQ(flag, 1);
    parameters.g[5][40000] = 0;
    run(stream, Unscale{1.f, slots, &flag});
    EXPECT_EQ(flag, 1) << "the flag of an earlier call is kept";
  }
}

TEST(CudaOptimizers, AMovingAverageEqualsTheCpu) {
  Parameters want(DType::f32, false), got(DType::f32, false);
  const auto slots_of = [](Parameters& of) {
    std::vector<AverageSlot> slots;
    for (const ParameterSlot& s : of.slots) slots.push_back({s.parameter, s.gradient, s.elements});
    return slots;
  };
  for (const float momentum : {0.996f, 0.f, 1.f}) {
    cpu().run(MovingAverage{momentum, slots_of(want)});
    run(stream, MovingAverage{momentum, slots_of(got)});
    for (size_t i = 0; i < want.p.size(); ++i) expect_same(got.p[i], want.p[i], "average");
  }
}

TEST(CudaInput, CropsBecomeTheNumbersOfTheCpu) {
  const PixelScale scale{{1 / (255 * 0.228f), 1 / (255 * 0.224f), 1 / (255 * 0.225f), 1}, {-2.1f, -2.f, -1.8f, 0}};
  for (const DType dtype : floating) {
    for (const auto& [height, width, channels] : {std::tuple{4, 96, 3}, {3, 5, 3}, {2, 7, 1}, {2, 9, 4}}) {
      const Segments segments = {{3, height, width}, {2, width, 3}};
      const int64_t n = total_rows(segments) * channels;
      std::vector<uint8_t> crops(static_cast<size_t>(n));
      for (size_t i = 0; i < crops.size(); ++i) crops[i] = static_cast<uint8_t>(i * 37 % 256);
      std::vector<double> want;
      for (int64_t i = 0; i < n; ++i)
        want.push_back(double{scale.factor[i % channels]} * crops[static_cast<size_t>(i)] +
                       double{scale.offset[i % channels]});
      Array y = unwritten(dtype, n), cpus = y;
      run(stream, CropsToBatch{segments, channels, crops.data(), scale, dtype, y.data()});
      y.refresh();
      expect_near(y, want, rounding(dtype), 1e-6, "numbers");
      cpu().run(CropsToBatch{segments, channels, crops.data(), scale, dtype, cpus.data()});
      EXPECT_EQ(y.bytes, cpus.bytes) << name_of(dtype) << ", " << channels << " channels";
    }
  }
  EXPECT_THROW(run(stream, CropsToBatch{{{1, 1, 6000}}, 3, nullptr, scale, DType::f32, nullptr}), Error);
}

}  // namespace
}  // namespace saccade::kernels::cuda
