// The meta device rehearses whole training steps.
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/random.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/methods/swav.h>

#include <array>

namespace saccade::ssl {
namespace {

/// Peak and live bytes by tag over three steps with a queue, counted from an empty start.
std::array<MemoryStats::Counter, kTags + 1> train(Device device) {
  const DeviceScope scope(device);
  allocator(device).reset_peaks();
  const MemoryStats before = allocator(device).stats();
  const int64_t batch = 6;
  SwAV model(nn::trunk("y:d=4,w0=16,wa=8,wm=2,g=8"),
             {.prototypes = 20, .hidden = 24, .dim = 16, .queue_length = 2 * batch});
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  std::array<MemoryStats::Counter, kTags + 1> result;
  for (int64_t i = 0; i < 3; ++i) {
    Batch b;
    {
      const TagScope tag(Tag::batch);
      b.images = Tensor::images({{2 * batch, 32, 32}, {3 * batch, 20, 20}}, 3);
    }
    if (device == Device::cpu) {
      Philox random(static_cast<uint64_t>(i));
      for (float& x : b.images.data<float>()) x = random.uniform(-1.f, 1.f);
    }
    b.indices.resize(batch);
    model.loss(b, i).backward();
    optimizer->step(0.1f);
    optimizer->zero_grad();
  }
  const MemoryStats after = allocator(device).stats();
  for (size_t t = 0; t <= kTags; ++t) {
    const auto& now = t < kTags ? after.by_tag[t] : after.total;
    const auto& then = t < kTags ? before.by_tag[t] : before.total;
    result[t] = {now.live - then.live, now.peak - then.live};
  }
  return result;
}

TEST(Memory, RehearsedTrainingNeedsTheBytesOfTheRealOneByTag) {
  const auto real = train(Device::cpu), meta = train(Device::meta);
  for (size_t t = 0; t <= kTags; ++t) {
    const auto name = t < kTags ? name_of(static_cast<Tag>(t)) : "all";
    EXPECT_EQ(real[t].live, meta[t].live) << name;
    EXPECT_EQ(real[t].peak, meta[t].peak) << name;
  }
  EXPECT_GT(real[kTags].peak, 0);
}

TEST(Memory, TheArenaIsHardlyLargerThanWhatIsInUse) {
  const DeviceScope scope(Device::meta);
  Allocator& meta = allocator(Device::meta);
  meta.trim();
  meta.reset_peaks();
  SwAV model(nn::trunk("y_400mf"), {.prototypes = 300, .hidden = 512, .dim = 128});
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  Batch batch;
  {
    const TagScope tag(Tag::batch);
    batch.images = Tensor::images({{16, 96, 96}, {32, 48, 48}}, 3);
  }
  batch.indices.resize(8);
  for (int64_t i = 0; i < 3; ++i) {
    model.loss(batch, i).backward();
    optimizer->step(0.1f);
    optimizer->zero_grad();
  }
  const MemoryStats stats = meta.stats();
  EXPECT_LE(static_cast<double>(stats.peak_reserved), 1.02 * static_cast<double>(stats.total.peak));
}

}  // namespace
}  // namespace saccade::ssl
