#pragma once

#include <saccade/core/dist/communicator.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace saccade::dist {

/// Images [first, last) of a batch, those of one process.
struct Share {
  int64_t first = 0, last = 0;
  int64_t images() const { return last - first; }
};

/// How the images of a batch are divided: evenly, in order; where they do not divide, the first processes have one
/// more.
constexpr Share share_of(int64_t images, int rank, int size) {
  const int64_t each = images / size, more = images % size;
  const auto first = [=](int64_t r) { return r * each + std::min(r, more); };
  return {first(rank), first(rank + 1)};
}

/// What a step over several processes knows of them, while it computes on a batch: see RanksScope. Each of them has its
/// share_of() the images of it.
struct Ranks {
  Communicator* all = nullptr;
  int64_t images = 0;  ///< of the batch, of all processes together
  /// Those whose batch norms take their statistics together: successive ones, the first of them number
  /// `statistics_first` of all. Null: each its own.
  Communicator* statistics = nullptr;
  int statistics_first = 0;
  /// Of an iteration that takes several batches: each of them alone (see OnBatch). Empty where there is one.
  std::vector<Ranks> batches = {};
  const Ranks* whole = nullptr;  ///< of one of these: the iteration

  /// How many of the images are a process's.
  int64_t images_of(int rank) const;
  int64_t own() const { return images_of(all->rank()); }
  const Ranks& iteration() const { return whole == nullptr ? *this : *whole; }
  /// Where the images of a process lie among those of all, batch after batch.
  std::vector<Share> shares(int rank) const;
  /// How the images of `statistics` lie: `larger` processes with one image more than `each`, then the others.
  struct Parts {
    int64_t count = 1, each = 0, larger = 0;
    int64_t images() const { return count * each + larger; }
  };
  Parts parts_of_statistics() const;
};

/// While it lives, what is computed on this thread is a part of what several processes compute: batch norm takes its
/// statistics over all, Sinkhorn assigns the rows of all, objectives compare with the embeddings of all. Null: is not.
using RanksScope = FieldScope<&Context::ranks>;

/// While it lives, what is computed is one of an iteration's several batches.
class [[nodiscard]] OnBatch {
 public:
  explicit OnBatch(size_t which) : scope_(of(RanksScope::current(), which)) {}

 private:
  static const Ranks* of(const Ranks* whole, size_t which) {
    return whole == nullptr || whole->batches.empty() ? whole : &whole->batches[which];
  }
  RanksScope scope_;
};

/// What the current RanksScope says; null where there is none, or one process alone.
inline const Ranks* current_ranks() {
  const Ranks* ranks = RanksScope::current();
  return ranks == nullptr || ranks->all->size() == 1 ? nullptr : ranks;
}

/// Rows of this process's images, view after view (views * own, D) -> those of all processes' images, view after view
/// (views * images, D), not recorded: of several batches, those of the first come first. `x` itself where there is one
/// process.
Tensor gather_views(const Tensor& x);
/// The way back: this process's of the rows of all.
Tensor own_views(const Tensor& all);

}  // namespace saccade::dist
