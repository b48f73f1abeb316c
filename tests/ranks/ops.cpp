// Ops of a batch that several processes share, against one process with the whole batch.
#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/ops.h>
#include <saccade/core/random.h>

#include <cmath>
#include <string>

#include "ranks.h"

namespace saccade {
namespace {

using testing::own_rows;
using testing::ranks;

Tensor normal(Shape shape, uint64_t seed, float scale = 1.f, float mean = 0.f) {
  const Tensor x = Tensor::empty(std::move(shape));
  Philox random(seed, 1);
  for (float& v : x.data<float>()) v = mean + scale * random.normal();
  return x;
}

void expect_near(const Tensor& got, const Tensor& want, float tolerance, const char* what) {
  ASSERT_EQ(got.numel(), want.numel()) << what;
  float largest = 0, off = 0;
  for (int64_t i = 0; i < want.numel(); ++i) {
    const float w = want.data<float>()[static_cast<size_t>(i)];
    largest = std::max(largest, std::abs(w));
    off = std::max(off, std::abs(got.data<float>()[static_cast<size_t>(i)] - w));
  }
  EXPECT_LE(off, tolerance * largest) << what;
}

struct Normalised {
  Tensor y = {}, dx = {}, dgamma = {}, dbeta = {}, running_mean, running_var;
};

/// batch_norm of two crops of each of `images` images, 3x5 and 2x2 pixels, with its gradients; recomputed, if asked.
Normalised normalise(const Tensor& x, const Tensor& dy, int64_t images, bool recompute) {
  const int64_t c = x.dim(1);
  Tensor in = x.with_segments({{2 * images, 3, 5}, {images, 2, 2}});
  in.requires_grad_();
  Tensor gamma = normal({c}, 11), beta = normal({c}, 12);
  gamma.requires_grad_(), beta.requires_grad_();
  Normalised n{.running_mean = Tensor::full({c}, 0.f), .running_var = Tensor::full({c}, 1.f)};
  const auto forward = [&](const Tensor& of) {
    return batch_norm(of, gamma, beta, n.running_mean, n.running_var, {.training = true, .relu = true});
  };
  const Tensor y =
      recompute ? checkpoint([&](const std::vector<Tensor>& of) { return forward(of[0]); }, {in}) : forward(in);
  n.y = y.detach();
  inner_product(y, dy).backward();
  n.dx = in.grad(), n.dgamma = gamma.grad(), n.dbeta = beta.grad();
  return n;
}

/// Rows of an image tensor of those crops: of this process's images.
Tensor own_crops(const Tensor& all, int64_t images) {
  const Tensor large = all.slice(0, 30 * images), small = all.slice(30 * images, 34 * images);
  const auto own = [&](const Tensor& rows, int64_t pixels) {
    const int64_t c = rows.dim(1);
    return own_rows(rows.reshape({-1, pixels * c}), images).reshape({-1, c});
  };
  const Tensor first = own(large, 15), second = own(small, 4);
  const Tensor both = Tensor::empty({first.dim(0) + second.dim(0), all.dim(1)});
  both.slice(0, first.dim(0)).copy_from(first);
  both.slice(first.dim(0), both.dim(0)).copy_from(second);
  return both;
}

TEST(BatchNorm, OfAllProcessesIsThatOfTheWholeBatch) {
  for (const int64_t c : {3, 17})  // odd: what is exchanged is padded
    for (const int64_t images : {4 * ranks().size(), 4 * ranks().size() + (ranks().size() + 1) / 2})
      for (const bool recompute : {false, true}) {
        const Tensor x = normal({34 * images, c}, 3, 2.f, 5.f), dy = normal({34 * images, c}, 4);
        const Normalised want = normalise(x, dy, images, false);
        dist::Ranks all{.all = &ranks(), .images = images, .statistics = &ranks()};
        const dist::RanksScope scope(&all);
        const Normalised got = normalise(own_crops(x, images), own_crops(dy, images), all.own(), recompute);
        expect_near(got.y, own_crops(want.y, images), 1e-5f, "y");
        expect_near(got.dx, own_crops(want.dx, images), 2e-5f, "dx");
        expect_near(got.running_mean, want.running_mean, 1e-6f, "running mean");
        expect_near(got.running_var, want.running_var, 1e-6f, "running variance");
        for (auto [own, whole] : {std::pair{got.dgamma, want.dgamma}, std::pair{got.dbeta, want.dbeta}}) {
          ranks().all_reduce(own);
          expect_near(own, whole, 1e-5f, "gradients of scale and shift");
        }
      }
}

TEST(BatchNorm, OfAGroupSeesTheGroupAlone) {
  const int size = ranks().size(), rank = ranks().rank();
  const auto pair = ranks().split(rank / 2);
  const int64_t images = 4 * size + 1, c = 6;
  const int first = rank / 2 * 2, last = std::min(first + 2, size);
  dist::Ranks all{.all = &ranks(), .images = images, .statistics = pair.get(), .statistics_first = first};
  const int64_t begin = dist::share_of(images, first, size).first, end = dist::share_of(images, last - 1, size).last;
  const dist::Share own_share = dist::share_of(images, rank, size);
  const Tensor x = normal({images, c}, 3), group = x.slice(begin, end).clone();
  const Tensor own = x.slice(own_share.first, own_share.last).clone();
  const Tensor one = Tensor::full({c}, 1.f), zero = Tensor::full({c}, 0.f), mean = zero.clone(), var = one.clone();
  const Tensor want = batch_norm(group, one, zero, mean, var, {.training = true});
  const dist::RanksScope scope(&all);
  const Tensor got = batch_norm(own, one, zero, zero.clone(), one.clone(), {.training = true});
  expect_near(got, want.slice(own_share.first - begin, own_share.last - begin), 1e-5f, "y");
}

TEST(Sinkhorn, OfAllProcessesIsThatOfTheWholeBatch) {
  for (const int64_t images : {8 * ranks().size(), 8 * ranks().size() + (ranks().size() + 1) / 2})
    for (const float eps : {0.05f, 0.002f}) {
      const Tensor scores = normal({images, 21}, 5, 0.3f);
      const Tensor want = sinkhorn(scores, eps, 4);
      dist::Ranks all{.all = &ranks(), .images = images};
      const dist::RanksScope scope(&all);
      const Tensor got = sinkhorn(own_rows(scores, images), eps, 4);
      expect_near(got, own_rows(want, images), 4e-6f / eps, "assignments");
    }
}

}  // namespace
}  // namespace saccade
