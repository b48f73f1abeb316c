#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "targets.h"

/// Every input of the corpora once more, in whatever way this test is built.
namespace {

class Corpus : public testing::TestWithParam<size_t> {};

TEST_P(Corpus, IsReadOrRefused) {
  const auto& target = kTargets[GetParam()];
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(SACCADE_CORPUS "/") + target.name)) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NO_THROW(target.run(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()));
    ++files;
  }
  EXPECT_GT(files, 0);
}

INSTANTIATE_TEST_SUITE_P(Of, Corpus, testing::Range<size_t>(0, std::size(kTargets)),
                         [](const auto& info) { return std::string(kTargets[info.param].name); });

}  // namespace
