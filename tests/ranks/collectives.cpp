#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/dist/gradient_buckets.h>
#include <saccade/core/dist/launched.h>
#include <saccade/core/ops.h>
#include <saccade/kernels/error.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "ranks.h"

namespace saccade::dist {
namespace {

using saccade::testing::ranks;
using ::testing::ElementsAre;

/// Element i of process r.
float value(int64_t i, int r) { return static_cast<float>(i % 1000) + 0.25f * static_cast<float>(r + 1); }

Tensor numbers(int64_t count, int rank) {
  const Tensor x = Tensor::empty({count});
  for (int64_t i = 0; i < count; ++i) x.data<float>()[static_cast<size_t>(i)] = value(i, rank);
  return x;
}

TEST(Collectives, GiveWhatTheyAreNamedFor) {
  const int rank = ranks().rank(), size = ranks().size();
  const Tensor sum = numbers(1000, rank), largest = numbers(7, rank);
  ranks().all_reduce(sum);
  ranks().all_reduce(largest, Reduce::max);
  for (int64_t i = 0; i < 1000; ++i) {
    float want = 0;
    for (int r = 0; r < size; ++r) want += value(i, r);
    ASSERT_FLOAT_EQ(sum.data<float>()[static_cast<size_t>(i)], want);
  }
  EXPECT_FLOAT_EQ(largest.data<float>()[3], value(3, size - 1));

  const Tensor all = Tensor::empty({size, 5});
  ranks().all_gather(numbers(5, rank), all);
  for (int r = 0; r < size; ++r)
    for (int64_t i = 0; i < 5; ++i) EXPECT_EQ(all.data<float>()[static_cast<size_t>(5 * r + i)], value(i, r));

  const Tensor part = Tensor::empty({4});
  ranks().reduce_scatter(numbers(4 * size, rank).reshape({size, 4}), part);
  for (int64_t i = 0; i < 4; ++i) {
    float want = 0;
    for (int r = 0; r < size; ++r) want += value(4 * rank + i, r);
    EXPECT_FLOAT_EQ(part.data<float>()[static_cast<size_t>(i)], want);
  }

  const Tensor of_last = numbers(3, rank);
  ranks().broadcast(of_last, size - 1);
  EXPECT_EQ(of_last.data<float>()[2], value(2, size - 1));

  std::vector<std::string> texts;
  for (int r = 0; r < size; ++r) texts.emplace_back(static_cast<size_t>(r % 3), static_cast<char>('a' + r));
  EXPECT_EQ(texts_of_all(ranks(), texts[static_cast<size_t>(rank)]), texts);
  EXPECT_EQ(numbers_of_all(ranks(), {rank, int64_t{1} << 40})[static_cast<size_t>(size - 1)],
            (std::vector<int64_t>{size - 1, int64_t{1} << 40}));
}

TEST(Collectives, GoOnWhileOthersAreCalled) {
  const int rank = ranks().rank(), size = ranks().size();
  std::vector<Tensor> tensors;
  std::vector<Pending> pending;
  for (int i = 0; i < 6; ++i) {
    tensors.push_back(numbers(300000, rank));
    pending.push_back(ranks().start_all_reduce(tensors.back()));
    ranks().barrier();  // of an order of its own
  }
  for (size_t i = 0; i < pending.size(); ++i) {
    pending[i].wait();
    pending[i].wait();
    float want = 0;
    for (int r = 0; r < size; ++r) want += value(299999, r);
    EXPECT_FLOAT_EQ(tensors[i].data<float>()[299999], want);
  }
}

TEST(Collectives, OfAPartReachThatPartAlone) {
  const int rank = ranks().rank(), size = ranks().size();
  const auto pair = ranks().split(rank / 2);
  const Tensor sum = Tensor::full({1}, 1.f);
  pair->all_reduce(sum);
  EXPECT_EQ(pair->rank(), rank % 2);
  EXPECT_EQ(sum.item(), rank / 2 == size / 2 ? 1.f : 2.f);
}

TEST(Collectives, CountWhatIsExchanged) {
  const auto before = ranks().traffic();
  const auto of = [&](Collective::Kind kind) {
    const auto at = before.find(kind);
    const Traffic was = at == before.end() ? Traffic{} : at->second, now = ranks().traffic().at(kind);
    return std::vector<int64_t>{now.calls - was.calls, now.bytes - was.bytes};
  };
  ranks().all_reduce(Tensor::zeros({10}));
  ranks().start_all_reduce(Tensor::zeros({5})).wait();
  ranks().all_gather(Tensor::zeros({3}), Tensor::empty({ranks().size(), 3}));
  EXPECT_THAT(of(Collective::Kind::all_reduce), ElementsAre(2, 60));
  EXPECT_THAT(of(Collective::Kind::all_gather), ElementsAre(1, 12));
}

TEST(Collectives, RefuseWhatCannotBeExchanged) {
  EXPECT_THROW(ranks().all_reduce(Tensor::zeros({4}, DType::bf16)), Error);
  EXPECT_THROW(ranks().all_gather(Tensor::zeros({3}), Tensor::zeros({ranks().size() + 1, 3})), Error);
  EXPECT_THROW(ranks().broadcast(Tensor::zeros({3}), ranks().size()), Error);
}

TEST(GatherViews, StandsEachViewOfAllImagesTogether) {
  const int size = ranks().size();
  for (const int64_t images : {4 * size, 4 * size + size / 2 + 1}) {
    Ranks all{.all = &ranks(), .images = images};
    const RanksScope scope(&all);
    const Tensor whole = numbers(3 * images * 2, 0).reshape({3 * images, 2});
    const Tensor gathered = gather_views(saccade::testing::own_rows(whole, images));
    ASSERT_EQ(gathered.shape(), whole.shape());
    for (int64_t i = 0; i < whole.numel(); ++i)
      ASSERT_EQ(gathered.data<float>()[static_cast<size_t>(i)], whole.data<float>()[static_cast<size_t>(i)]);
    const Tensor back = own_views(gathered), own = saccade::testing::own_rows(whole, images);
    ASSERT_EQ(back.shape(), own.shape());
    for (int64_t i = 0; i < own.numel(); ++i)
      ASSERT_EQ(back.data<float>()[static_cast<size_t>(i)], own.data<float>()[static_cast<size_t>(i)]);
  }
}

/// Leaves of several sizes, in a loss whose gradient is known: d/dx of sum c x is c.
TEST(GradientBuckets, SumWhatBackwardLeaves) {
  const int rank = ranks().rank(), size = ranks().size();
  for (const int64_t bytes : {int64_t{64}, int64_t{1000}, GradientBuckets::kBytes}) {
    std::vector<Tensor> leaves;
    for (const int64_t n : {5, 40, 300, 1, 90}) leaves.push_back(Tensor::full({n}, 2.f).requires_grad_());
    const auto buckets = std::make_unique<GradientBuckets>(leaves, ranks(), bytes);
    const auto loss_of = [&](std::vector<size_t> which) {
      Tensor loss;
      for (const size_t i : which) {
        const Tensor c = Tensor::full(leaves[i].shape(), static_cast<float>((rank + 1) * (i + 1)));
        const Tensor part = inner_product(leaves[i], c);
        loss = loss.defined() ? add(loss, part) : part;
      }
      return loss;
    };
    const float ranks_sum = static_cast<float>(size * (size + 1) / 2);
    // The second backward does not reach all that the first has reached, and none reaches the last leaf.
    loss_of({0, 1, 2}).backward({.last = false});
    loss_of({1, 3}).backward();
    const float times[] = {1, 2, 1, 1};
    for (size_t i = 0; i < 4; ++i)
      for (const float g : leaves[i].grad().data<float>())
        ASSERT_FLOAT_EQ(g, ranks_sum * static_cast<float>(i + 1) * times[i]) << i << " of buckets of " << bytes;
    EXPECT_FALSE(leaves[4].grad().defined());
  }
}

}  // namespace
}  // namespace saccade::dist
