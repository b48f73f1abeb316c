#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace saccade {

/// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
/// Block i of a (key, stream) is a pure function of the three, so a sample's numbers depend on nothing but its own
/// coordinates and a generator is resumed by its counter.
class Philox {
 public:
  /// @param key     the seed
  /// @param stream  an independent sequence under that seed, e.g. epoch and sample index hashed together (see mix())
  explicit Philox(uint64_t key, uint64_t stream = 0, uint64_t block = 0) : key_(key), stream_(stream), block_(block) {}

  /// Four random words: block `block` of this key and stream.
  static std::array<uint32_t, 4> block(uint64_t key, uint64_t stream, uint64_t block) {
    std::array<uint32_t, 4> c = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                 static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)};
    uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = 0xD2511F53ull * c[0], p1 = 0xCD9E8D57ull * c[2];
      c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
           static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    return c;
  }

  /// Mixes two numbers into one stream id (splitmix64 finaliser).
  static uint64_t mix(uint64_t a, uint64_t b) {
    uint64_t z = a * 0x9E3779B97F4A7C15ull + b + 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }

  uint32_t next_u32() {
    if (used_ == 4) {
      words_ = block(key_, stream_, block_++);
      used_ = 0;
    }
    return words_[used_++];
  }
  uint64_t next_u64() {
    const uint64_t low = next_u32();
    return low | static_cast<uint64_t>(next_u32()) << 32;
  }

  /// Uniform in [0, 1), 24 bits.
  float uniform() { return static_cast<float>(next_u32() >> 8) * 0x1p-24f; }
  float uniform(float low, float high) { return low + (high - low) * uniform(); }
  /// Uniform in [0, 1), 53 bits.
  double uniform_double() { return static_cast<double>(next_u64() >> 11) * 0x1p-53; }
  /// Uniform integer in [0, n), n > 0, by the high half of a 32 x 32 bit product (bias below n / 2^32).
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((static_cast<uint64_t>(next_u32()) * n) >> 32); }
  /// Standard normal (Box-Muller, one of the pair; the other is dropped so that draws stay independent of history).
  float normal() {
    const double u = 1.0 - uniform_double();
    return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniform_double()));
  }

 private:
  uint64_t key_, stream_, block_;
  std::array<uint32_t, 4> words_{};
  int used_ = 4;
};

}  // namespace saccade
