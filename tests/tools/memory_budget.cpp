// saccade-pretrain --memory-budget: kept, or refused before the first image.
#include <gtest/gtest.h>

#include <cstdlib>

#include "programs.h"

namespace saccade::test {
namespace {

/// Measured times go to a folder of the test's own.
struct Budget : ::testing::Test {
  Budget() {
    setenv("XDG_CACHE_HOME", cache.path().c_str(), 1);
    make_photos(folder / "photos");
  }
  Outcome train(const std::string& run_folder, std::vector<std::string> more) {
    return run("pretrain", tiny_training(folder / "photos", folder / run_folder, 3, more));
  }
  std::string trunk(const std::string& run_folder) { return content_of(folder / run_folder / "trunk.safetensors"); }
  TemporaryFolder folder, cache;
};

TEST_F(Budget, IsPlannedKeptAndChangesNothing) {
  ASSERT_EQ(train("plain", {}).status, 0);
  const Outcome refused = train("refused", {"--memory-budget", "1MiB"});
  EXPECT_EQ(refused.status, 1);
  const std::string words = "the smallest memory budget for it is ";
  const size_t at = refused.err.find(words);
  ASSERT_NE(at, std::string::npos) << refused.err;
  EXPECT_FALSE(std::filesystem::exists(folder / "refused" / "log.jsonl"));

  // A little more than the smallest, for this is rounded in print.
  const double mib = std::stod(refused.err.substr(at + words.size()));
  const std::string budget = std::to_string(static_cast<int64_t>(mib * 1.02 * (1 << 20)));
  const Outcome kept = train("kept", {"--memory-budget", budget});
  ASSERT_EQ(kept.status, 0) << kept.err;
  EXPECT_NE(kept.out.find("Memory: "), std::string::npos) << kept.out;
  EXPECT_TRUE(trunk("kept") == trunk("plain"));
  const Outcome ample = train("ample", {"--memory-budget", "4GiB"});
  ASSERT_EQ(ample.status, 0) << ample.err;
  EXPECT_NE(ample.out.find("nothing is recomputed"), std::string::npos) << ample.out;
  EXPECT_TRUE(trunk("ample") == trunk("plain"));
}

TEST_F(Budget, GoesWithEveryPrecisionAndWithAccumulation) {
  for (const std::vector<std::string>& more : {std::vector<std::string>{"--precision", "bf16", "--momentum", "bf16"},
                                               {"--precision", "fp16"},
                                               {"--accumulate", "2", "--queue", "16"}}) {
    std::vector<std::string> budgeted = more;
    budgeted.insert(budgeted.end(), {"--memory-budget", "1GiB"});
    const std::string name = more[1];
    const Outcome plain = train(name, more), kept = train(name + "-kept", budgeted);
    ASSERT_EQ(plain.status, 0) << plain.err;
    ASSERT_EQ(kept.status, 0) << kept.err;
    EXPECT_TRUE(trunk(name) == trunk(name + "-kept")) << name;
  }
}

TEST_F(Budget, ThatIsNoSizeIsASentence) {
  const Outcome outcome = train("none", {"--memory-budget", "potatoes"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("\"potatoes\" is not a size; expected one like 14GiB"), std::string::npos) << outcome.err;
}

}  // namespace
}  // namespace saccade::test
