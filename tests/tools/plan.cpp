// saccade-plan as a person runs it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "programs.h"

namespace saccade::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Outcome plan(std::vector<std::string> more) {
  std::vector<std::string> arguments{
      "--model", "y:d=6,w0=16,wa=8,wm=2,g=8", "--crops", "2x32+2x16", "--batch", "8", "--hidden", "32"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run("plan", arguments);
}

TEST(PlanProgram, SaysWhatAStepTakesAndDrawsIt) {
  const TemporaryFolder folder;
  const Outcome outcome = plan({"--device", "v100-32gb", "--html", (folder / "plan.html").string()});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("on NVIDIA V100"), HasSubstr("Fits: "), HasSubstr("of 31.75 GiB"),
                                 HasSubstr("Largest batch that fits: "), HasSubstr("Plan: 0-"), HasSubstr("each block"),
                                 HasSubstr("block1-0")));
  const std::string page = content_of(folder / "plan.html");
  for (const char* part : {"class=\"area s5\"", "The plan: 0-", "recomputation in it (amber)", "</html>"})
    EXPECT_NE(page.find(part), page.npos) << part;
}

TEST(PlanProgram, NamesTheSmallestBudgetAndWhatWouldHelp) {
  const Outcome outcome = plan({"--device", "v100-32gb", "--budget", "1741MiB"});
  EXPECT_EQ(outcome.status, 1) << outcome.out;
  EXPECT_THAT(
      outcome.out,
      AllOf(HasSubstr("Does not fit in 1.70 GiB: the smallest budget that would do is 1.71 GiB"),
            HasSubstr("Would need: --precision bf16: "), HasSubstr("Would need: --fuse-optimizer: "),
            HasSubstr("Would need: --momentum bf16: "), HasSubstr("Would need: --batch 4: "), Not(HasSubstr("Fits"))));
  EXPECT_EQ(outcome.err, "");
}

TEST(PlanProgram, MeasuresThisMachineOnce) {
  const TemporaryFolder folder;
  const std::vector<std::string> flags{"--precision", "bf16", "--calibration", (folder / "times.json").string()};
  const Outcome first = plan(flags);
  EXPECT_EQ(first.status, 0) << first.err;
  EXPECT_THAT(first.out, HasSubstr("on this machine, 1 threads"));
  const std::string times = content_of(folder / "times.json");
  EXPECT_THAT(times, AllOf(HasSubstr("conv2d_backward_weight "), HasSubstr(" bf16 "), HasSubstr("\"sgd ")));
  EXPECT_EQ(plan(flags).status, 0);
  EXPECT_EQ(content_of(folder / "times.json"), times);
  put(folder / "mine.json", "[1, 2]");
  EXPECT_THAT(plan({"--calibration", (folder / "mine.json").string()}).err, HasSubstr("mine.json: cannot be written"));
  EXPECT_EQ(content_of(folder / "mine.json"), "[1, 2]");
}

TEST(PlanProgram, WrongFlagsAreSentences) {
  const auto complaint = [](const std::vector<std::string>& flags, int status) {
    const Outcome outcome = plan(flags);
    EXPECT_EQ(outcome.status, status) << outcome.out;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    return outcome.err;
  };
  EXPECT_THAT(complaint({"--device", "tpu"}, 1), HasSubstr("a100-40gb"));
  EXPECT_THAT(complaint({"--budget", "much"}, 1), HasSubstr("much"));
  EXPECT_THAT(complaint({"--precision", "f8"}, 2), HasSubstr("--precision"));
  EXPECT_THAT(complaint({"--device", "cpu", "--fuse-optimizer", "--accumulate", "2"}, 1), HasSubstr("saccade-plan: "));
}

}  // namespace
}  // namespace saccade::test
