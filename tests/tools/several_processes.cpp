#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/ssl/report/run_log.h>

#include <chrono>
#include <cmath>
#include <map>
#include <set>

#include "programs.h"

/// @file
/// saccade-pretrain as several processes, joined by MPI: mpirun -n 3 saccade-pretrain ...
namespace saccade::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> as_processes(int count, std::vector<std::string> arguments) {
  std::vector<std::string> all{"--allow-run-as-root", "--oversubscribe", "-n", std::to_string(count),
                               std::string(SACCADE_BIN) + "/saccade-pretrain"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return all;
}

std::map<int64_t, double> losses_of(const fs::path& run) {
  std::map<int64_t, double> losses;
  for (const ssl::LogLine& line : ssl::read_run_log(run / "log.jsonl"))
    if (line.kind == "step") losses[line.step] = line.numbers.at("loss");
  return losses;
}

class SeveralProcesses : public testing::Test {
 protected:
  void SetUp() override {
    if (std::string(SACCADE_MPIRUN).empty()) GTEST_SKIP() << "built without MPI";
    make_photos(photos);
  }
  std::vector<std::string> training(const std::string& to, int epochs, const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags{"--queue", "16", "--queue-start", "2", "--checkpoint-every", "3"};
    flags.insert(flags.end(), more.begin(), more.end());
    return tiny_training(photos, folder / to, epochs, flags);
  }
  Outcome train(int processes, const std::vector<std::string>& flags) {
    return processes == 1 ? run("pretrain", flags) : run(SACCADE_MPIRUN, as_processes(processes, flags));
  }
  static void expect_same_losses(const std::map<int64_t, double>& got, const std::map<int64_t, double>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (const auto& [step, loss] : want) EXPECT_NEAR(got.at(step), loss, 2e-5 * std::abs(loss)) << step;
  }

