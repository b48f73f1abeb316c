#include <gtest/gtest.h>
#include <saccade/data/evaluate.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "data/folders.h"
#include "data/goldens.h"
#include "data/made_up.h"

namespace saccade::data {
namespace {

using Bytes = std::vector<uint8_t>;

/// A source of small images that are made quickly, some of which cannot be read; `broken` is asked by several threads.
Source with_broken(int64_t count, std::function<bool(int64_t)> broken) {
  Source source = made_up(count);
  source.read = [broken = std::move(broken)](int64_t i, double, Image& out) {
    if (broken(i)) throw Error("image " + std::to_string(i) + ": is broken in way " + std::to_string(i % 3));
    out.resize(9, 8 + static_cast<int>(i % 5), 3);
    for (size_t p = 0; p < out.pixels.size(); ++p) out.pixels[p] = static_cast<uint8_t>(37 * i + 11 * p);
  };
  return source;
}

/// One sample of ten, at random places.
bool one_of_ten(int64_t i) { return Philox(17, static_cast<uint64_t>(i)).below(10) == 0; }

MultiCrop one_crop() {
  MultiCrop crops = multi_crop({{1, 8, {.5f, 1.f}}});
  crops.jitter_p = crops.blur_p = 0;  // quick
  return crops;
}

/// How often each sample is shown in so many epochs.
std::vector<int64_t> times_shown(Loader& loader, int epochs) {
  std::vector<int64_t> times(static_cast<size_t>(loader.source().size()));
  for (int64_t i = 0; i < epochs * loader.batches_per_epoch(); ++i)
    for (const int64_t index : loader.next().indices) ++times[static_cast<size_t>(index)];
  return times;
}

/// The most that one sample is shown, as a share of the mean of those that can be read.
double most_of_mean(const std::vector<int64_t>& times) {
  const auto readable = static_cast<double>(std::count_if(times.begin(), times.end(), [](int64_t n) { return n > 0; }));
  const double mean = static_cast<double>(std::accumulate(times.begin(), times.end(), int64_t{0})) / readable;
  return static_cast<double>(*std::max_element(times.begin(), times.end())) / mean;
}

std::string what_is_said(const std::function<void()>& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

/// 2,000 small images of which every tenth is broken, in ten ways; `removed` and `replaced` are so after they were
/// listed.
struct TenWays {
  TemporaryFolder folder;
  std::set<int64_t> broken;
  std::vector<std::string> removed, replaced;

  TenWays() {
    const Bytes jpeg = golden::bytes("base.jpg"), png = golden::bytes("palette.png");
    const auto text = [](const char* words) { return Bytes(words, words + std::char_traits<char>::length(words)); };
    Bytes good = text("P6 8 8 255\n"), crc = png;
    good.resize(good.size() + 8 * 8 * 3, 99);
    crc[crc.size() / 2] ^= 0x55;
    const std::vector<Bytes> ways{{},
                                  Bytes(jpeg.begin(), jpeg.begin() + 300),
                                  Bytes(png.begin(), png.end() - 40),
                                  text("not an image"),
                                  text("P6 60000 60000 255\n"),
                                  text("\xff\xd8\xff\xe0"),
                                  text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"),
                                  crc,
                                  jpeg,
                                  jpeg};
    for (int i = 0; i < 2000; ++i) {
      char name[32];
      std::snprintf(name, sizeof name, "%c/%04d.jpg", 'a' + i / 500, i);
      const int way = i % 10 == 9 ? i / 10 % 10 : -1;
      const std::string path = folder.write(name, way >= 0 ? ways[static_cast<size_t>(way)] : good);
      if (way >= 0) broken.insert(i);
      if (way == 8) removed.push_back(path);
      if (way == 9) replaced.push_back(path);
    }
  }
  /// The source, listed while all files were there.
  Source listed() const {
    Source source = data::folder(folder.path.string());
    for (const std::string& path : removed) std::filesystem::remove(path);
    for (const std::string& path : replaced) {
      std::filesystem::remove(path);
      std::filesystem::create_directory(path);
    }
    return source;
  }
};

TEST(UnreadableImages, OfTwoThousandWithTwoHundredBrokenInTenWaysAllAreListedAndNoneIsShown) {
  const TenWays photos;
  const Source source = photos.listed();
  ASSERT_EQ(source.size(), 2000);
  ASSERT_EQ(photos.broken.size(), 200u);
  std::vector<Batch> reference;
  for (const int workers : {0, 1, 2, 4}) {
    Loader loader(source, one_crop(), {.batch = 50, .workers = workers, .seed = 1});
    EXPECT_EQ(loader.describe_failures(), "");
    for (int i = 0; i < 50; ++i) {
      Batch batch = loader.next();
      for (size_t b = 0; b < batch.indices.size(); ++b) {
        EXPECT_EQ(photos.broken.count(batch.indices[b]), 0u);
        EXPECT_EQ(batch.labels[b], batch.indices[b] / 500);
      }
      if (workers == 0)
        reference.push_back(std::move(batch));
      else
        ASSERT_TRUE(same_bits(batch, reference[static_cast<size_t>(i)])) << workers << " workers, batch " << i;
    }
    const auto failures = loader.failures();
    ASSERT_EQ(failures.size(), 200u);
    for (const Failure& failure : failures) {
      EXPECT_EQ(photos.broken.count(failure.index), 1u);
      EXPECT_NE(failure.reason.find(failure.key), std::string::npos) << failure.reason;
    }
    EXPECT_EQ(loader.describe_failures().find("200 of 2000 samples could not be read"), 0u);
    const std::string table = table_of_reasons(failures, source.name);
    // Two are of one kind, and counted together, where libjpeg has one message for both.
    const auto lines = std::count(table.begin(), table.end(), '\n');
    EXPECT_TRUE((lines == 9 && table.starts_with("      40  JPEG: ")) ||
                (lines == 10 && table.starts_with("      20  JPEG: ")))
        << table;
    EXPECT_NE(table.find("\n      20  the file is empty (a/0009.jpg, a/0109.jpg, a/0209.jpg, ...)\n"),
              std::string::npos)
        << table;
  }
}

TEST(UnreadableImages, NoneIsShownMoreThanOneAndAHalfTimesTheMean) {
  for (const uint64_t seed : {1, 2, 3}) {
    for (const int epochs : {3, 5, 10}) {
      Loader loader(with_broken(2000, [](int64_t i) { return i % 10 == 3; }), one_crop(), {.batch = 50, .seed = seed});
      const auto times = times_shown(loader, epochs);
      EXPECT_LE(most_of_mean(times), 1.5 + 1e-9) << epochs << " epochs";
      for (size_t i = 0; i < times.size(); ++i) EXPECT_GE(times[i], i % 10 == 3 ? 0 : epochs);
      EXPECT_EQ(loader.failures().size(), 200u);
    }
  }
}

TEST(UnreadableImages, ABlockOfNeighboursIsReplacedEvenlyHoweverLong) {
  // As a Mac's archive unpacks: 2000 files that are no images, then 300 photos.
  Loader loader(with_broken(2300, [](int64_t i) { return i < 2000; }), one_crop(), {.batch = 46, .max_unreadable = 1});
  EXPECT_LE(most_of_mean(times_shown(loader, 1)), 2.5);
  EXPECT_EQ(loader.failures().size(), 2000u);
  loader.seek(0);
  EXPECT_LE(most_of_mean(times_shown(loader, 5)), 1.5);
  for (int epoch = 0; epoch < 2; ++epoch) {  // every one equally often, but for the last of the rotation
    const auto times = times_shown(loader, 1);
    EXPECT_LE(*std::max_element(times.begin() + 2000, times.end()), 8);  // 2300 / 300 = 7.67
    EXPECT_GE(*std::min_element(times.begin() + 2000, times.end()), 7);
  }
}

TEST(UnreadableImages, WhoStandsInMoreThanOnceGetsOtherCrops) {
  Source source = made_up(40);
  source.read = [read = source.read](int64_t i, double side, Image& out) {
    if (i > 0) throw Error("only the first can be read");
    read(i, side, out);
  };
  Loader loader(source, small_crops(), {.batch = 40, .max_unreadable = 1});
  for (int epoch = 0; epoch < 2; ++epoch) {
    const Batch batch = loader.next();
    std::set<std::string> different;
    for (int64_t b = 0; b < 40; ++b) {
      EXPECT_EQ(batch.indices[static_cast<size_t>(b)], 0);
      const Tensor crop = batch.images.slice(b * 256, (b + 1) * 256);
      different.emplace(static_cast<const char*>(crop.raw()), crop.bytes());
    }
    EXPECT_EQ(different.size(), 40u);
  }
}

TEST(UnreadableImages, WithoutAnyTheOrderIsTheShuffleOfTheEpoch) {
  // Numbers of a Python program of Philox4x32-10 and the shuffle.
  EXPECT_EQ(order_of_places(12, 3, 0, true), (std::vector<uint32_t>{2, 0, 11, 8, 9, 4, 5, 7, 6, 10, 1, 3}));
  EXPECT_EQ(order_of_places(12, 3, 5, true), (std::vector<uint32_t>{2, 1, 8, 4, 5, 10, 6, 7, 3, 11, 9, 0}));
  EXPECT_TRUE(fillers(12, 3, 5, {}).empty());
  Loader loader(made_up(12), one_crop(), {.batch = 12, .seed = 3});
  EXPECT_EQ(loader.next().indices, (std::vector<int64_t>{2, 0, 11, 8, 9, 4, 5, 7, 6, 10, 1, 3}));
}

TEST(UnreadableImages, EachAttemptSendsTheSamplesToDifferentOnesAndThenToAll) {
  for (const int64_t count : {1, 2, 5, 64, 1000}) {
    for (const int64_t attempt : {1, 2, 32}) {
      std::set<int64_t> reached;
      for (int64_t i = 0; i < count; ++i) reached.insert(stand_in(count, 9, 4, i, attempt));
      EXPECT_EQ(std::ssize(reached), count);
      EXPECT_GE(*reached.begin(), 0);
      EXPECT_LT(*reached.rbegin(), count);
    }
    std::set<int64_t> walked;
    for (int64_t attempt = 33; attempt < 33 + count; ++attempt) walked.insert(stand_in(count, 9, 4, 0, attempt));
    EXPECT_EQ(std::ssize(walked), count);
  }
}

TEST(UnreadableImages, AResumedLoaderGivesTheBitsOfOneThatWentOn) {
  const Source source = with_broken(120, one_of_ten);
  for (const int workers : {0, 3}) {
    const LoaderOptions options{.batch = 7, .workers = workers, .seed = 8, .prefetch = 4, .max_unreadable = 0.3};
    Loader straight(source, one_crop(), options);
    std::vector<Batch> all;
    std::vector<std::string> states;
    for (int i = 0; i < 68; ++i) {  // four epochs of 17
      states.push_back(straight.state());
      all.push_back(straight.next());
    }
    ASSERT_EQ(all[0].iteration, 0);
    const auto failures = straight.failures();
    for (size_t from = 0; from < all.size(); from += 3) {
      Loader fresh(source, one_crop(), options);
      fresh.restore(states[from]);
      fresh.seek(static_cast<int64_t>(from));
      for (size_t i = from; i < std::min(from + 20, all.size()); ++i)
        ASSERT_TRUE(same_bits(fresh.next(), all[i])) << "resumed at " << from << ", batch " << i;
      straight.seek(static_cast<int64_t>(from));  // it knows more, and of later epochs
      ASSERT_TRUE(same_bits(straight.next(), all[from])) << from;
    }
    EXPECT_EQ(straight.failures().size(), failures.size());
  }
}

TEST(UnreadableImages, ASampleThatBecomesUnreadableLeavesTheNextEpochs) {
  std::vector<Batch> reference;
  for (const int workers : {0, 2}) {
    std::atomic<bool> away = false;
    Loader loader(with_broken(40, [&](int64_t i) { return away && i % 20 == 7; }), one_crop(),
                  {.batch = 8, .workers = workers, .prefetch = 1});
    for (int i = 0; i < 25; ++i) {
      if (i == 5) away = true;
      if (i == 10) away = false;  // once is enough: it does not come back
      Batch batch = loader.next();
      const auto& shown = batch.indices;
      const bool shows_one = std::any_of(shown.begin(), shown.end(), [](int64_t k) { return k % 20 == 7; });
      EXPECT_FALSE(i >= 5 && shows_one) << i;
      if (workers == 0)
        reference.push_back(std::move(batch));
      else
        ASSERT_TRUE(same_bits(batch, reference[static_cast<size_t>(i)])) << i;
    }
    EXPECT_EQ(loader.failures().size(), 2u);
  }
}

TEST(UnreadableImages, WhatFailedWhileADiskWasAwayIsTriedAgainWhenTheRunGoesOn) {
  std::vector<Batch> whole;
  Loader unbroken(with_broken(400, one_of_ten), one_crop(), {.batch = 10, .max_unreadable = .2});
  for (int i = 0; i < 80; ++i) whole.push_back(unbroken.next());
  for (const int workers : {0, 3}) {
    std::atomic<bool> away = false;
    Loader loader(with_broken(400, [&](int64_t i) { return away || one_of_ten(i); }), one_crop(),
                  {.batch = 10, .workers = workers, .max_unreadable = .2});
    for (int i = 0; i < 15; ++i) loader.next();
    away = true;
    std::string state;
    int64_t position = 0;
    EXPECT_NE(what_is_said([&] {
                for (;;) {
                  state = loader.state();
                  position = loader.position();
                  loader.next();
                }
              }).find("cannot be read"),
              std::string::npos);
    EXPECT_GE(position, 15);
    EXPECT_LE(position, 17);  // what was made ahead
    EXPECT_EQ(loader.state(), state);
    away = false;
    Loader resumed(loader.source(), one_crop(), loader.options());
    resumed.restore(state);
    resumed.seek(position);
    for (size_t i = static_cast<size_t>(position); i < whole.size(); ++i)
      ASSERT_TRUE(same_bits(resumed.next(), whole[i])) << workers << " workers, batch " << i;
  }
}

TEST(UnreadableImages, TheStateDependsOnTheBatchesAloneAndNotOnWhatIsReadAhead) {
  std::vector<std::string> states;
  for (const int workers : {0, 1, 4}) {
    Loader loader(with_broken(300, one_of_ten), one_crop(),
                  {.batch = 7, .workers = workers, .prefetch = 6, .max_unreadable = .2});
    for (size_t i = 0; i < 60; ++i) {
      if (workers == 0)
        states.push_back(loader.state());
      else
        ASSERT_EQ(loader.state(), states[i]) << i;
      loader.next();
    }
  }
  EXPECT_NE(states[0], states[5]);
}

TEST(UnreadableImages, TheEarliestBatchThatMeetsASampleCountsWhoeverFoundIt) {
  const Source source = made_up(10);
  Unreadable unreadable;
  EXPECT_FALSE(unreadable.met(5, 1, 12));
  unreadable.add(5, 1, 12, "image 5: was\ncut off");
  EXPECT_EQ(unreadable.state(source, 12), "");
  EXPECT_EQ(unreadable.state(source, 13), "5\t1\t12\timage 5\timage 5: was\\x0acut off\n");
  EXPECT_TRUE(unreadable.met(5, 1, 10));
  EXPECT_EQ(unreadable.state(source, 11), "5\t1\t10\timage 5\timage 5: was\\x0acut off\n");
  EXPECT_FALSE(unreadable.met(5, 0, 7)) << "in an earlier epoch it was well";
  EXPECT_FALSE(unreadable.contains(5, 0));
  EXPECT_TRUE(unreadable.before(1).empty());
  EXPECT_EQ(unreadable.before(2).size(), 1u);
  unreadable.add(5, 0, 7, "image 5: is gone");
  EXPECT_EQ(unreadable.state(source, 8), "5\t0\t7\timage 5\timage 5: was\\x0acut off\n");
  EXPECT_EQ(unreadable.count(), 1);
}

TEST(UnreadableImages, TooManyStopTheRunAtTheSameBatchWithATableOfReasons) {
  for (const int workers : {0, 1, 3}) {
    Loader loader(with_broken(1000, [](int64_t i) { return i % 3 != 0; }), one_crop(),
                  {.batch = 20, .workers = workers, .seed = 5});
    int batches = 0;
    try {
      for (; batches < 50; ++batches) loader.next();
      FAIL();
    } catch (const TooManyUnreadable& error) {
      EXPECT_EQ(batches, 4) << "100 images are tried before a word";
      EXPECT_NE(std::string(error.what()).find("of 100 images tried cannot be read, which is more than 10 %"),
                std::string::npos)
          << error.what();
      EXPECT_NE(error.report().find("  is broken in way # (image "), std::string::npos) << error.report();
      EXPECT_EQ(std::count(error.report().begin(), error.report().end(), '\n'), 1);
    }
    EXPECT_EQ(loader.position(), 4);
    EXPECT_THROW(loader.next(), TooManyUnreadable);
    Loader patient(loader.source(), one_crop(), {.batch = 20, .workers = workers, .seed = 5, .max_unreadable = .7});
    patient.restore(loader.state());
    patient.seek(loader.position());
    for (; batches < 150; ++batches) EXPECT_EQ(patient.next().iteration, batches);
    EXPECT_EQ(patient.failures().size(), 666u);
  }
}

TEST(UnreadableImages, AsManyAsAreAllowedNeverStopARunWhereverTheyLie) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    Loader exact(with_broken(500, [&](int64_t i) { return (static_cast<uint64_t>(i) + seed) % 10 == 0; }), one_crop(),
                 {.batch = 20, .seed = seed});
    EXPECT_NO_THROW(times_shown(exact, 2));
  }
  Loader one_more(with_broken(500, [](int64_t i) { return i % 10 == 0 || i == 1; }), one_crop(), {.batch = 20});
  EXPECT_THROW(times_shown(one_more, 2), TooManyUnreadable);
  Loader few(with_broken(99, [](int64_t i) { return i > 0; }), one_crop(), {.batch = 9});
  EXPECT_NO_THROW(times_shown(few, 2)) << "fewer than 100 are too few to judge by";
  Loader ordered(with_broken(1000, [](int64_t i) { return i >= 400 && i < 500; }), one_crop(),
                 {.batch = 20, .shuffle = false});
  EXPECT_NO_THROW(times_shown(ordered, 2)) << "in order of names, a block says nothing of the rest";
}

TEST(UnreadableImages, AllOfThemStopARunBeforeAllWereTried) {
  for (const int workers : {0, 2}) {
    std::atomic<int64_t> tried = 0;
    Loader loader(with_broken(100000,
                              [&](int64_t) {
                                ++tried;
                                return true;
                              }),
                  one_crop(), {.batch = 20, .workers = workers});
    EXPECT_THROW(loader.next(), TooManyUnreadable);
    EXPECT_LE(tried, 20 * 100 * 2);
  }
}

TEST(UnreadableImages, NothingReadableIsAnErrorThatNamesTheFirstReason) {
  for (const int workers : {0, 2}) {
    for (const double limit : {0.1, 1.0}) {
      Loader loader(with_broken(20, [](int64_t) { return true; }), small_crops(),
                    {.batch = 4, .workers = workers, .max_unreadable = limit});
      const std::string said = "made up: none of the 20 images can be read; the first: image 0: is broken in way 0";
      EXPECT_EQ(what_is_said([&] { loader.next(); }), said);
      EXPECT_EQ(loader.position(), 0);
      EXPECT_EQ(what_is_said([&] { loader.next(); }), said);
    }
  }
}

TEST(UnreadableImages, EvaluationLeavesOutAnyNumber) {
  const auto first_pixel = [](const Tensor& images) {
    const int64_t rows_each = images.dim(0) / images.segments()[0].n;
    Tensor out = Tensor::empty({images.segments()[0].n, 3});
    for (int64_t n = 0; n < out.dim(0); ++n)
      out.slice(n, n + 1).copy_from(images.slice(n * rows_each, n * rows_each + 1).reshape({1, 3}));
    return out;
  };
  const EvalView view{.resize = 16, .size = 16};
  const Rows whole = compute_rows(with_broken(300, [](int64_t) { return false; }), view, first_pixel);
  const Rows some = compute_rows(with_broken(300, [](int64_t i) { return i % 7 != 0; }), view, first_pixel);
  ASSERT_EQ(some.indices.size(), 43u);
  EXPECT_EQ(some.failures.size(), 257u);
  for (size_t row = 0; row < 43; ++row) {
    EXPECT_EQ(some.indices[row], static_cast<int64_t>(7 * row));
    const auto ours = some.rows.data<float>().subspan(3 * row, 3),
               theirs = whole.rows.data<float>().subspan(21 * row, 3);
    EXPECT_TRUE(std::equal(ours.begin(), ours.end(), theirs.begin()));
  }
}

TEST(UnreadableImages, AStateIsOfTheFilesItNames) {
  const TemporaryFolder folder;
  const Bytes good = golden::bytes("base.jpg");
  for (const char* name : {"a.jpg", "b.jpg", "c.jpg", "d.jpg"}) folder.write(name, good);
  folder.write("b.jpg", Bytes{1, 2, 3});
  folder.write("d.jpg", Bytes{});
  const LoaderOptions options{.batch = 4};
  Loader before(data::folder(folder.path.string()), one_crop(), options);
  before.next();
  ASSERT_EQ(before.failures().size(), 2u);
  folder.write("bb.jpg", good);  // d.jpg is another sample now
  Loader after(data::folder(folder.path.string()), one_crop(), options);
  after.restore(before.state());
  ASSERT_EQ(after.failures().size(), 1u);
  EXPECT_EQ(after.failures()[0].index, 1);
  EXPECT_EQ(after.failures()[0].reason, before.failures()[0].reason);
  after.restore("");
  EXPECT_TRUE(after.failures().empty());
  for (const char* wrong :
       {"1", "1\t0\t0\tb.jpg\n", "x\t0\t0\tb.jpg\tempty\n", "-1\t0\t0\tb.jpg\tempty\n", "1\t0\t0\tb.jpg\tempty"})
    EXPECT_NE(what_is_said([&] { after.restore(wrong); }).find("is not understood"), std::string::npos) << wrong;
}

TEST(UnreadableImages, RefusesALimitThatIsNoShare) {
  for (const double wrong : {-0.1, 1.1, std::nan("")})
    EXPECT_THROW(Loader(made_up(10), one_crop(), {.batch = 2, .max_unreadable = wrong}), Error);
}

}  // namespace
}  // namespace saccade::data
