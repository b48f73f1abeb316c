// What a network keeps in memory between forward and backward.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/ops.h>
#include <saccade/nn/regnet.h>

namespace saccade::nn {
namespace {

/// Bytes of activations that a block leaves live behind its forward, beside its input.
int64_t kept_bytes(RegNetBlock& block, const Segments& segments, int64_t in) {
  Tensor x = Tensor::images(segments, in);
  x.requires_grad_();
  const int64_t before = allocator(Device::meta).stats()[Tag::activations].live;
  const Tensor y = block(x);
  return allocator(Device::meta).stats()[Tag::activations].live - before;
}

// An eager framework keeps the inputs of three convolutions, three batch norms, ReLU and squeeze-excite: 7 maps of the
// block's output size U, and 14 where the block halves the resolution (V = 4U at the input's). Beside those maps there
// are only per-channel and per-image vectors.
TEST(Memory, ABottleneckBlockKeepsNoMoreThanTheEagerSet) {
  const DeviceScope meta(Device::meta);
  const int64_t width = 208;
  const RegNetStage stage = stages(regnet_spec("y_400mf"))[2];
  ASSERT_EQ(stage.width, width);
  const Segments segments = {{64, 14, 14}, {128, 6, 6}};
  const int64_t image_vectors = total_images(segments) * 4 * (2 * width + width) + 6 * width * 8 * 4;

  RegNetBlock same(width, stage, 1, 0.25, {});
  const int64_t u = total_rows(segments) * width * 4;
  EXPECT_LE(kept_bytes(same, segments, width), 7 * u + image_vectors);

  RegNetBlock first(104, stage, 2, 0.25, {});
  const Segments halved = {{64, 7, 7}, {128, 3, 3}};
  const int64_t half = total_rows(halved) * width * 4;
  EXPECT_LE(kept_bytes(first, segments, 104), 14 * half + image_vectors);
}

}  // namespace
}  // namespace saccade::nn