  TemporaryFolder folder;
  const fs::path photos = folder / "photos";
};

TEST_F(SeveralProcesses, TrainAsOneDoes) {
  const Outcome one = train(1, training("one", 2));
  ASSERT_EQ(one.status, 0) << one.err;
  for (const int processes : {2, 3}) {  // three have 3, 3 and 2 of the 8 images
    const std::string name = "run" + std::to_string(processes);
    const Outcome several = train(processes, training(name, 2));
    ASSERT_EQ(several.status, 0) << several.err;
    EXPECT_NE(several.out.find(std::to_string(processes) + " processes, each with"), std::string::npos) << several.out;
    expect_same_losses(losses_of(folder / name), losses_of(folder / "one"));
    EXPECT_TRUE(fs::exists(folder / name / "trunk.safetensors"));
  }
}

TEST_F(SeveralProcesses, StopWithACheckpointAndGoOnAsAnotherNumberOfThem) {
  ASSERT_EQ(train(1, training("one", 4)).status, 0);
  const TemporaryFolder words;
  Process several(SACCADE_MPIRUN, as_processes(2, training("run", 4)), words.path());
  const fs::path checkpoints = folder / "run" / "checkpoints";
  ASSERT_TRUE(
      wait_until(several, [&] { return fs::exists(checkpoints) && !io::checkpoint_steps(checkpoints).empty(); }));
  several.signal(SIGUSR1);  // which mpirun hands on
  EXPECT_NE(several.wait(), 0);
  EXPECT_NE(several.out().find("Stopped after"), std::string::npos) << several.out() << several.err();
  const Outcome rest = train(3, {"--run", (folder / "run").string()});
  ASSERT_EQ(rest.status, 0) << rest.err;
  expect_same_losses(losses_of(folder / "run"), losses_of(folder / "one"));
}

TEST_F(SeveralProcesses, KnowOfWhatAnyOfThemCouldNotRead) {
  for (const char* broken : {"a/c.ppm", "b/f.ppm", "c/a.ppm"}) put(photos / broken, "P6 40 36 255\nshort");
  ASSERT_EQ(train(1, training("one", 3)).status, 0);
  const Outcome several = train(2, training("run", 3));
  ASSERT_EQ(several.status, 0) << several.err;
  expect_same_losses(losses_of(folder / "run"), losses_of(folder / "one"));
  std::set<std::string> listed;
  for (const ssl::LogLine& line : ssl::read_run_log(folder / "run" / "log.jsonl"))
    if (line.kind == "unreadable") listed.insert(line.lists.at("files").begin(), line.lists.at("files").end());
  EXPECT_EQ(listed.size(), 3U);
}

/// The processes of this program below another one.
std::vector<pid_t> ranks_below(pid_t ancestor) {
  std::map<pid_t, std::pair<pid_t, std::string>> all;  // of each its parent and name
  for (const auto& entry : fs::directory_iterator("/proc")) {
    const std::string stat = content_of(entry.path() / "stat");
    const size_t name = stat.find('('), end = stat.rfind(')');
    if (name == std::string::npos || end == std::string::npos) continue;
    all[std::stoi(stat)] = {std::stoi(stat.substr(end + 4)), stat.substr(name + 1, end - name - 1)};
  }
  std::vector<pid_t> ranks;
  for (const auto& [pid, about] : all) {
    if (!about.second.starts_with("saccade-pretrai")) continue;  // Linux keeps 15 letters
    pid_t above = about.first;
    while (above > 1 && above != ancestor && all.contains(above)) above = all[above].first;
    if (above == ancestor) ranks.push_back(pid);
  }
  return ranks;
}

/// Lines of a log that may be in the middle of being written.
size_t losses_so_far(const fs::path& run) {
  const std::string log = fs::exists(run / "log.jsonl") ? content_of(run / "log.jsonl") : "";
  size_t count = 0;
  for (size_t at = log.find("\"step\",\"step\""); at != std::string::npos; at = log.find("\"step\",\"step\"", at + 1))
    ++count;
  return count;
}

TEST_F(SeveralProcesses, AreStartedAgainWhenOneDies) {
  ASSERT_EQ(train(1, training("one", 8)).status, 0);
  std::vector<std::string> flags{"-n", "2", "--", "saccade-pretrain"};
  const auto of_training = training("run", 8, {"--fresh"});
  flags.insert(flags.end(), of_training.begin(), of_training.end());
  const TemporaryFolder words;
  Process launcher("launch", flags, words.path());
  const fs::path checkpoints = folder / "run" / "checkpoints";
  std::vector<pid_t> ranks;
  ASSERT_TRUE(wait_until(launcher,
                         [&] {
                           if (!fs::exists(checkpoints) || io::checkpoint_steps(checkpoints).empty()) return false;
                           ranks = ranks_below(launcher.pid());
                           return ranks.size() == 2;
                         }))
      << launcher.out() << launcher.err();
  kill(ranks.back(), SIGKILL);
  EXPECT_EQ(launcher.wait(), 0) << launcher.err();
  EXPECT_NE(launcher.out().find("starting again from the newest checkpoint (restart 1 of 3)"), std::string::npos)
      << launcher.out();
  EXPECT_NE(launcher.out().find("Going on from"), std::string::npos);
  expect_same_losses(losses_of(folder / "run"), losses_of(folder / "one"));
}

TEST_F(SeveralProcesses, KilledAtTenMomentsAndStartedAgainHaveTheSameBitsLong) {
  ASSERT_EQ(train(2, training("unbroken", 10)).status, 0);
  Philox random(5, 1);
  for (int moment = 0; moment < 10; ++moment) {
    fs::remove_all(folder / "run");
    std::vector<std::string> flags{"-n", "2", "--", "saccade-pretrain"};
    const auto of_training = training("run", 10);
    flags.insert(flags.end(), of_training.begin(), of_training.end());
    const TemporaryFolder words;
    Process launcher("launch", flags, words.path());
    const size_t steps = random.below(50);
    std::vector<pid_t> ranks;
    ASSERT_TRUE(wait_until(launcher,
                           [&] {
                             ranks = ranks_below(launcher.pid());
                             return ranks.size() == 2 && losses_so_far(folder / "run") >= steps;
                           }))
        << launcher.out() << launcher.err();
    const auto killed = std::chrono::steady_clock::now();
    kill(ranks[random.below(2)], SIGKILL);
    EXPECT_TRUE(wait_until(launcher, [&] { return launcher.out().find("starting again") != std::string::npos; }));
    EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::seconds(10));
    EXPECT_EQ(launcher.wait(), 0) << launcher.err();
    EXPECT_EQ(losses_of(folder / "run"), losses_of(folder / "unbroken")) << "killed after step " << steps;
    EXPECT_EQ(content_of(folder / "run" / "trunk.safetensors"), content_of(folder / "unbroken" / "trunk.safetensors"));
  }
}

