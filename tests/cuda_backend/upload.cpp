// Batches on their way to the device, while the device still has to do what it was asked before.
#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>

#include <cstring>
#include <deque>
#include <vector>

#include "device_under_test.h"

namespace saccade::testing {
namespace {

constexpr int kBatches = 24;
const Segments kCrops = {{4, 8, 8}, {6, 5, 5}};

/// As a loader delivers it: each batch in the same memory as the one before.
void fill(Batch& batch, DType dtype, uint64_t iteration, int64_t channels) {
  batch.iteration = static_cast<int64_t>(iteration);
  if (!batch.images.defined()) batch.images = Tensor::images(kCrops, channels, dtype);
  Philox random(5, iteration);
  if (dtype == DType::u8) {
    for (uint8_t& byte : batch.images.data<uint8_t>()) byte = static_cast<uint8_t>(random.next_u32());
    batch.scale = {{0.017f, 0.0175f, 0.0174f}, {-2.1f, -2.03f, -1.8f}};
  } else {
    for (float& value : batch.images.data<float>()) value = random.normal();
  }
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() && a.segments() == b.segments() &&
         std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// Sends batches to the device, of which the last `held` are kept there; works with each when it arrives and once more
/// when it is let go, and looks at the results when all has been asked for.
void send(DType dtype, DType numbers, size_t held) {
  BatchUpload upload(Device::cuda, numbers), on_host(Device::cpu, numbers);
  Batch batch;
  std::vector<Tensor> expected, arrived, left;
  std::deque<Tensor> kept;
  const auto let_go = [&] {
    left.push_back(scale(kept.front(), 1.f));
    kept.pop_front();
  };
  for (uint64_t i = 0; i < kBatches; ++i) {
    fill(batch, dtype, i, 3);
    expected.push_back(on_host(batch).images.clone());
    const Batch there = upload(batch);
    EXPECT_EQ(there.images.device(), Device::cuda);
    EXPECT_EQ(there.iteration, static_cast<int64_t>(i));
    kept.push_back(there.images);
    const DeviceScope device(Device::cuda);
    arrived.push_back(scale(there.images, 1.f));
    if (kept.size() > held) let_go();
  }
  const DeviceScope device(Device::cuda);
  while (!kept.empty()) let_go();
  for (size_t i = 0; i < kBatches; ++i) {
    EXPECT_TRUE(same_bits(arrived[i].to(Device::cpu), expected[i])) << "batch " << i << " on arrival";
    EXPECT_TRUE(same_bits(left[i].to(Device::cpu), expected[i])) << "batch " << i << " when it was let go";
  }
  EXPECT_EQ(complaint(), "");
}

// "Training" in the name: it runs under several orders of the streams.
TEST(CudaTrainingBatches, NumbersArriveIntactAndAreNotWrittenOverBeforeTheirUse) {
  for (const size_t held : {0, 1, 3}) send(DType::f32, DType::f32, held);
}

TEST(CudaTrainingBatches, BytesBecomeTheCpusNumbersAndAreNotWrittenOverBeforeTheirUse) {
  for (const DType numbers : {DType::f32, DType::f16, DType::bf16})
    for (const size_t held : {0, 1, 3}) send(DType::u8, numbers, held);
}

TEST(CudaTrainingBatches, OfBytesOneBatchAndItsNumbersLieOnTheDevice) {
  const auto live = [] { return allocator(Device::cuda).stats()[Tag::batch].live; };
  constexpr int64_t kSlack = 2 * 512;  // blocks are rounded up
  const int64_t values = total_rows(kCrops) * 3;
  for (const auto& [dtype, bytes] : {std::pair{DType::u8, values * (1 + 4)}, {DType::f32, values * 2 * 4}}) {
    const int64_t before = live();
    BatchUpload upload(Device::cuda);
    Batch batch;
    for (uint64_t i = 0; i < 6; ++i) {
      fill(batch, dtype, i, 3);
      const Batch there = upload(batch);
    }
    EXPECT_GE(live() - before, bytes) << name_of(dtype);
    EXPECT_LE(live() - before, bytes + kSlack) << name_of(dtype);
  }
  EXPECT_EQ(complaint(), "");
}

}  // namespace
}  // namespace saccade::testing
