// Batches on their way to the device: numbers as they are, bytes as the numbers they stand for.
#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/kernels/backend.h>
#include <saccade/kernels/error.h>

#include <cstring>

namespace saccade {
namespace {

const kernels::PixelScale kScale{{0.017f, 0.0175f, 0.0174f}, {-2.1f, -2.03f, -1.8f}};

Batch batch_of_bytes(int64_t size, int channels = 3) {
  Batch batch;
  batch.images = Tensor::images({{size, 5, 7}, {2 * size, 3, 2}}, channels, DType::u8);
  uint8_t next = 0;
  for (uint8_t& byte : batch.images.data<uint8_t>()) byte = next = static_cast<uint8_t>(next * 5 + 3);
  batch.scale = kScale;
  batch.indices.resize(static_cast<size_t>(size));
  batch.iteration = 11;
  return batch;
}

TEST(BatchUpload, NumbersOnTheHostStayWhereTheyAre) {
  Batch batch;
  batch.images = Tensor::images({{2, 3, 3}}, 1);
  const void* before = batch.images.raw();
  BatchUpload upload(Device::cpu);
  EXPECT_EQ(upload(batch).images.raw(), before);
}

TEST(BatchUpload, BytesBecomeNumbersOfAnyDtype) {
  const Batch batch = batch_of_bytes(4);
  const auto bytes = batch.images.data<uint8_t>();
  std::vector<float> expected;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const volatile float product = static_cast<float>(bytes[i]) * kScale.factor[i % 3];  // rounded before the sum
    expected.push_back(product + kScale.offset[i % 3]);
  }
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    BatchUpload upload(Device::cpu, dtype);
    const Batch got = upload(batch);
    ASSERT_EQ(got.images.dtype(), dtype);
    EXPECT_EQ(got.images.segments(), batch.images.segments());
    EXPECT_EQ(got.iteration, 11);
    const Tensor numbers = Tensor::from(expected, batch.images.shape()).to(dtype);
    EXPECT_EQ(std::memcmp(got.images.raw(), numbers.raw(), numbers.bytes()), 0) << name_of(dtype);
  }
}

TEST(BatchUpload, NumbersOfABatchThatIsKeptAreNotWrittenOver) {
  BatchUpload upload(Device::cpu);
  const Batch kept = upload(batch_of_bytes(4));
  const Tensor copy = kept.images.clone();
  Batch other = batch_of_bytes(4);
  for (uint8_t& byte : other.images.data<uint8_t>()) byte = 0;
  const void* place = upload(other).images.raw();  // dropped at once: its memory is the next one's
  EXPECT_NE(place, kept.images.raw());
  EXPECT_EQ(upload(other).images.raw(), place);
  EXPECT_EQ(upload(batch_of_bytes(3)).images.raw(), place) << "a smaller one fits";
  EXPECT_EQ(std::memcmp(kept.images.raw(), copy.raw(), copy.bytes()), 0);
}

TEST(BatchUpload, AllocatesWhatTheRehearsalSays) {
  for (const Device device : {Device::cpu, Device::meta}) {
    const auto live = [&] { return allocator(device).stats()[Tag::batch].live; };
    const Batch batch = batch_of_bytes(4);
    const int64_t before = live();
    BatchUpload upload(device);
    const double moved = kernels::meta_cost().bytes_moved;
    const Batch got = upload(batch);
    EXPECT_EQ(got.images.device(), device);
    EXPECT_EQ(got.images.segments(), batch.images.segments());
    EXPECT_EQ(got.images.dtype(), DType::f32);
    const auto bytes = static_cast<int64_t>(got.images.bytes());
    EXPECT_EQ(live() - before, (bytes + 63) / 64 * 64) << name_of(device);
    if (device == Device::meta) {
      EXPECT_EQ(kernels::meta_cost().bytes_moved - moved, static_cast<double>(bytes / 4 + bytes));
    }
  }
}

TEST(BatchUpload, RefusesBytesThatItCannotRead) {
  BatchUpload upload(Device::cpu);
  Batch without_scale = batch_of_bytes(2);
  without_scale.scale = {};
  EXPECT_THROW(upload(without_scale), Error);
  EXPECT_THROW(upload(batch_of_bytes(2, 5)), Error);
}

}  // namespace
}  // namespace saccade