TEST_F(SeveralProcesses, AreNotStartedAgainWhenTheySayWhatIsWrong) {
  const Outcome wrong = run("launch", {"-n", "2", "--", "saccade-pretrain", "--data", (photos / "nowhere").string(),
                                       "--run", (folder / "run").string()});
  EXPECT_EQ(wrong.status, 1) << wrong.err;
  EXPECT_EQ(wrong.out.find("starting again"), std::string::npos) << wrong.out;
  EXPECT_EQ(run("launch", {"-n", "2"}).status, 1);
  EXPECT_EQ(run("launch", {"-n", "2", "--", "no-such-program"}).status, 1);
}

TEST_F(SeveralProcesses, SayOnceWhatIsWrongAndEnd) {
  const auto said_once = [](const Outcome& outcome, const std::string& sentence) {
    EXPECT_NE(outcome.status, 0);
    const size_t first = outcome.err.find(sentence);
    ASSERT_NE(first, std::string::npos) << outcome.err;
    EXPECT_EQ(outcome.err.find(sentence, first + 1), std::string::npos) << outcome.err;
  };
  said_once(train(2, {"--data", (photos / "nowhere").string(), "--run", (folder / "run").string()}), "nowhere");
  auto too_small = training("run", 2);
  too_small[static_cast<size_t>(std::ranges::find(too_small, "--batch") - too_small.begin()) + 1] = "2";
  said_once(train(3, too_small), "it is divided among the 3 processes");
  EXPECT_FALSE(fs::exists(folder / "run" / "config.toml"));
}

TEST_F(SeveralProcesses, SayWhichOfThemHangs) {
  for (const size_t which : {size_t{0}, size_t{1}}) {
    const std::string name = "hangs" + std::to_string(which);
    const TemporaryFolder words;
    Process several(SACCADE_MPIRUN, as_processes(2, training(name, 1000, {"--timeout", "0.05"})), words.path());
    std::vector<pid_t> ranks;
    ASSERT_TRUE(wait_until(several,
                           [&] {
                             ranks = ranks_below(several.pid());
                             return ranks.size() == 2 && losses_so_far(folder / name) > 3;
                           }))
        << several.out() << several.err();
    kill(ranks[which], SIGSTOP);  // mpirun starts them in order
    EXPECT_NE(several.wait(), 0);
    EXPECT_NE(several.err().find("process " + std::to_string(which) + " of 2 does not answer"), std::string::npos)
        << several.err();
  }
}

TEST_F(SeveralProcesses, AreNotWhatOtherProgramsAreMadeOf) {
  std::vector<std::string> words = as_processes(2, {"--weights", "x", "--data", photos.string(), "--out", "x.npy"});
  words[4] = std::string(SACCADE_BIN) + "/saccade-embed";
  const Outcome outcome = run(SACCADE_MPIRUN, words);
  EXPECT_NE(outcome.status, 0);
  EXPECT_NE(outcome.err.find("was started as 2"), std::string::npos) << outcome.err;
}

TEST(OneOfSeveralProcesses, SaysThatTheOthersCannotBeReached) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  setenv("RANK", "0", 1), setenv("WORLD_SIZE", "2", 1);
  const Outcome alone = run("pretrain", tiny_training(folder / "photos", folder / "run", 1));
  unsetenv("RANK"), unsetenv("WORLD_SIZE");
  EXPECT_EQ(alone.status, 1);
  EXPECT_NE(alone.err.find("process 0 of 2"), std::string::npos) << alone.err;
}

}  // namespace
}  // namespace saccade::test
