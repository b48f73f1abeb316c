#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/layer.h>

namespace saccade::dist {

std::vector<Share> Ranks::shares(int rank) const {
  if (batches.empty()) return {share_of(images, rank, all->size())};
  std::vector<Share> shares;
  int64_t before = 0;
  for (const Ranks& batch : batches) {
    const Share share = share_of(batch.images, rank, all->size());
    shares.push_back({before + share.first, before + share.last});
    before += batch.images;
  }
  return shares;
}

int64_t Ranks::images_of(int rank) const {
  int64_t sum = 0;
  for (const Share& share : shares(rank)) sum += share.images();
  return sum;
}

Ranks::Parts Ranks::parts_of_statistics() const {
  const int64_t count = statistics->size(), more = images % all->size() - statistics_first;
  return {.count = count, .each = images / all->size(), .larger = std::clamp<int64_t>(more, 0, count)};
}

namespace {

/// Of (views * images, D): the number of images is told, that of views follows.
int64_t views_of(const Tensor& x, int64_t images) {
  if (x.rank() != 2 || x.dim(0) % images != 0)
    fail(fmt::format("views of {} images, the same number of each: {}", images, to_string(x.shape())));
  return x.dim(0) / images;
}

}  // namespace

Tensor gather_views(const Tensor& x) {
  const Ranks* ranks = current_ranks();
  if (ranks == nullptr || !x.defined()) return x;
  const NoGradScope no_grad;
  const DeviceScope device(x.device());
  const int size = ranks->all->size();
  const int64_t own = ranks->own(), images = ranks->images, dim = x.dim(1), views = views_of(x, own);
  const int64_t most = ranks->images_of(0);
  Tensor padded = x.detach();
  if (own < most) {  // all parts are of one size
    padded = Tensor::zeros({views * most, dim}, x.dtype());
    for (int64_t v = 0; v < views; ++v)
      padded.slice(v * most, v * most + own).copy_from(x.detach().slice(v * own, (v + 1) * own));
  }
  const Tensor parts = Tensor::empty({size * views * most, dim}, x.dtype());
  ranks->all->all_gather(padded, parts);
  const Tensor all = Tensor::empty({views * images, dim}, x.dtype());
  for (int rank = 0; rank < size; ++rank)
    for (int64_t v = 0; v < views; ++v) {
      int64_t from = (rank * views + v) * most;
      for (const Share& share : ranks->shares(rank)) {
        all.slice(v * images + share.first, v * images + share.last)
            .copy_from(parts.slice(from, from + share.images()));
        from += share.images();
      }
    }
  return all;
}

Tensor own_views(const Tensor& all) {
  const Ranks* ranks = current_ranks();
  if (ranks == nullptr || !all.defined()) return all;
  const NoGradScope no_grad;
  const DeviceScope device(all.device());
  const int64_t views = views_of(all, ranks->images);
  const Tensor own = Tensor::empty({views * ranks->own(), all.dim(1)}, all.dtype());
  int64_t to = 0;
  for (int64_t v = 0; v < views; ++v)
    for (const Share& share : ranks->shares(ranks->all->rank())) {
      own.slice(to, to + share.images())
          .copy_from(all.detach().slice(v * ranks->images + share.first, v * ranks->images + share.last));
      to += share.images();
    }
  return own;
}

}  // namespace saccade::dist
