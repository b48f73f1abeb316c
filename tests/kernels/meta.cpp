// The rehearsal: costs without memory, workspaces of the device rehearsed.
#include "arrays.h"

namespace saccade::kernels {
namespace {

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
  const Cost cost = cost_of([&](Backend& b) { b.conv2d_forward(conv, in, nullptr, nullptr, nullptr, nullptr); });
  const double out_rows = 2 * 16 + 4 * 4, weights = 32 * 9 * 8;
  EXPECT_EQ(cost.flops, 2 * out_rows * weights);
  EXPECT_EQ(cost.bytes_moved, 4 * (192 * 16 + out_rows * 32 + weights));
  const Cost backward = cost_of([&](Backend& b) {
    b.conv2d_backward_data(conv, in, nullptr, nullptr, nullptr, nullptr);
    b.conv2d_backward_weight(conv, in, nullptr, nullptr, nullptr, nullptr);
  });
  EXPECT_EQ(backward.flops, 2 * cost.flops);
}

TEST(Meta, AWeightGradientIsFloatWhateverTheImagesAre) {
  const Conv2d conv{16, 32, 3, 1, 1, 2, DType::bf16};
  const Segments in = {{2, 8, 8}};
  const double images = 2. * 128 * (16 + 32), weights = 32 * 9 * 8;
  EXPECT_EQ(
      cost_of([&](Backend& b) { b.conv2d_backward_data(conv, in, nullptr, nullptr, nullptr, nullptr); }).bytes_moved,
      images + 2 * weights);
  EXPECT_EQ(
      cost_of([&](Backend& b) { b.conv2d_backward_weight(conv, in, nullptr, nullptr, nullptr, nullptr); }).bytes_moved,
      images + 4 * weights);
  EXPECT_EQ(cost_of([&](Backend& b) { b.column_sum(DType::f16, 10, 6, nullptr, nullptr); }).bytes_moved, 144);
}

TEST(Meta, ApplyingABatchNormReadsAndWritesTheImagesOnce) {
  const BatchNorm norm{8, 1e-5f, 0.1f, true, DType::bf16};
  const Segments in = {{2, 4, 4}, {1, 2, 2}};
  EXPECT_EQ(cost_of([&](Backend& b) {
              b.batch_norm_apply(norm, in, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr);
            }).bytes_moved,
            2 * 2 * 36 * 8 + 4 * (2 + 2 * 2) * 8);
}

TEST(Meta, AMatrixProductReadsCOnlyToAddToIt) {
  MatMul spec{5, 7, 11};
  EXPECT_EQ(cost_of([&](Backend& b) { b.matmul(spec, nullptr, nullptr, nullptr, nullptr, nullptr); }).bytes_moved,
            4 * (5 * 11 + 11 * 7 + 5 * 7));
  spec.beta = 1;
  const Cost cost = cost_of([&](Backend& b) { b.matmul(spec, nullptr, nullptr, nullptr, nullptr, nullptr); });
  EXPECT_EQ(cost.bytes_moved, 4 * (5 * 11 + 11 * 7 + 2 * 5 * 7));
  EXPECT_EQ(cost.flops, 2 * 5 * 7 * 11);
}

TEST(Meta, WorkspacesAreThoseOfTheCpu) {
  Backend &meta = backend(Device::meta), &cpu = backend(Device::cpu);
  const Segments in = {{2, 24, 24}, {4, 12, 12}};
  for (const int64_t channels : {3, 48, 440}) {
    const BatchNorm norm{channels, 1e-5f, 0.1f, true, DType::f32};
    EXPECT_GT(meta.batch_norm_workspace(norm, in), 0u);
    EXPECT_EQ(meta.batch_norm_workspace(norm, in), cpu.batch_norm_workspace(norm, in));
  }
  const Sinkhorn sinkhorn{64, 300, 0.05f, 3};
  EXPECT_GT(meta.sinkhorn_workspace(sinkhorn), 0u);
  EXPECT_EQ(meta.sinkhorn_workspace(sinkhorn), cpu.sinkhorn_workspace(sinkhorn));
  const Conv2d conv{48, 48, 3, 1, 1, 6, DType::f32};
  for (const ConvPass pass : {ConvPass::forward, ConvPass::backward_data, ConvPass::backward_weight}) {
    EXPECT_EQ(meta.conv2d_workspace(conv, in, pass), cpu.conv2d_workspace(conv, in, pass));
  }
}

TEST(Meta, EverythingElseMovesBytesAndTakesNullPointers) {
  const Segments in = {{2, 4, 4}};
  const Cost cost = cost_of([&](Backend& b) {
    b.global_avg_pool_forward(in, 8, DType::bf16, nullptr, nullptr);        // 2 * (32 + 2) * 8
    b.channel_scale_forward(in, 8, DType::f32, nullptr, nullptr, nullptr);  // 4 * (2 * 32 + 2) * 8
    b.cast(DType::f32, DType::f16, 10, nullptr, nullptr);                   // 60
    b.add(DType::f32, 10, nullptr, nullptr, nullptr);                       // 120
    b.sinkhorn_assign({4, 6}, nullptr, nullptr, nullptr);                   // 4 * (2 * 4 + 1) * 6
  });
  EXPECT_EQ(cost.flops, 0);
  EXPECT_EQ(cost.bytes_moved, 544 + 2112 + 60 + 120 + 216);
  const std::vector<ParameterSlot> slots = {{nullptr, nullptr, nullptr, nullptr, 100}};
  float momentum[1] = {};  // given, never read
  const std::vector<ParameterSlot> with_momentum = {{nullptr, nullptr, momentum, nullptr, 100}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.sgd({}, slots); }).bytes_moved, 1200);
  EXPECT_EQ(cost_of([&](Backend& b) { b.sgd({}, with_momentum); }).bytes_moved, 2000);
  EXPECT_EQ(cost_of([&](Backend& b) { b.sgd({.momentum_dtype = DType::bf16}, with_momentum); }).bytes_moved, 1600);
  EXPECT_EQ(cost_of([&](Backend& b) { b.adamw({}, slots); }).bytes_moved, 2800);
  const std::vector<GradientSlot> gradients = {{nullptr, 100}, {nullptr, 20}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.unscale(0.5f, gradients, nullptr); }).bytes_moved, 8 * 120 + 4);
  const Segments crops = {{2, 3, 4}, {1, 2, 2}};
  EXPECT_EQ(cost_of([&](Backend& b) { b.crops_to_batch(crops, 3, nullptr, {}, DType::bf16, nullptr); }).bytes_moved,
            28 * 3 * (1 + 2));
}

}  // namespace
}  // namespace saccade::kernels
