// The rehearsal: costs without memory, workspaces of the device rehearsed.
#include <support/given.h>

#include "arrays.h"

namespace saccade::kernels {
namespace {

using test::given;

/// What one call adds to the total.
template <class Call>
Cost cost_of(Call call) {
  const Cost before = meta_cost();
  call(backend(Device::meta));
  return {meta_cost().flops - before.flops, meta_cost().bytes_moved - before.bytes_moved};
}

TEST(Meta, AConvolutionCostsItsMultiplicationsAndEachOperandOnce) {
  const Conv2d conv{16, 32, 3, 2, 1, 2, DType::f32};
  const Segments in = {{2, 8, 8}, {4, 4, 4}};
  const Cost cost = cost_of([&](Backend& b) { b.run(given(Conv2dForward{conv, in})); });
  const double out_rows = 2 * 16 + 4 * 4, weights = 32 * 9 * 8;
  EXPECT_EQ(cost.flops, 2 * out_rows * weights);
  EXPECT_EQ(cost.bytes_moved, 4 * (192 * 16 + out_rows * 32 + weights));
  const Cost backward = cost_of([&](Backend& b) {
    b.run(given(Conv2dBackwardData{conv, in}));
    b.run(given(Conv2dBackwardWeight{conv, in}));
  });
  EXPECT_EQ(backward.flops, 2 * cost.flops);
}

TEST(Meta, AWeightGradientIsFloatWhateverTheImagesAre) {
  const Conv2d conv{16, 32, 3, 1, 1, 2, DType::bf16};
  const Segments in = {{2, 8, 8}};
  const double images = 2. * 128 * (16 + 32), weights = 32 * 9 * 8;
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(given(Conv2dBackwardData{conv, in})); }).bytes_moved, images + 2 * weights);
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.run(given(Conv2dBackwardWeight{conv, in}));
            }).bytes_moved,
            images + 4 * weights);
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(given(ColumnSum{DType::f16, 10, 6})); }).bytes_moved, 144);
}

TEST(Meta, ABatchNormReadsEachOfItsMapsOnceInAllItsParts) {
  const BatchNorm norm{8, 1e-5f, 0.1f, true, DType::bf16};
  const Segments in = {{2, 4, 4}, {1, 2, 2}};
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.run(given(BatchNormMoments{norm, in}));
              b.run(given(BatchNormMerge{norm, in}));
              b.run(given(BatchNormBackwardSums{norm, in}));
            }).bytes_moved,
            0);
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.run(given(BatchNormApply{norm, in}));
            }).bytes_moved,
            3 * 2 * 36 * 8 + 4 * (2 + 2 * 2) * 8);
}

TEST(Meta, AMatrixProductReadsCOnlyToAddToIt) {
  MatrixProduct product = given(MatrixProduct{{5, 7, 11}});
  const double bias = cost_of([&](Backend& b) { b.run(product); }).bytes_moved;
  product.bias = nullptr;
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(product); }).bytes_moved, 4 * (5 * 11 + 11 * 7 + 5 * 7));
  EXPECT_EQ(bias, 4 * (5 * 11 + 11 * 7 + 5 * 7 + 7));
  product.product.beta = 1;
  const Cost cost = cost_of([&](Backend& b) { b.run(product); });
  EXPECT_EQ(cost.bytes_moved, 4 * (5 * 11 + 11 * 7 + 2 * 5 * 7));
  EXPECT_EQ(cost.flops, 2 * 5 * 7 * 11);
}

TEST(Meta, WorkspacesAreThoseOfTheCpu) {
  Backend &meta = backend(Device::meta), &cpu = backend(Device::cpu);
  const Segments in = {{2, 24, 24}, {4, 12, 12}};
  for (const int64_t channels : {3, 48, 440}) {
    const BatchNorm norm{channels, 1e-5f, 0.1f, true, DType::f32};
    EXPECT_GT(meta.workspace(BatchNormMoments{norm, in}), 0u);
    EXPECT_EQ(meta.workspace(BatchNormMoments{norm, in}), cpu.workspace(BatchNormMoments{norm, in}));
    EXPECT_EQ(meta.workspace(BatchNormBackwardSums{norm, in}), cpu.workspace(BatchNormBackwardSums{norm, in}));
  }
  const SinkhornRows sinkhorn{{64, 300, 0.05f, 3}};
  EXPECT_GT(meta.workspace(sinkhorn), 0u);
  EXPECT_EQ(meta.workspace(sinkhorn), cpu.workspace(sinkhorn));
  const Conv2d conv{48, 48, 3, 1, 1, 6, DType::f32};
  EXPECT_EQ(meta.workspace(Conv2dForward{conv, in}), cpu.workspace(Conv2dForward{conv, in}));
  EXPECT_EQ(meta.workspace(Conv2dBackwardData{conv, in}), cpu.workspace(Conv2dBackwardData{conv, in}));
  EXPECT_EQ(meta.workspace(Conv2dBackwardWeight{conv, in}), cpu.workspace(Conv2dBackwardWeight{conv, in}));
}

TEST(Meta, EverythingElseMovesBytesAndTakesNullPointers) {
  const Segments in = {{2, 4, 4}};
  const Cost cost = cost_of([&](Backend& b) {
    b.run(given(GlobalAvgPool{in, 8, DType::bf16}));     // 2 * (32 + 2) * 8
    b.run(given(ChannelScale{in, 8, DType::f32}));       // 4 * (2 * 32 + 2) * 8
    b.run(given(Cast{DType::f32, DType::f16, 10}));      // 60
    b.run(given(Combine{Binary::add, DType::f32, 10}));  // 120
    b.run(given(SinkhornAssign{{4, 6}}));                // 4 * (2 * 4 + 1) * 6
  });
  EXPECT_EQ(cost.flops, 0);
  EXPECT_EQ(cost.bytes_moved, 544 + 2112 + 60 + 120 + 216);
  float value = 0;  // given, never read
  const std::vector<ParameterSlot> slots = {{&value, &value, nullptr, nullptr, 100}};
  const std::vector<ParameterSlot> with_momentum = {{&value, &value, &value, nullptr, 100}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(SgdUpdate{{}, slots}); }).bytes_moved, 1200);
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(SgdUpdate{{}, with_momentum}); }).bytes_moved, 2000);
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.run(SgdUpdate{{.momentum_dtype = DType::bf16}, with_momentum});
            }).bytes_moved,
            1600);
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(given(AdamWUpdate{{}, slots})); }).bytes_moved, 2800);
  const std::vector<AverageSlot> averages = {{&value, &value, 100}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(MovingAverage{0.9f, averages}); }).bytes_moved, 1200);
  const std::vector<GradientSlot> gradients = {{nullptr, 100}, {nullptr, 20}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(given(Unscale{0.5f, gradients, nullptr})); }).bytes_moved, 8 * 120 + 4);
  // Of a rehearsal all addresses are null: what is not optional counts.
  EXPECT_EQ(cost_of([&](Backend& b) { b.run(Combine{Binary::add, DType::f32, 10}); }).bytes_moved, 120);
  const Segments crops = {{2, 3, 4}, {1, 2, 2}};
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.run(given(CropsToBatch{crops, 3, nullptr, {}, DType::bf16, nullptr}));
            }).bytes_moved,
            28 * 3 * (1 + 2));
}

}  // namespace
}  // namespace saccade::kernels
