#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "programs.h"

namespace saccade::test {
namespace {

/// The lines of a program's words that begin so.
std::vector<std::string> lines_with(const std::string& words, const std::string& start) {
  std::vector<std::string> found;
  std::istringstream lines(words);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(start)) found.push_back(line);
  return found;
}

class TwoClasses : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared = folder_with_run();
    std::filesystem::create_directories(*shared / "two");
    for (const char* kind : {"a", "b"}) std::filesystem::copy(*shared / "photos" / kind, *shared / "two" / kind);
  }
  static void TearDownTestSuite() { shared.reset(); }

  static Outcome eval(const std::string& photos, const std::vector<std::string>& more) {
    std::vector<std::string> arguments{"--weights", *shared / "run", "--train", *shared / photos, "--knn", "5,0.07"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run("eval", arguments);
  }
  static std::unique_ptr<TemporaryFolder> shared;
};
std::unique_ptr<TemporaryFolder> TwoClasses::shared;

TEST_F(TwoClasses, HaveARowOfAurocThatSaysWhichIsPositive) {
  const Outcome judged = eval("two", {"--linear"});
  ASSERT_EQ(judged.status, 0) << judged.err;
  const auto rows = lines_with(judged.out, "AUROC for b ");
  ASSERT_EQ(rows.size(), 1u) << judged.out;
  EXPECT_EQ(std::ranges::count(rows[0], '%'), 3) << "features, untrained network, raw pixels";
  EXPECT_TRUE(lines_with(eval("photos", {"--linear"}).out, "AUROC").empty()) << "three classes have none";
}

TEST_F(TwoClasses, OfWhichOneIsThereToBeJudgedByHaveASentence) {
  std::filesystem::create_directories(*shared / "one");
  std::filesystem::copy(*shared / "photos" / "b", *shared / "one" / "b");
  const Outcome judged = eval("two", {"--linear", "--test", *shared / "one", "--baselines", "false"});
  ASSERT_EQ(judged.status, 0) << judged.err;
  EXPECT_EQ(lines_with(judged.out, "AUROC for b: none").size(), 1u) << judged.out;
}

TEST_F(TwoClasses, WithFewLabelsAreJudgedInEachWayAndRepeatably) {
  const std::vector<std::string> flags{"--few-labels", "0.25,8", "--draws", "2", "--tune-iterations", "8"};
  const Outcome judged = eval("two", flags);
  ASSERT_EQ(judged.status, 0) << judged.err;
  for (const char* start : {"7 labels, right", "7 labels, AUROC for b", "8 labels, right", "8 labels, AUROC for b"}) {
    const auto rows = lines_with(judged.out, start);
    ASSERT_EQ(rows.size(), 1u) << start << '\n' << judged.out;
    EXPECT_EQ(std::ranges::count(rows[0], '%'), 4) << rows[0];
    EXPECT_NE(rows[0].find(" +- "), std::string::npos) << rows[0];
    EXPECT_EQ(rows[0].find("nan"), std::string::npos) << rows[0];
  }
  EXPECT_EQ(eval("two", flags).out, judged.out);
  const Outcome once =
      eval("photos", {"--few-labels", "9", "--draws", "1", "--tune-iterations", "2", "--baselines", "false"});
  ASSERT_EQ(once.status, 0) << once.err;
  const auto rows = lines_with(once.out, "9 labels, right");
  ASSERT_EQ(rows.size(), 1u) << once.out;
  EXPECT_EQ(std::ranges::count(rows[0], '%'), 3) << rows[0];
  EXPECT_EQ(rows[0].find("+-"), std::string::npos) << "one draw has no error: " << rows[0];
  EXPECT_TRUE(lines_with(once.out, "9 labels, AUROC").empty());
}

TEST_F(TwoClasses, TheWholeNetworkBeginsAsItWasTrainedAndFromScratchAtRandom) {
  make_photos(*shared / "many", 60);
  std::filesystem::remove_all(*shared / "many" / "c");
  // After one iteration little is learned: what the columns say is what the networks were before.
  const std::vector<std::string> flags{"--test",      *shared / "many", "--few-labels",      "8", "--draws", "2",
                                       "--baselines", "false",          "--tune-iterations", "1"};
  const Outcome judged = eval("two", flags);
  ASSERT_EQ(judged.status, 0) << judged.err;
  std::string row = lines_with(judged.out, "8 labels, AUROC for b").at(0);
  std::vector<std::string> worth;
  for (size_t at = row.find('.'); at != std::string::npos; at = row.find('.', row.find('%', at)))
    worth.push_back(row.substr(at - 2, row.find('%', at) - at));
  ASSERT_EQ(worth.size(), 3u) << row;
  EXPECT_NE(worth[1], worth[2]) << row;
}

TEST_F(TwoClasses, FewLabelsThatCannotBeDrawnAreASentence) {
  const auto refused = [](int status, const std::vector<std::string>& flags, const std::string& words) {
    const Outcome outcome = eval("two", flags);
    EXPECT_EQ(outcome.status, status) << outcome.out << outcome.err;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  };
  refused(1, {"--few-labels", "0.25,3"}, "--few-labels 3: 3 samples of 2 classes; two of each are the least");
  refused(1, {"--few-labels", "5.5"}, "--few-labels 5.5: 5.5 samples");
  refused(1, {"--few-labels", "1000"}, "--few-labels 1000: 1000 samples of 26");
  refused(2, {"--few-labels", "0"}, "--few-labels");
  refused(2, {"--few-labels", "-0.1"}, "--few-labels");
  refused(2, {"--few-labels", "nan"}, "--few-labels");
  refused(2, {"--few-labels", "some"}, "--few-labels");
  refused(2, {"--few-labels", "0.5", "--draws", "0"}, "--draws");
  refused(2, {"--few-labels", "0.5", "--tune-iterations", "0"}, "--tune-iterations");
  refused(2, {"--draws", "3"}, "--few-labels");
}

}  // namespace
}  // namespace saccade::test
