#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/random.h>
#include <saccade/core/tensor.h>

#include <cstring>
#include <map>
#include <vector>

namespace saccade {
namespace {

TEST(Allocator, ReusesFreedMemoryAndMergesNeighbours) {
  Allocator a(true);
  const auto x = a.allocate(1000, Tag::activations), y = a.allocate(2000, Tag::activations),
             z = a.allocate(64, Tag::activations);
  const int64_t reserved = a.stats().reserved;
  a.release(x);
  a.release(y);
  const auto both = a.allocate(3000, Tag::activations);  // fits only where x and y have merged
  EXPECT_EQ(both.offset, x.offset);
  EXPECT_EQ(a.stats().reserved, reserved);
  a.release(both);
  a.release(z);
  EXPECT_EQ(a.stats().total.live, 0);
}

TEST(Allocator, CountsLiveAndPeakByTag) {
  Allocator a(true);
  const auto p = a.allocate(100, Tag::parameters);  // rounded to 128
  const auto w = a.allocate(64, Tag::workspace);
  a.release(w);
  EXPECT_EQ(a.stats()[Tag::parameters].live, 128);
  EXPECT_EQ(a.stats()[Tag::workspace].live, 0);
  EXPECT_EQ(a.stats()[Tag::workspace].peak, 64);
  EXPECT_EQ(a.stats().total.peak, 192);
  a.reset_peaks();
  EXPECT_EQ(a.stats().total.peak, 128);
  a.release(p);
}

TEST(Allocator, RefusesToGrowBeyondItsBudget) {
  Allocator a(true);
  a.set_budget(1 << 20);
  const auto half = a.allocate(1 << 19, Tag::parameters);
  try {
    a.allocate(1 << 20, Tag::activations);
    FAIL();
  } catch (const OutOfMemory& e) {
    EXPECT_NE(std::string(e.what()).find("budget"), std::string::npos) << e.what();
    EXPECT_NE(std::string(e.what()).find("parameters"), std::string::npos) << e.what();
  }
  a.release(a.allocate(1 << 19, Tag::activations));  // still usable, up to the last byte
  a.release(half);
}

TEST(Allocator, RefusesWhatNoMachineHas) {
  Allocator a(true);
  EXPECT_THROW(a.allocate(size_t{1} << 60, Tag::activations), OutOfMemory);
  EXPECT_THROW(a.allocate(~size_t{0}, Tag::activations), OutOfMemory);
  a.release(a.allocate(100, Tag::activations));
}

TEST(Allocator, MetaCountsExactlyAsReal) {
  Allocator real(true), meta(false);
  Philox random(3);
  std::vector<std::pair<Allocator::Block, Allocator::Block>> live;
  for (int i = 0; i < 3000; ++i) {
    if (live.empty() || random.uniform() < 0.55f) {
      const size_t bytes = random.below(100000);
      const auto tag = static_cast<Tag>(random.below(kTags));
      live.emplace_back(real.allocate(bytes, tag), meta.allocate(bytes, tag));
      ASSERT_EQ(live.back().second.data, nullptr);
      ASSERT_EQ(live.back().first.offset, live.back().second.offset);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(live.back().first.data) % 64, 0u);
      std::memset(live.back().first.data, i & 255, bytes);
    } else {
      const size_t at = random.below(static_cast<uint32_t>(live.size()));
      real.release(live[at].first);
      meta.release(live[at].second);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  EXPECT_EQ(real.stats().reserved, meta.stats().reserved);
  EXPECT_EQ(real.stats().total.peak, meta.stats().total.peak);
  // No two live blocks overlap.
  std::map<size_t, size_t> by_offset;
  for (const auto& [block, unused] : live) by_offset.emplace(block.offset, block.bytes);
  size_t end = 0;
  for (const auto& [offset, bytes] : by_offset) {
    EXPECT_GE(offset, end);
    end = offset + bytes;
  }
  for (const auto& [a, b] : live) {
    real.release(a);
    meta.release(b);
  }
}

TEST(Tensor, ViewsShareMemoryAndVersion) {
  const Tensor t = Tensor::zeros({4, 3});
  const Tensor row = t.slice(1, 2);
  row.fill(7.f);
  EXPECT_EQ(t.data<float>()[3], 7.f);
  EXPECT_EQ(t.version(), row.version());
  EXPECT_FALSE(t.owns_memory_alone());
  EXPECT_THROW(t.slice(3, 5), Error);
  EXPECT_THROW(t.reshape({5, 3}), Error);
  EXPECT_EQ(t.reshape({-1, 6}).shape(), (Shape{2, 6}));
}

TEST(Tensor, ImagesAreRowsWithSegments) {
  const Tensor t = Tensor::images({{2, 8, 8}, {3, 4, 4}}, 5);
  EXPECT_EQ(t.shape(), (Shape{176, 5}));
  EXPECT_THROW(Tensor::zeros({10, 5}).with_segments({{1, 3, 3}}), Error);
}

TEST(DType, HalfAndBFloat16RoundTripAndRoundToNearestEven) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const Half h{static_cast<uint16_t>(bits)};
    const BFloat16 b{static_cast<uint16_t>(bits)};
    if (h.to_float() == h.to_float()) {
      EXPECT_EQ(Half::from(h.to_float()).bits, h.bits);
    }
    if (b.to_float() == b.to_float()) {
      EXPECT_EQ(BFloat16::from(b.to_float()).bits, b.bits);
    }
  }
  EXPECT_EQ(Half::from(1.f + 0x1p-11f).bits, 0x3c00);  // a tie goes to even
  EXPECT_EQ(Half::from(1.f + 3 * 0x1p-11f).bits, 0x3c02);
  EXPECT_EQ(Half::from(65520.f).bits, 0x7c00);  // overflows
  EXPECT_EQ(Half::from(65519.f).bits, 0x7bff);
  EXPECT_EQ(BFloat16::from(1.f + 0x1p-8f).bits, 0x3f80);
}

}  // namespace
}  // namespace saccade
