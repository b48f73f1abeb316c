#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/kernels/version.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "programs.h"

/// @file
/// Flags that make no sense: each ends a program with one sentence that names it, before anything is done.
namespace saccade::test {
namespace {

namespace fs = std::filesystem;

/// The words of a command line, split at blanks.
std::vector<std::string> words_of(const std::string& line) {
  std::vector<std::string> words;
  std::istringstream text(line);
  for (std::string word; text >> word;) words.push_back(word);
  return words;
}

class Flags : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared = std::make_unique<TemporaryFolder>();
    make_photos(*shared / "photos", 4);
    fs::create_directory(*shared / "empty");
    const Outcome trained = run("pretrain", words_of(training("run") + " --epochs 1"));
    ASSERT_EQ(trained.status, 0) << trained.err;
  }
  static void TearDownTestSuite() { shared.reset(); }
  static std::string training(const std::string& name) {
    return fmt::format("--data {0}/photos --run {0}/{1} --trunk y:d=2,w0=8,wa=8,wm=2,g=8 --hidden 16 --dim 8{2}",
                       shared->path().string(), name, name == "run" ? " --crops 2x16 --batch 4" : "");
  }

  /// Each line, added to a command that is right, is refused: its first word is a flag.
  void expect_refused(const std::string& program, const std::string& command, const std::vector<std::string>& lines) {
    const auto before = shared->names();
    for (const std::string& line : lines) {
      const Outcome outcome = run(program, words_of(command + " " + line));
      EXPECT_TRUE(outcome.status == 1 || outcome.status == 2) << line << ": " << outcome.status << outcome.out;
      EXPECT_TRUE(outcome.err.starts_with("saccade-" + program + ": ")) << line << ": " << outcome.err;
      EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << line << ": " << outcome.err;
      EXPECT_NE(outcome.err.find(line.substr(0, line.find(' '))), std::string::npos) << line << ": " << outcome.err;
      ASSERT_EQ(shared->names(), before) << line << ": nothing is made for a run that cannot be";
    }
  }

  static std::unique_ptr<TemporaryFolder> shared;
};
std::unique_ptr<TemporaryFolder> Flags::shared;

TEST_F(Flags, OfPretrainAreCheckedForSense) {
  expect_refused("pretrain", training("new"),
                 {"--lr -1",
                  "--lr nan",
                  "--lr inf",
                  "--lr 0",
                  "--lr 1e400",
                  "--lr x",
                  "--weight-decay -1",
                  "--weight-decay nan",
                  "--weight-decay 2",
                  "--momentum 0.9",
                  "--warmup -1",
                  "--epochs 0",
                  "--epochs -1",
                  "--epochs 1.5",
                  "--epochs nan",
                  "--batch 0",
                  "--batch -8",
                  "--batch 13",
                  "--batch 1e30",
                  "--accumulate 0",
                  "--mean 123.7 116.3 103.5",
                  "--mean -1 0 0",
                  "--mean nan 0 0",
                  "--mean 0.5 0.5",
                  "--std 0 1 1",
                  "--std -1 1 1",
                  "--std 58.4 57.1 57.4",
                  "--std nan 1 1",
                  "--temperature 0",
                  "--temperature -0.1",
                  "--temperature nan",
                  "--eps 0",
                  "--eps inf",
                  "--sinkhorn 0",
                  "--prototypes 1",
                  "--prototypes -5",
                  "--hidden 0",
                  "--dim 0",
                  "--hidden-layers -1",
                  "--queue -1",
                  "--queue 3",
                  "--queue-start -1",
                  "--freeze -1",
                  "--hard -1",
                  "--workers -1",
                  "--threads -1",
                  "--keep 0",
                  "--checkpoint-every -1",
                  "--seed -1",
                  "--knn-every 0",
                  "--knn-neighbours 0",
                  "--knn-temperature 0",
                  "--flip 1.5",
                  "--flip -0.1",
                  "--jitter nan",
                  "--brightness -1",
                  "--hue 0.6",
                  "--gray 2",
                  "--blur -1",
                  "--crops 2x0",
                  "--crops 2x24@0-1",
                  "--crops 2x24@0.5-2",
                  "--crops 2x24,blur=2",
                  "--crops 2x24,blurr=1",
                  "--crops 2x24@0.5-0.1",
                  "--crops 1x24",
                  "--crops 0x24",
                  "--crops -2x24",
                  "--crops 2x99999",
                  "--crops 2x24@nan-1",
                  "--precision f8",
                  "--names jax",
                  "--max-pixels 0",
                  "--max-unreadable 2",
                  "--max-unreadable nan",
                  "--memory-budget much",
                  "--memory-budget -1GiB",
                  "--memory-budget nanGiB",
                  "--device tpu",
                  "--optimizer adam",
                  "--data-changed maybe",
                  "--exif maybe"});
}

