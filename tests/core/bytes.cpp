#include <gtest/gtest.h>
#include <saccade/core/bytes.h>
#include <saccade/kernels/error.h>

namespace saccade {
namespace {

TEST(Bytes, ReadsWhatPeopleWrite) {
  EXPECT_EQ(parse_bytes("14GiB"), int64_t{14} << 30);
  EXPECT_EQ(parse_bytes("900 MiB"), int64_t{900} << 20);
  EXPECT_EQ(parse_bytes("1.5g"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("64k"), 65536);
  EXPECT_EQ(parse_bytes("2GB"), 2'000'000'000);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("4096B"), 4096);
}

TEST(Bytes, RefusesTheRest) {
  for (const char* text : {"", "GiB", "-1GiB", "0", "12 potatoes", "1e300G", "nan", "3 GiBs", "1.5.2G"})
    EXPECT_THROW(parse_bytes(text), Error) << text;
}

TEST(Bytes, WritesThemForPeople) {
  EXPECT_EQ(bytes_text(457389875), "436.2 MiB");
  EXPECT_EQ(bytes_text(int64_t{14} << 30), "14.00 GiB");
}

}  // namespace
}  // namespace saccade
