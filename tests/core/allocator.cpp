#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/allocator.h>
#include <saccade/core/layer.h>
#include <saccade/core/random.h>
#include <saccade/core/tensor.h>
#include <saccade/kernels/memory.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

namespace saccade {
namespace {

using ::testing::HasSubstr;

/// Bytes of pages present in memory among `bytes` from `address`.
size_t resident(char* address, size_t bytes) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> present((bytes + page - 1) / page);
  EXPECT_EQ(mincore(address, bytes, present.data()), 0);
  return page * static_cast<size_t>(std::count_if(present.begin(), present.end(), [](int p) { return (p & 1) != 0; }));
}

TEST(Allocator, ReusesFreedMemoryAndMergesNeighbours) {
  Allocator a(&kernels::cpu_memory());
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
  Allocator a(&kernels::cpu_memory());
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
  Allocator a(&kernels::cpu_memory());
  a.set_budget(1 << 20);
  const auto half = a.allocate(1 << 19, Tag::parameters);
  EXPECT_THROW(a.allocate(1 << 20, Tag::activations), OutOfMemory);
  a.release(a.allocate(1 << 19, Tag::activations));  // still usable, up to the last byte
  a.release(half);
}

TEST(Allocator, RefusesWhatNoMachineHas) {
  Allocator a(&kernels::cpu_memory());
  EXPECT_THROW(a.allocate(size_t{1} << 60, Tag::activations), OutOfMemory);
  EXPECT_THROW(a.allocate(~size_t{0}, Tag::activations), OutOfMemory);
  a.release(a.allocate(100, Tag::activations));
}

TEST(Allocator, KeepsWhatLastsApartFromWhatPasses) {
  Allocator a(&kernels::cpu_memory());
  const auto first = a.allocate(1 << 20, Tag::activations), second = a.allocate(1 << 20, Tag::activations);
  a.release(first);
  const auto state = a.allocate(1 << 10, Tag::optimizer);  // not into the hole
  a.release(second);
  const auto both = a.allocate(2 << 20, Tag::activations);
  EXPECT_EQ(both.data, first.data);
  EXPECT_EQ(a.stats().reserved, (2 << 20) + (1 << 10));
  a.release(both);
  // Where the budget leaves no more, what once passed makes room for what lasts.
  a.set_budget(2 << 20);
  const auto big = a.allocate((2 << 20) - (1 << 10), Tag::parameters);
  EXPECT_EQ(a.stats().reserved, 2 << 20);
  EXPECT_THROW(a.allocate(1, Tag::activations), OutOfMemory);
  a.release(big);
  const auto again = a.allocate(1 << 20, Tag::activations);
  EXPECT_EQ(a.stats().reserved, (1 << 20) + (1 << 10));
  for (const auto& block : {state, again}) a.release(block);
}

TEST(Allocator, UnderABudgetPiecesMakeRoomForAWhole) {
  constexpr size_t mib = 1 << 20;
  for (const bool backed : {true, false}) {
    Allocator a(backed ? &kernels::cpu_memory() : nullptr);
    a.set_budget(32 * mib);
    std::vector<Allocator::Block> blocks;
    for (int i = 0; i < 8; ++i) {
      blocks.push_back(a.allocate(4 * mib, Tag::activations));
      if (backed) std::memset(blocks.back().data, 1, 4 * mib);
    }
    for (const size_t i : {1, 3, 5}) a.release(blocks[i]);
    const auto whole = a.allocate(12 * mib, Tag::activations);  // 12 MiB are free, in three pieces
    if (backed) {
      std::memset(whole.data, 2, 12 * mib);
      EXPECT_LE(resident(static_cast<char*>(blocks[0].data), 64 * mib), 32 * mib);
    }
    EXPECT_EQ(a.stats().reserved, int64_t{32 * mib});
    EXPECT_EQ(a.stats().peak_reserved, int64_t{32 * mib});
    EXPECT_THROW(a.allocate(mib, Tag::activations), OutOfMemory);
    a.release(whole);
    for (const size_t i : {1, 3, 5}) {
      blocks[i] = a.allocate(4 * mib, Tag::activations);
      if (backed) std::memset(blocks[i].data, 3, 4 * mib);
    }
    EXPECT_EQ(a.stats().reserved, int64_t{32 * mib});
    EXPECT_EQ(a.stats().total.live, int64_t{32 * mib});
    if (backed) {
      EXPECT_LE(resident(static_cast<char*>(blocks[0].data), 64 * mib), 32 * mib);
    }
    for (const auto& block : blocks) a.release(block);
  }
}

TEST(Allocator, KeepsATightBudgetOnMetaExactlyAsInMemory) {
  constexpr size_t mib = 1 << 20, budget = 64 * mib;
  Allocator real(&kernels::cpu_memory()), meta(nullptr);
  real.set_budget(budget);
  meta.set_budget(budget);
  Philox random(5);
  std::vector<std::pair<Allocator::Block, Allocator::Block>> live;
  char* base = nullptr;
  int refused = 0;
  for (int i = 0; i < 600; ++i) {
    if (live.empty() || random.uniform() < 0.6f) {
      const size_t bytes = 1 + random.below(12 * mib);
      const PhaseScope phase(random.uniform() < 0.5f ? Phase::forward : Phase::backward);
      try {
        live.emplace_back(real.allocate(bytes, Tag::activations), Allocator::Block{});
        std::memset(live.back().first.data, i & 255, bytes);
        live.back().second = meta.allocate(bytes, Tag::activations);
        ASSERT_EQ(live.back().first.offset, live.back().second.offset);
        base = static_cast<char*>(live.back().first.data) - live.back().first.offset;
      } catch (const OutOfMemory&) {
        ++refused;
        ASSERT_THROW(meta.allocate(bytes, Tag::activations), OutOfMemory);
      }
    } else {
      const size_t at = random.below(static_cast<uint32_t>(live.size()));
      real.release(live[at].first);
      meta.release(live[at].second);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
    }
    ASSERT_EQ(real.stats().reserved, meta.stats().reserved);
    ASSERT_LE(real.stats().total.live, real.stats().reserved);
    ASSERT_LE(real.stats().reserved, static_cast<int64_t>(budget));
    if (i % 20 == 0) {
      ASSERT_LE(resident(base, 4 * budget), static_cast<size_t>(real.stats().reserved) + 2 * mib);
    }
  }
  EXPECT_GT(refused, 50);
  for (const auto& [a, b] : live) {
    real.release(a);
    meta.release(b);
  }
}

TEST(Allocator, RemembersWhoAskedForTheLargestBlocks) {
  Allocator a(&kernels::cpu_memory());
  std::vector<Allocator::Block> blocks;
  for (const size_t bytes : {300, 5000, 200, 5000}) {
    const LayerScope layer(bytes == 200 ? "trunk.stem" : "head");
    const PhaseScope phase(bytes == 300 ? Phase::data : Phase::forward);
    const std::vector<int64_t> shape = {static_cast<int64_t>(bytes / 4), 1};
    blocks.push_back(bytes == 300 ? a.allocate(bytes, Tag::workspace)
                                  : a.allocate(bytes, Tag::activations, shape, DType::f32));
  }
  a.release(blocks[1]);
  const auto largest = a.largest(2);
  ASSERT_EQ(largest.size(), 2u);
  EXPECT_EQ(largest[0].bytes, 5000u);
  EXPECT_EQ(largest[0].offset, blocks[3].offset);
  EXPECT_EQ(largest[0].shape, "(1250, 1) f32");
  EXPECT_EQ(largest[0].layer, "head");
  EXPECT_EQ(largest[0].phase, Phase::forward);
  EXPECT_EQ(largest[1].bytes, 300u);
  EXPECT_EQ(largest[1].shape, "");
  EXPECT_EQ(largest[1].phase, Phase::data);
  EXPECT_EQ(a.largest(99).back().layer, "trunk.stem");
  for (const size_t i : {0, 2, 3}) a.release(blocks[i]);
  EXPECT_TRUE(a.largest(9).empty());
}

TEST(Allocator, ReportsWhatWasAskedByWhomAndWhatFillsTheMemory) {
  const DeviceScope device(Device::meta);
  Allocator& meta = allocator(Device::meta);
  meta.trim();
  meta.reset_peaks();
  meta.set_budget(static_cast<size_t>(meta.stats().reserved) + (4 << 20));
  const Tensor weight = [] {
    const TagScope tag(Tag::parameters);
    const LayerScope layer("trunk.stem");
    return Tensor::empty({256, 256, 3});  // 0.75 MiB
  }();
  const PhaseScope phase(Phase::forward);
  const LayerScope layer("trunk.block1-1.f.b");
  const Tensor small = Tensor::empty({1 << 20}, DType::bf16);
  try {
    Tensor::empty({2, 1 << 20}, DType::f16);
    FAIL();
  } catch (OutOfMemory& e) {
    EXPECT_THAT(e.what(), ::testing::AllOf(HasSubstr("4.0 MiB for activations (2, 1048576) f16"), HasSubstr("forward"),
                                           HasSubstr("trunk.block1-1.f.b"), HasSubstr("the budget of "),
                                           HasSubstr(" are in use")));
    EXPECT_EQ(std::string_view(e.what()).find('\n'), std::string_view::npos);
    ASSERT_GE(e.largest().size(), 2u);
    EXPECT_LE(e.largest().size(), 10u);
    EXPECT_EQ(e.stats()[Tag::parameters].live, meta.stats()[Tag::parameters].live);
    e.advise("A batch of 1 fits.");
    EXPECT_THAT(e.report(),
                ::testing::ContainsRegex("2\\.0 MiB +activations +forward +\\(1048576\\) bf16 +trunk.block1-1.f.b\n"));
    EXPECT_THAT(e.report(),
                ::testing::ContainsRegex("0\\.8 MiB +parameters +setup +\\(256, 256, 3\\) f32 +trunk.stem\n"));
    EXPECT_THAT(e.report(), ::testing::EndsWith("\nA batch of 1 fits.\n"));
  }
  meta.set_budget(0);
}

TEST(Allocator, FailsOnceWhereItIsTold) {
  Allocator a(&kernels::cpu_memory());
  a.fail_at(2);
  const auto x = a.allocate(100, Tag::activations);
  EXPECT_THROW(a.allocate(100, Tag::activations), OutOfMemory);
  EXPECT_EQ(a.stats().total.live, 128);
  EXPECT_EQ(a.stats().allocations, 1);
  const auto y = a.allocate(100, Tag::activations);
  a.fail_at(1);
  a.fail_at(0);
  const auto z = a.allocate(100, Tag::activations);
  for (const auto& block : {x, y, z}) a.release(block);
}

TEST(Allocator, TrimEndsTheArenaBehindTheLastBlockInUse) {
  Allocator a(&kernels::cpu_memory());
  const auto x = a.allocate(1 << 20, Tag::activations), y = a.allocate(1 << 20, Tag::activations);
  EXPECT_EQ(a.stats().peak_reserved, 2 << 20);
  a.release(y);
  EXPECT_EQ(a.stats().reserved, 2 << 20);
  EXPECT_EQ(a.stats().largest_free, 1 << 20);
  a.trim();
  EXPECT_EQ(a.stats().reserved, 1 << 20);
  EXPECT_EQ(a.stats().peak_reserved, 2 << 20);
  a.reset_peaks();
  EXPECT_EQ(a.stats().peak_reserved, 1 << 20);
  std::memset(a.allocate(3 << 20, Tag::activations).data, 1, 3 << 20);
  a.release(x);
}

TEST(Allocator, TouchesNothingBeyondItsEnd) {
  Allocator a(&kernels::cpu_memory());
  std::vector<Allocator::Block> blocks;
  for (int i = 0; i < 40; ++i) {  // past the first 64 MiB that are made accessible, ending within the next
    blocks.push_back(a.allocate((2 << 20) + 12345, Tag::activations));
    std::memset(blocks.back().data, i + 1, (2 << 20) + 12345);
  }
  auto* base = static_cast<char*>(blocks[0].data);
  const auto end = static_cast<size_t>(a.stats().reserved);
  const size_t all = resident(base, 128 << 20);
  EXPECT_GE(all, end);
  EXPECT_LE(all, end + (2 << 20));  // the last huge page
  for (const auto& block : blocks) a.release(block);
  a.trim();
  EXPECT_LE(resident(base, 128 << 20), size_t{4096});
  EXPECT_EQ(a.stats().reserved, 0);
}

TEST(Allocator, MetaCountsExactlyAsReal) {
  Allocator real(&kernels::cpu_memory()), meta(nullptr);
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
  EXPECT_EQ(real.stats().peak_reserved, meta.stats().peak_reserved);
  EXPECT_EQ(real.stats().total.peak, meta.stats().total.peak);
  // No two live blocks overlap.
  std::map<char*, size_t> by_address;
  for (const auto& [block, unused] : live) by_address.emplace(static_cast<char*>(block.data), block.bytes);
  EXPECT_EQ(by_address.size(), live.size());
  char* end = nullptr;
  for (const auto& [address, bytes] : by_address) {
    EXPECT_GE(address, end);
    end = address + bytes;
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