TEST_F(Flags, OfTheOtherProgramsAreCheckedForSense) {
  const std::string in = shared->path().string();
  expect_refused("eval", fmt::format("--weights {0}/run --train {0}/photos", in),
                 {fmt::format("--test {}/photos", in), fmt::format("--test {}/photos/.", in), "--knn 0,0.1",
                  "--knn 5,0", "--knn 5,nan", "--knn 5,inf", "--knn -5,0.1", "--knn 5,0.1x", "--size 0", "--size -8",
                  "--mean 123.7 116.3 103.5", "--std 0 0 0", "--workers -1"});
  expect_refused("embed", fmt::format("--weights {0}/run --data {0}/photos --out {0}/new.npy", in),
                 {"--size 0", "--mean 2 2 2", "--std nan nan nan", "--max-pixels -1", "--threads 5000"});
  expect_refused("plan", "--trunk y:d=2,w0=8,wa=8,wm=2,g=8 --device cpu",
                 {"--batch 0", "--batch -1", "--accumulate 0", "--prototypes 0", "--hidden 0", "--dim -1", "--queue -1",
                  "--workers -1", "--threads -1", "--crops 2x0", "--crops 2x24@2-3", "--budget 0", "--budget -5GiB",
                  "--budget nan", "--precision f8", "--momentum f16"});
}

TEST(Version, IsPrintedByEveryProgramWithWhatItComputesOn) {
  for (const char* program : {"pretrain", "eval", "embed", "plan", "demo"}) {
    const Outcome outcome = run(program, {"--version"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_EQ(outcome.out.find(fmt::format("saccade-{} {}\n", program, version())), 0u) << outcome.out;
    for (const char* line : {"\nCPU: ", "\nCUDA: ", "\noneDNN: ", "\ncompiler: "})
      EXPECT_NE(outcome.out.find(line), std::string::npos) << line << " in " << outcome.out;
  }
}

TEST_F(Flags, ThatAreColoursOfBytesAreToldSo) {
  const Outcome outcome = run("pretrain", words_of(training("new") + " --mean 123.675 116.28 103.53"));
  EXPECT_NE(outcome.err.find("got 123.675"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("divide by 255"), std::string::npos) << outcome.err;
}

TEST_F(Flags, AreWhatTheAdviceOfARunThatDivergesNames) {
  std::string command = training("run");
  command.replace(command.find("/run "), 5, "/diverges ");
  const Outcome outcome = run("pretrain", words_of(command + " --lr 1e30 --epochs 30 --optimizer adamw"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("Halve the learning rate (--lr)"), std::string::npos) << outcome.err;
  for (const char* flag : {"(--lr)", "(--freeze)", "(--prototypes)", "(--hard)", "(--head-bn false)", "(--crops)"})
    EXPECT_NE(outcome.out.find(flag), std::string::npos) << flag << " in " << outcome.out;
  EXPECT_EQ(outcome.out.find("::"), std::string::npos) << "a field of C++";
}

}  // namespace
}  // namespace saccade::test
