// What the kernels move, counted in the emulator: 32-byte sectors of global memory against the bytes that a call cannot
// do without, and conflicts in shared memory. Every memory-bound kernel is here.
#include <algorithm>
#include <memory>

#include "compare.h"

namespace saccade::kernels::cuda {
namespace {

/// Device memory begins at multiples of 256 bytes. Holds ones: no kernel's traffic depends on values.
class Memory {
 public:
  Memory(DType dtype, int64_t elements)
      : bytes_(static_cast<double>(elements) * static_cast<double>(size_of(dtype))),
        data_(std::aligned_alloc(256, (static_cast<size_t>(elements) * size_of(dtype) + 255) / 256 * 256)) {
    run(stream, Fill{dtype, elements, 1.f, data_.get()});
  }
  void* get() { return data_.get(); }
  float* floats() { return static_cast<float*>(data_.get()); }
  double bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  double bytes_;
  std::unique_ptr<void, Free> data_;
};

Memory floats_of(int64_t n) { return {DType::f32, n}; }
Memory scratch(size_t bytes) { return {DType::u8, static_cast<int64_t>(bytes) + 1}; }

/// Runs a call and holds all its kernels together to `bytes`, what it must at least read and write.
/// @param most   sectors by which it may be more: 1.1 for aligned shapes, 1.3 for odd ones
/// @param least  less than that has not been counted
template <class Call>
void expect_traffic(const char* name, double bytes, double most, Call call, double least = 0.999) {
  simt::options().measure = true;
  simt::reports().clear();
  call();
  simt::options().measure = false;
  double moved = 0;
  int conflict = 0;
  for (const simt::Report& report : simt::reports()) {
    moved += 32 * report.sectors();
    conflict = std::max(conflict, report.worst_conflict);
  }
  EXPECT_LE(moved, most * bytes) << name << "\n" << simt::describe(simt::reports());
  EXPECT_GE(moved, least * bytes) << name << ": memory is touched behind the emulator's back\n"
                                  << simt::describe(simt::reports());
  EXPECT_LE(conflict, 2) << name << "\n" << simt::describe(simt::reports());
  if (std::getenv("SACCADE_TRAFFIC") != nullptr) {
    std::printf("%-34s %10.0f bytes, moved %.3f times\n", name, bytes, moved / bytes);
  }
}

#if defined(__SANITIZE_THREAD__)
#define SACCADE_SKIP_UNDER_TSAN() GTEST_SKIP() << "counts are the same without the thread sanitizer"
#else
#define SACCADE_SKIP_UNDER_TSAN()
#endif

/// Rows of channels as in the stages of RegNets: multiples of a vector, and the odd widths of the largest.
struct Shape {
  DType dtype;
  int64_t channels;
  Segments segments;
  double most;
};

const Shape shapes[] = {
    {DType::f16, 48, {{24, 28, 28}}, 1.1},  {DType::f16, 104, {{8, 28, 28}, {16, 14, 14}}, 1.1},
    {DType::f16, 440, {{4, 24, 24}}, 1.1},  {DType::f32, 104, {{8, 24, 24}}, 1.1},
    {DType::bf16, 256, {{4, 28, 28}}, 1.1}, {DType::f16, 746, {{4, 16, 16}, {2, 8, 8}}, 1.3},
    {DType::f16, 1492, {{2, 16, 16}}, 1.3}, {DType::f16, 4103, {{4, 12, 12}}, 1.3},
    {DType::f32, 373, {{4, 16, 16}}, 1.3},
};

class Traffic : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override { SACCADE_SKIP_UNDER_TSAN(); }
  const Shape& shape() { return GetParam(); }
  int64_t rows() { return total_rows(shape().segments); }
  int64_t images() { return total_images(shape().segments); }
  Memory map() { return {shape().dtype, rows() * shape().channels}; }
  Memory per_image() { return {shape().dtype, images() * shape().channels}; }
};

TEST_P(Traffic, BatchNormReadsTwiceAndWritesOnce) {
  const Shape& s = shape();
  const BatchNorm spec{s.channels, 1e-5f, 0.1f, true, s.dtype};
  const auto segments = static_cast<int64_t>(s.segments.size());
  Memory x = map(), residual = map(), dy = map(), y = map(), dx = map(), dresidual = map();
  Memory gamma = floats_of(s.channels), beta = floats_of(s.channels), mean = floats_of(segments * s.channels),
         rstd = floats_of(segments * s.channels), dgamma = floats_of(s.channels), dbeta = floats_of(s.channels);
  Memory workspace = scratch(cuda::workspace(BatchNormMoments{spec, s.segments}));
  const double one = x.bytes();
  const auto forward = [&](void* added) {
    batch_norm_forward(OnCuda{}, spec, s.segments, x.get(), added, gamma.floats(), beta.floats(), mean.floats(),
                       rstd.floats(), nullptr, nullptr, y.get(), workspace.get());
  };
  const auto backward = [&](void* from_y, void* to_residual) {
    batch_norm_backward(OnCuda{}, spec, s.segments, x.get(), from_y, dy.get(), gamma.floats(), beta.floats(),
                        mean.floats(), rstd.floats(), dx.get(), to_residual, dgamma.floats(), dbeta.floats(),
                        workspace.get());
  };
  expect_traffic("batch_norm_forward", 3 * one, s.most, [&] { forward(nullptr); });
  expect_traffic("batch_norm_forward + residual", 4 * one, s.most, [&] { forward(residual.get()); });
  expect_traffic("batch_norm_backward", 5 * one, s.most, [&] { backward(nullptr, nullptr); });
  expect_traffic("batch_norm_backward from y", 7 * one, s.most, [&] { backward(y.get(), nullptr); });
  expect_traffic("batch_norm_backward + residual", 8 * one, s.most, [&] { backward(y.get(), dresidual.get()); });
  expect_traffic("batch_norm_apply", 2 * one, s.most, [&] {
    run(stream, BatchNormApply{spec, s.segments, x.get(), nullptr, gamma.floats(), beta.floats(), mean.floats(),
                               rstd.floats(), y.get()});
  });
  expect_traffic("batch_norm_inference", 2 * one, s.most, [&] {
    run(stream, BatchNormInference{spec, rows(), x.get(), nullptr, gamma.floats(), beta.floats(), mean.floats(),
                                   rstd.floats(), y.get()});
  });
}

TEST_P(Traffic, PoolingAndChannelScaleMoveEachOperandOnce) {
  const Shape& s = shape();
  Memory x = map(), dy = map(), y = map(), pooled = per_image(), scale = per_image();
  const double one = x.bytes(), few = pooled.bytes();
  expect_traffic("global_avg_pool_forward", one + few, s.most, [&] {
    run(stream, GlobalAvgPool{s.segments, s.channels, s.dtype, x.get(), pooled.get()});
  });
  expect_traffic("global_avg_pool_backward", one + few, s.most, [&] {
    run(stream, GlobalAvgPoolGradient{s.segments, s.channels, s.dtype, pooled.get(), y.get()});
  });
  expect_traffic("channel_scale_forward", 2 * one + few, s.most, [&] {
    run(stream, ChannelScale{s.segments, s.channels, s.dtype, x.get(), scale.get(), y.get()});
  });
  expect_traffic("channel_scale_backward_scale", 2 * one + few, s.most, [&] {
    run(stream, ChannelScaleFactorGradient{s.segments, s.channels, s.dtype, x.get(), dy.get(), scale.get()});
  });
  expect_traffic("channel_scale_backward_input", 2 * one + 2 * few, s.most, [&] {
    run(stream,
        ChannelScaleInputGradient{s.segments, s.channels, s.dtype, dy.get(), scale.get(), pooled.get(), y.get()});
  });
}

TEST_P(Traffic, MapsAndSumsMoveEachOperandOnce) {
  const Shape& s = shape();
  const int64_t n = rows() * s.channels;
  Memory x = map(), b = map(), y = map(), out = floats_of(s.channels), norm = floats_of(rows());
  const double one = x.bytes();
  expect_traffic("fill", one, 1.1, [&] { run(stream, Fill{s.dtype, n, 1.f, y.get()}); });
  expect_traffic("scale", 2 * one, 1.1, [&] { cuda::run(stream, kernels::Scale{s.dtype, n, x.get(), 2.f, y.get()}); });
  expect_traffic("add", 3 * one, 1.1, [&] {
    run(stream, Combine{Binary::add, s.dtype, n, x.get(), b.get(), y.get()});
  });
  expect_traffic("relu_backward", 3 * one, 1.1, [&] {
    run(stream, MapGradient{Unary::relu, s.dtype, n, x.get(), b.get(), y.get()});
  });
  Memory wide = floats_of(n);
  expect_traffic("cast", one + wide.bytes(), 1.1, [&] {
    cuda::run(stream, Cast{s.dtype, DType::f32, n, x.get(), wide.get()});
  });
  Memory workspace =
      scratch(std::max(cuda::workspace(Sum{s.dtype, n}), cuda::workspace(ColumnSum{s.dtype, rows(), s.channels})));
  expect_traffic("sum", one, 1.1, [&] { run(stream, Sum{s.dtype, n, x.get(), out.floats(), workspace.get()}); });
  expect_traffic("column_sum", one, s.most, [&] {
    run(stream, ColumnSum{s.dtype, rows(), s.channels, x.get(), out.floats(), workspace.get()});
  });
  // Up to these widths a row waits in registers; beyond it is read again.
  const double again = s.channels <= 1020 ? 1 : 2 - 1020. / static_cast<double>(s.channels);
  expect_traffic("l2_normalize_forward", (1 + again) * one + norm.bytes(), s.most, [&] {
    run(stream, L2Normalize{s.dtype, rows(), s.channels, 1e-6f, x.get(), y.get(), norm.floats()});
  });
  expect_traffic("log_sum_exp", one + norm.bytes(), s.most, [&] {
    run(stream, LogSumExp{s.dtype, rows(), s.channels, x.get(), norm.floats()});
  });
  Memory dout = floats_of(rows());
  expect_traffic("log_sum_exp_gradient", 2 * one + 16 * norm.bytes(), s.most, [&] {
    run(stream, LogSumExpGradient{s.dtype, rows(), s.channels, x.get(), norm.floats(), dout.floats(), y.get()});
  });
  const double both = s.channels <= 380 ? 2 : 4 - 2 * 380. / static_cast<double>(s.channels);
  expect_traffic("l2_normalize_backward", (1 + both) * one + norm.bytes(), s.most, [&] {
    run(stream, L2NormalizeGradient{s.dtype, rows(), s.channels, 1e-6f, x.get(), norm.floats(), b.get(), y.get()});
  });
}

INSTANTIATE_TEST_SUITE_P(Shapes, Traffic, testing::ValuesIn(shapes), [](const auto& info) {
  return std::string(name_of(info.param.dtype)) + "_" + std::to_string(info.param.channels);
});

TEST(TrafficOfMaxPool, ReadsThePixelsOfItsWindows) {
  SACCADE_SKIP_UNDER_TSAN();
  const Segments in = {{2, 32, 32}};
  const Conv2d window{64, 64, 3, 2, 1, 64, DType::f16};
  const Segment out = window.output(in[0]);
  Memory x(DType::f16, in[0].rows() * 64), y(DType::f16, out.rows() * 64), argmax(DType::u8, out.rows() * 64);
  // 9 pixels a window, less the padding's. Lanes side by side share some of them, in one instruction.
  const double windows = std::pow((3 * 16 - 1) / 48., 2) * 9;
  const auto bytes = [&](const Memory& m) { return m.bytes(); };
  expect_traffic(
      "max_pool_forward", windows * bytes(x) / 4 + bytes(y) + bytes(argmax), 1.1,
      [&] {
        run(stream, MaxPool{window, in, x.get(), y.get(), static_cast<uint8_t*>(argmax.get())});
      },
      0.75);
  expect_traffic(
      "max_pool_backward", windows * (bytes(y) + bytes(argmax)) + bytes(x), 1.1,
      [&] {
        run(stream, MaxPoolGradient{window, in, y.get(), static_cast<uint8_t*>(argmax.get()), x.get()});
      },
      0.75);
}

TEST(TrafficOfAssignments, ReadsTheScoresOnceAnIteration) {
  SACCADE_SKIP_UNDER_TSAN();
  for (const auto& [rows, prototypes, most] : {std::tuple{512, 1000, 1.1}, {512, 1001, 1.3}}) {
    const Sinkhorn spec{rows, prototypes, 0.05f, 2};
    Memory scores = floats_of(spec.rows * spec.prototypes), q = floats_of(spec.rows * spec.prototypes);
    Memory potentials = floats_of(spec.prototypes), workspace = scratch(cuda::workspace(SinkhornRows{spec}));
    // A part of 4 rows reads the potentials, but for the first time, and leaves a row of sums, written and read.
    const double of_parts = 2 * 2. / 4 + 1. / 4;
    expect_traffic("sinkhorn_potentials", (spec.iterations + of_parts) * scores.bytes(), most,
                   [&] { sinkhorn_potentials(OnCuda{}, spec, scores.floats(), potentials.floats(), workspace.get()); });
    // So few rows are a block each, which reads the potentials.
    expect_traffic("sinkhorn_assign", 2 * scores.bytes() + q.bytes(), most, [&] {
      run(stream, SinkhornAssign{spec, scores.floats(), potentials.floats(), q.floats()});
    });
  }
}

TEST(TrafficOfLosses, ReadsTheScoresOnceForLossAndGradient) {
  SACCADE_SKIP_UNDER_TSAN();
  for (const auto& [prototypes, most] : {std::pair{3000, 1.1}, {3001, 1.3}}) {
    const SwappedPrediction spec{8, 6, 2, prototypes, 0.1f};
    Memory scores = floats_of(48 * spec.prototypes), dscores = floats_of(48 * spec.prototypes);
    Memory q = floats_of(16 * spec.prototypes), loss = floats_of(1);
    Memory workspace = scratch(
        std::max(cuda::workspace(SwappedPredictionLoss{spec}), cuda::workspace(CrossEntropy{48, spec.prototypes})));
    // An assignment is read by each of the five crops that predict it.
    expect_traffic("swapped_prediction", scores.bytes() + dscores.bytes() + 5 * q.bytes(), most, [&] {
      run(stream,
          SwappedPredictionLoss{spec, scores.floats(), q.floats(), loss.floats(), dscores.floats(), workspace.get()});
    });
    Memory labels(DType::i32, 48);
    expect_traffic("cross_entropy", scores.bytes() + dscores.bytes(), most, [&] {
      run(stream, CrossEntropy{48, spec.prototypes, scores.floats(), static_cast<int32_t*>(labels.get()), loss.floats(),
                               dscores.floats(), workspace.get()});
    });
  }
}

TEST(TrafficOfOptimizers, MovesEachOperandOnce) {
  SACCADE_SKIP_UNDER_TSAN();
  const int64_t n = 100000;
  Memory p = floats_of(n), g = floats_of(n), m = floats_of(n), v = floats_of(n), brain(DType::bf16, n);
  const double one = p.bytes();
  const ParameterSlot slot{p.floats(), g.floats(), m.get(), v.get(), n, 0};
  const ParameterSlot rounded{p.floats(), g.floats(), brain.get(), nullptr, n, 0};
  expect_traffic("sgd", 5 * one, 1.1, [&] { cuda::run(stream, SgdUpdate{{}, {slot}, nullptr}); });
  Sgd larc{.trust = 1e-3f};
  Memory workspace = scratch(cuda::workspace(SgdUpdate{larc, {slot}}));
  expect_traffic("sgd with LARC", 7 * one, 1.1, [&] { cuda::run(stream, SgdUpdate{larc, {slot}, workspace.get()}); });
  Sgd brief{.momentum_dtype = DType::bf16};
  expect_traffic("sgd, momentum in bf16", 4 * one, 1.1, [&] {
    cuda::run(stream, SgdUpdate{brief, {rounded}, nullptr});
  });
  expect_traffic("adamw", 7 * one, 1.1, [&] { cuda::run(stream, AdamWUpdate{{}, {slot}}); });
  const GradientSlot gradient{g.floats(), n};
  float flag = 0;
  const AverageSlot average{p.floats(), g.floats(), n};
  expect_traffic("moving_average", 3 * one, 1.1, [&] { run(stream, MovingAverage{0.99f, {average}}); });
  expect_traffic("unscale", 2 * one, 1.1, [&] { run(stream, Unscale{0.5f, {gradient}, &flag}); });
}

TEST(TrafficOfInput, ReadsEachByteAndWritesEachNumberOnce) {
  SACCADE_SKIP_UNDER_TSAN();
  const PixelScale scale{{1, 1, 1, 1}, {0, 0, 0, 0}};
  for (const auto& [size, most] : {std::pair{96, 1.1}, {35, 1.3}}) {
    const int64_t n = int64_t{4} * size * size * 3;
    Memory crops(DType::u8, n), y(DType::f16, n);
    expect_traffic("crops_to_batch", crops.bytes() + y.bytes(), most, [&] {
      run(stream, CropsToBatch{{{4, size, size}}, 3, static_cast<uint8_t*>(crops.get()), scale, DType::f16, y.get()});
    });
  }
}

}  // namespace
}  // namespace saccade::kernels::cuda
