#include <gtest/gtest.h>
#include <saccade/core/batch_upload.h>
#include <saccade/data/eval_view.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#include "data/made_up.h"

namespace saccade::data {
namespace {

TEST(Loader, EveryEpochHasEverySampleOnceInANewOrder) {
  Loader loader(made_up(50), small_crops(), {.batch = 8, .drop_last = false});
  EXPECT_EQ(loader.batches_per_epoch(), 7);
  std::vector<int64_t> previous;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> seen;
    for (int i = 0; i < 7; ++i) {
      const Batch batch = loader.next();
      EXPECT_EQ(batch.epoch, epoch);
      EXPECT_EQ(batch.iteration, epoch * 7 + i);
      EXPECT_EQ(batch.size(), i < 6 ? 8 : 2);
      EXPECT_EQ(batch.images.segments(), small_crops().segments(batch.size()));
      for (size_t b = 0; b < batch.indices.size(); ++b) EXPECT_EQ(batch.labels[b], batch.indices[b] % 10);
      seen.insert(seen.end(), batch.indices.begin(), batch.indices.end());
    }
    EXPECT_NE(seen, previous);
    previous = seen;
    EXPECT_EQ(std::set<int64_t>(seen.begin(), seen.end()).size(), 50u);
  }
}

TEST(Loader, CropsOfAnImageStandCropAfterCrop) {
  const Source source = made_up(6);
  const MultiCrop crops = small_crops();
  Loader loader(source, crops, {.batch = 3, .seed = 5, .shuffle = false});
  loader.seek(3);  // epoch 1, samples 3, 4, 5
  const Batch batch = loader.next();
  ASSERT_EQ(batch.indices, (std::vector<int64_t>{3, 4, 5}));
  const auto all = batch.images.data<float>();
  Image image;
  for (int b = 0; b < 3; ++b) {
    source.read(3 + b, 0, image);
    std::vector<std::vector<float>> expected;
    std::vector<float*> places;
    for (int c = 0; c < 5; ++c) expected.emplace_back((c < 2 ? 256 : 64) * 3);
    for (auto& crop : expected) places.push_back(crop.data());
    Philox random(5, Philox::mix(1, uint64_t{3} + static_cast<uint64_t>(b)));
    make_crops(crops, image, random, places);
    for (int c = 0; c < 5; ++c) {
      const int64_t row = c < 2 ? (c * 3 + b) * 256 : 6 * 256 + ((c - 2) * 3 + b) * 64;
      EXPECT_EQ(std::memcmp(all.data() + row * 3, expected[c].data(), expected[c].size() * sizeof(float)), 0);
    }
  }
}

TEST(Loader, AnyNumberOfWorkersGivesTheSameBits) {
  std::vector<Batch> reference;
  for (int workers : {0, 1, 2, 4}) {
    Loader loader(made_up(40), small_crops(), {.batch = 7, .workers = workers, .seed = 3, .prefetch = 3});
    for (int i = 0; i < 12; ++i) {  // more than two epochs
      Batch batch = loader.next();
      if (workers == 0) {
        reference.push_back(std::move(batch));
      } else {
        ASSERT_TRUE(same_bits(batch, reference[static_cast<size_t>(i)])) << workers << " workers, batch " << i;
      }
    }
  }
  Loader other(made_up(40), small_crops(), {.batch = 7, .seed = 4});
  EXPECT_FALSE(same_bits(other.next(), reference[0]));
}

TEST(Loader, OfSeveralProcessesEachGetsItsShareOfTheSameBatches) {
  Loader whole(made_up(40), small_crops(), {.batch = 7, .seed = 3});
  std::vector<Loader> shares;
  for (int rank = 0; rank < 3; ++rank)
    shares.emplace_back(made_up(40), small_crops(), LoaderOptions{.batch = 7, .seed = 3, .rank = rank, .ranks = 3});
  for (int i = 0; i < 12; ++i) {
    const Batch all = whole.next();
    size_t first = 0;
    for (int rank = 0; rank < 3; ++rank) {
      const Batch part = shares[static_cast<size_t>(rank)].next();
      ASSERT_EQ(part.size(), rank == 0 ? 3 : 2);
      for (size_t b = 0; b < part.indices.size(); ++b) EXPECT_EQ(part.indices[b], all.indices[first + b]);
      // The first crop of its first image: 16 x 16 pixels.
      EXPECT_EQ(std::memcmp(part.images.raw(), all.images.data<float>().data() + first * 256 * 3, 256 * 3 * 4), 0);
      first += part.indices.size();
    }
  }
}

TEST(Loader, ResumesAnywhereWithTheSameBits) {
  for (int workers : {0, 2}) {
    const LoaderOptions options{.batch = 6, .workers = workers, .seed = 8};
    Loader straight(made_up(20), small_crops(), options);
    std::vector<Batch> all;
    for (int i = 0; i < 8; ++i) all.push_back(straight.next());
    EXPECT_EQ(straight.position(), 8);
    for (int64_t from : {5, 0, 7, 3}) {
      Loader fresh(made_up(20), small_crops(), options);
      fresh.seek(from);
      EXPECT_TRUE(same_bits(fresh.next(), all[static_cast<size_t>(from)])) << from;
      straight.seek(from);
      EXPECT_EQ(straight.position(), from);
      EXPECT_TRUE(same_bits(straight.next(), all[static_cast<size_t>(from)])) << from;
    }
    EXPECT_THROW(straight.seek(-1), Error);
  }
}

TEST(Loader, WhatASourceThrowsReachesTheCallerAndTheLoaderGoesOn) {
  for (int workers : {0, 2}) {
    Source source = made_up(40);
    std::atomic<int> left = 1;
    source.read = [&, read = source.read](int64_t i, double side, Image& out) {
      if (i == 13 && left-- > 0) throw std::bad_alloc();
      read(i, side, out);
    };
    Loader loader(source, small_crops(), {.batch = 10, .workers = workers, .shuffle = false});
    loader.next();
    EXPECT_THROW(loader.next(), std::bad_alloc);
    EXPECT_EQ(loader.position(), 1);
    EXPECT_EQ(loader.next().indices[3], 13);
    EXPECT_TRUE(loader.failures().empty());
  }
}

TEST(Loader, ShutsDownInTheMiddleOfABatch) {
  Source source = made_up(1000);
  std::atomic<int> reads = 0;
  source.read = [&, read = source.read](int64_t i, double side, Image& out) {
    ++reads;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    read(i, side, out);
  };
  {
    Loader loader(source, small_crops(), {.batch = 100, .workers = 4, .prefetch = 5});
    loader.next();
  }
  EXPECT_LT(reads, 500);
  { const Loader never_used(source, small_crops(), {.batch = 100, .workers = 4}); }
  Loader moved(source, small_crops(), {.batch = 4, .workers = 1});
  Loader to = std::move(moved);
  EXPECT_EQ(to.next().size(), 4);
}

TEST(Loader, PrefetchIsBounded) {
  Source source = made_up(1000);
  std::atomic<int> reads = 0;
  source.read = [&, read = source.read](int64_t i, double side, Image& out) {
    ++reads;
    read(i, side, out);
  };
  Loader loader(source, small_crops(), {.batch = 10, .workers = 2, .prefetch = 3});
  loader.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_LE(reads, 30);
}

TEST(Loader, BatchesKeepTheirPlacesInTheArena) {
  for (const int workers : {0, 2}) {
    const LoaderOptions options{.batch = 6, .workers = workers, .prefetch = 3, .drop_last = false};
    Loader loader(made_up(20), small_crops(), options);
    const int64_t before = allocator(Device::cpu).stats()[Tag::batch].live;
    std::set<void*> places = {loader.next().images.raw()};
    const int64_t after_first = allocator(Device::cpu).stats()[Tag::batch].live - before;
    const int64_t allocations = allocator(Device::cpu).stats().allocations;
    for (int i = 0; i < 9; ++i) places.insert(loader.next().images.raw());  // the last of an epoch is smaller
    EXPECT_EQ(allocator(Device::cpu).stats().allocations, allocations);
    EXPECT_EQ(places.size(), static_cast<size_t>(batches_in_memory(options)));
    const auto bytes = static_cast<int64_t>(total_rows(small_crops().segments(6)) * 3 * 4);
    EXPECT_EQ(after_first, batches_in_memory(options) * ((bytes + 63) / 64 * 64));
  }
}

TEST(Loader, ABatchThatIsKeptIsNotWrittenOver) {
  for (const int workers : {0, 2}) {
    Loader loader(made_up(40), small_crops(), {.batch = 4, .workers = workers});
    std::vector<Tensor> kept, copies;
    for (int i = 0; i < 9; ++i) {
      kept.push_back(loader.next().images.slice(0, 5));
      copies.push_back(kept.back().clone());
    }
    for (size_t i = 0; i < kept.size(); ++i) EXPECT_EQ(std::memcmp(kept[i].raw(), copies[i].raw(), kept[i].bytes()), 0);
  }
}

TEST(Loader, BytesBecomeTheSameBitsAsNormalisedBatches) {
  for (const int channels : {1, 3}) {
    for (const View& view : {View(small_crops()), View(EvalView{.resize = 20, .size = 16})}) {
      for (const int workers : {0, 2}) {
        LoaderOptions options{.batch = 6, .workers = workers, .drop_last = false};
        Loader numbers(made_up(20, channels), view, options);
        options.bytes = true;
        Loader bytes(made_up(20, channels), view, options);
        BatchUpload upload(Device::cpu);
        for (int i = 0; i < 8; ++i) {
          const Batch raw = bytes.next();
          ASSERT_EQ(raw.images.dtype(), DType::u8);
          const Batch batch = upload(raw);
          ASSERT_EQ(batch.images.dtype(), DType::f32);
          ASSERT_TRUE(same_bits(batch, numbers.next())) << channels << " channels, batch " << i;
        }
      }
    }
  }
}

TEST(Loader, TheScaleOfBytesIsThatOfTheStatistics) {
  const EvalView view;
  const kernels::PixelScale color = pixel_scale(view, 3), gray = pixel_scale(view, 1);
  for (const int byte : {0, 1, 100, 255}) {
    for (size_t c = 0; c < 3; ++c) {
      const double expected = (byte / 255. - double{view.mean[c]}) / double{view.std[c]};
      EXPECT_NEAR(static_cast<float>(byte) * color.factor[c] + color.offset[c], expected, 1e-6);
    }
    const double mean = (0.485 + 0.456 + 0.406) / 3, std = (0.229 + 0.224 + 0.225) / 3;
    EXPECT_NEAR(static_cast<float>(byte) * gray.factor[0] + gray.offset[0], (byte / 255. - mean) / std, 1e-6);
  }
}

TEST(Loader, BytesTakeAQuarterOfTheMemory) {
  const auto live = [] { return allocator(Device::cpu).stats()[Tag::batch].live; };
  const int64_t before = live();
  Loader loader(made_up(20), small_crops(), {.batch = 6, .bytes = true});
  for (int i = 0; i < 4; ++i) loader.next();
  const int64_t bytes = total_rows(small_crops().segments(6)) * 3;
  EXPECT_EQ(live() - before, (bytes + 63) / 64 * 64);
}

TEST(Loader, RefusesWhatCannotWork) {
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 11}), Error);
  EXPECT_NO_THROW(Loader(made_up(10), small_crops(), {.batch = 11, .drop_last = false}));
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 0}), Error);
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 1, .workers = -1}), Error);
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 1, .prefetch = 0}), Error);
  EXPECT_THROW(Loader(made_up(0), small_crops(), {.batch = 1, .drop_last = false}), Error);
  EXPECT_THROW(Loader(made_up(10), MultiCrop{}, {.batch = 1}), Error);
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 2, .ranks = 3}), Error);
  EXPECT_THROW(Loader(made_up(10), small_crops(), {.batch = 2, .rank = 2, .ranks = 2}), Error);
  EXPECT_THROW(Loader(made_up(11), small_crops(), {.batch = 5, .drop_last = false, .ranks = 2}), Error);
}

TEST(Loader, EvaluationGoesThroughTheSourceInOrder) {
  Loader loader(made_up(10, 1), EvalView{.resize = 16, .size = 12}, {.batch = 4, .drop_last = false, .shuffle = false});
  std::vector<int64_t> seen;
  for (int i = 0; i < 3; ++i) {
    const Batch batch = loader.next();
    EXPECT_EQ(batch.images.segments(), (Segments{{batch.size(), 12, 12}}));
    EXPECT_EQ(batch.images.dim(1), 1);
    seen.insert(seen.end(), batch.indices.begin(), batch.indices.end());
  }
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

}  // namespace
}  // namespace saccade::data
