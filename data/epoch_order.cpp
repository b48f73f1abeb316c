#include <saccade/core/random.h>
#include <saccade/data/epoch_order.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace saccade::data {
namespace {

/// Keep these streams apart from those of the samples, and from each other.
constexpr uint64_t kShuffle = 0x5368756666'6c65ull, kStandIn = 0x5374616e64'496eull, kFillers = 0x46696c6c'657273ull;

constexpr int64_t kDraws = 32;  ///< attempts with a permutation each

void shuffle_with(Philox random, std::vector<uint32_t>& order) {
  for (size_t i = order.size() - 1; i > 0; --i) {
    std::swap(order[i], order[random.below(static_cast<uint32_t>(i + 1))]);
  }
}

std::vector<uint32_t> all_below(int64_t count) {
  std::vector<uint32_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0u);
  return order;
}

/// Where the random permutation of that key and stream sends i: a Feistel network over the next power of 4, walked
/// until the result is below `count` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
int64_t permuted(int64_t i, int64_t count, uint64_t key, uint64_t stream) {
  int half_bits = 1;
  while (int64_t{1} << 2 * half_bits < count) ++half_bits;
  const uint64_t mask = (uint64_t{1} << half_bits) - 1;
  auto at = static_cast<uint64_t>(i);
  do {
    uint64_t left = at >> half_bits, right = at & mask;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t mixed = left ^ (Philox::block(key, stream, round << 32 | right)[0] & mask);
      left = std::exchange(right, mixed);
    }
    at = left << half_bits | right;
  } while (at >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(at);
}

/// Who stood in for a sample when it was found to be unreadable; -1 if that took long to find, where hardly any can be
/// read and all of these stood in often.
int64_t first_stand_in(int64_t count, uint64_t seed, int64_t sample, int64_t epoch, const UnreadSamples& known) {
  for (int64_t attempt = 1; attempt <= kDraws; ++attempt) {
    const int64_t other = stand_in(count, seed, epoch, sample, attempt);
    const auto at = known.find(other);
    if (at == known.end() || at->second.epoch > epoch) return other;
  }
  return -1;
}

}  // namespace

std::vector<uint32_t> order_of_places(int64_t count, uint64_t seed, int64_t epoch, bool shuffle) {
  std::vector<uint32_t> order = all_below(count);
  if (shuffle) shuffle_with(Philox(seed, Philox::mix(kShuffle, static_cast<uint64_t>(epoch))), order);
  return order;
}

int64_t stand_in(int64_t count, uint64_t seed, int64_t epoch, int64_t sample, int64_t attempt) {
  const int64_t draw = std::min(attempt, kDraws), walked = attempt - draw;
  const uint64_t stream = Philox::mix(Philox::mix(kStandIn, static_cast<uint64_t>(epoch)), static_cast<uint64_t>(draw));
  return permuted((sample + walked) % count, count, seed, stream);
}

std::map<int64_t, int64_t> fillers(int64_t count, uint64_t seed, int64_t epoch, const UnreadSamples& known) {
  const auto places = static_cast<int64_t>(known.size()), readable = count - places;
  if (places == 0 || readable == 0) return {};
  std::vector<int> stood_in(static_cast<size_t>(count));
  for (const auto& [sample, found] : known)
    if (const int64_t other = first_stand_in(count, seed, sample, found.epoch, known); other >= 0)
      ++stood_in[static_cast<size_t>(other)];
  std::vector<uint32_t> others = all_below(count);
  shuffle_with(Philox(seed, Philox::mix(kFillers, 0)), others);
  std::erase_if(others, [&](uint32_t i) { return known.contains(i); });
  std::stable_sort(others.begin(), others.end(), [&](uint32_t a, uint32_t b) { return stood_in[a] < stood_in[b]; });
  std::map<int64_t, int64_t> filled;
  int64_t next = (epoch - 1) % readable * places % readable;  // nothing is known in epoch 0
  for (const auto& [sample, found] : known) {
    filled[sample] = others[static_cast<size_t>(next)];
    next = (next + 1) % readable;
  }
  return filled;
}

}  // namespace saccade::data
