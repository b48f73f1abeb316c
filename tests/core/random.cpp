#include <gtest/gtest.h>
#include <saccade/core/random.h>

#include <cmath>

namespace saccade {
namespace {

// Known answers of the authors' distribution (Random123, kat_vectors, philox4x32 10 rounds).
TEST(Philox, EqualsThePublishedVectors) {
  EXPECT_EQ(Philox::block(0, 0, 0), (std::array<uint32_t, 4>{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(Philox::block(~0ull, ~0ull, ~0ull),
            (std::array<uint32_t, 4>{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
}

TEST(Philox, DistributionsHaveTheirMoments) {
  Philox random(1, 2);
  const int n = 200000;
  double uniform = 0, normal = 0, square = 0;
  for (int i = 0; i < n; ++i) {
    uniform += static_cast<double>(random.uniform());
    const double x = static_cast<double>(random.normal());
    normal += x;
    square += x * x;
  }
  EXPECT_NEAR(uniform / n, 0.5, 4 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(normal / n, 0.0, 4 / std::sqrt(1.0 * n));
  EXPECT_NEAR(square / n, 1.0, 4 * std::sqrt(2.0 / n));
}

TEST(Philox, StreamsDiffer) {
  Philox a(1, 0), b(1, 1), c(2, 0);
  const uint32_t x = a.next_u32(), y = b.next_u32(), z = c.next_u32();
  EXPECT_NE(x, y);
  EXPECT_NE(x, z);
}

}  // namespace
}  // namespace saccade
