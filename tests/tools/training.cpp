#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/npy.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/nn/key_match.h>
#include <saccade/nn/regnet.h>
#include <saccade/ssl/report/run_log.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> logged_steps(const fs::path& run) {
  std::vector<int64_t> steps;
  for (const ssl::LogLine& line : ssl::read_run_log(run / "log.jsonl"))
    if (line.kind == "step") steps.push_back(line.step);
  return steps;
}

std::vector<int64_t> first_numbers(int64_t count) {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < count; ++i) numbers.push_back(i);
  return numbers;
}

int64_t lines_of(const fs::path& file) {
  const std::string text = fs::exists(file) ? content_of(file) : "";
  return std::count(text.begin(), text.end(), '\n');
}

/// The share that a line of saccade-eval's table says.
double percentage(const std::string& table, const std::string& row) {
  const size_t at = table.find(row), end = table.find('%', at);
  if (at == std::string::npos || end == std::string::npos) return NAN;
  return std::stod(table.substr(table.rfind(' ', end - 2), end));
}

TEST(Programs, PretrainWithinMinutesChoosesAllAndSaysWhy) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  const fs::path run_folder = folder / "run";
  const auto start = std::chrono::steady_clock::now();
  const Outcome trained =
      run("pretrain", {"--data", folder / "photos", "--run", run_folder, "--minutes", "0.2", "--hue", "0.3"});
  ASSERT_EQ(trained.status, 0) << trained.out << trained.err;
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 40);
  for (const char* flag : {"method", "trunk", "crops", "batch", "optimizer", "lr", "precision", "iterations"})
    EXPECT_NE(trained.out.find(std::string("Chosen: --") + flag), std::string::npos) << flag << '\n' << trained.out;
  EXPECT_EQ(trained.out.find("Chosen: --hue"), std::string::npos) << "it was given";

  // All of it is stored: the run goes on, and can be made again, without another look at images and time.
  const std::string trunk = content_of(run_folder / "trunk.safetensors");
  const Outcome again =
      run("pretrain", {"--config", run_folder / "config.toml", "--data", folder / "photos", "--run", folder / "again"});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_EQ(again.out.find("Chosen:"), std::string::npos) << again.out;
  EXPECT_EQ(content_of(folder / "again" / "trunk.safetensors"), trunk);
  EXPECT_EQ(run("pretrain", {"--run", run_folder.string()}).status, 0);
}

TEST(Programs, PretrainWithinMinutesKeepsABudgetAndAGivenLength) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  const Outcome kept = run("pretrain", {"--data", folder / "photos", "--run", folder / "kept", "--minutes", "0.2",
                                        "--memory-budget", "700MiB"});
  EXPECT_EQ(kept.status, 0) << kept.out << kept.err;
  EXPECT_NE(kept.out.find("Memory: "), std::string::npos) << kept.out;
  const Outcome given = run(
      "pretrain", {"--data", folder / "photos", "--run", folder / "given", "--minutes", "0.2", "--iterations", "3"});
  EXPECT_EQ(given.status, 0) << given.err;
  EXPECT_EQ(logged_steps(folder / "given"), first_numbers(3));
  EXPECT_NE(given.out.find("--minutes does not decide it"), std::string::npos) << given.out;
}

TEST(Programs, PretrainThenEvaluateThenEmbed) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  put(folder / "photos" / "a" / "zz.jpg", "no picture");
  const fs::path run_folder = folder / "runs" / "first";
  const Outcome trained = run("pretrain", tiny_training(folder / "photos", run_folder, 4,
                                                        {"--knn-data", (folder / "photos").string(), "--knn-every", "2",
                                                         "--names", "timm", "--knn-neighbours", "5"}));
  ASSERT_EQ(trained.status, 0) << trained.out << trained.err;
  EXPECT_NE(trained.out.find("kNN"), std::string::npos);
  EXPECT_EQ(logged_steps(run_folder), first_numbers(24));

  std::set<std::string> kinds;
  std::vector<std::string> unreadable;
  for (const ssl::LogLine& line : ssl::read_run_log(run_folder / "log.jsonl")) {
    kinds.insert(line.kind);
    if (line.kind == "unreadable") unreadable = line.lists.at("files");
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"baselines", "evaluation", "health", "notice", "step", "unreadable"}));
  ASSERT_EQ(unreadable.size(), 1U);
  EXPECT_NE(unreadable[0].find("zz.jpg"), std::string::npos);

  const std::string page = content_of(run_folder / "report.html");
  for (const char* part : {"<svg", "data:image/png;base64,", "assignment entropy", "Learning rate",
                           "What some prototypes", "untrained network"})
    EXPECT_NE(page.find(part), std::string::npos) << part;
  bool has_events = false;
  for (const auto& entry : fs::directory_iterator(run_folder))
    has_events |= entry.path().filename().string().starts_with("events.out.tfevents.");
  EXPECT_TRUE(has_events);

  // What it learned is wholly there, under the names asked for, and is what the last checkpoint holds.
  const io::Safetensors file = io::load_safetensors(run_folder / "trunk.safetensors");
  EXPECT_EQ(file.metadata.at("size"), "24");
  const auto trunk = nn::regnet(file.metadata.at("trunk"), 99);
  const nn::KeyMatch match = nn::match_keys(*trunk, file.tensors);
  ASSERT_TRUE(match.whole()) << match.describe();
  EXPECT_EQ(match.names, nn::Names::timm);
  match.load();
  const io::Checkpoint last = io::load_checkpoint(run_folder / "checkpoints" / "step-00000024.ckpt");
  for (const NamedTensor& t : trunk->named_parameters()) {
    const auto ours = t.tensor.data<float>(), theirs = last["model.trunk." + t.name].data<float>();
    EXPECT_TRUE(std::equal(ours.begin(), ours.end(), theirs.begin(), theirs.end())) << t.name;
  }

  // The classes are plain: a network that sees anything at all tells them apart. Nine images would be chance.
  make_photos(folder / "many", 60);
  const std::vector<std::string> judge{"--weights", run_folder.string(),        "--train", (folder / "photos").string(),
                                       "--test",    (folder / "many").string(), "--knn",   "5,0.07",
                                       "--linear"};
  const Outcome judged = run("eval", judge);
  ASSERT_EQ(judged.status, 0) << judged.err;
  EXPECT_GE(percentage(judged.out, "kNN, k = 5"), 70) << judged.out;
  EXPECT_GE(percentage(judged.out, "linear"), 70) << judged.out;
  EXPECT_NE(judged.out.find("features   untrained network    raw pixels"), std::string::npos) << judged.out;
  EXPECT_NE(judged.err.find("zz.jpg"), std::string::npos);
  // The features are the same numbers without what they are shown beside.
  std::vector<std::string> without = judge;
  without.insert(without.end(), {"--baselines", "false"});
  const Outcome plain = run("eval", without);
  EXPECT_EQ(plain.out.find("untrained"), std::string::npos) << plain.out;
  for (const char* row : {"kNN, k = 5", "linear"})
    EXPECT_EQ(percentage(plain.out, row), percentage(judged.out, row)) << plain.out << judged.out;

  const std::vector<std::string> embed{"--weights", run_folder.string(), "--data", (folder / "photos").string()};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), embed.begin(), embed.end());
    return run("embed", arguments);
  };
  const Outcome embedded = with({"--out", (folder / "f.npy").string(), "--unit"});
  ASSERT_EQ(embedded.status, 0) << embedded.err;
  EXPECT_NE(embedded.err.find("zz.jpg"), std::string::npos);
  const Tensor features = io::read_npy(folder / "f.npy");
  ASSERT_EQ(features.shape(), (Shape{48, trunk->out_channels()}));
  double squares = 0;
  const Tensor first = features.slice(0, 1);
  for (const float v : first.data<float>()) squares += double{v} * double{v};
  EXPECT_NEAR(squares, 1, 1e-5);
  EXPECT_EQ(lines_of(folder / "f.csv"), 49);
  EXPECT_NE(content_of(folder / "f.csv").find("\n47," + (folder / "photos" / "c" / "p.ppm").string() + ",c\n"),
            std::string::npos);

  ASSERT_EQ(with({"--out", (folder / "g.safetensors").string()}).status, 0);
  EXPECT_EQ(io::load_safetensors(folder / "g.safetensors")["features"].shape(), features.shape());
}

TEST(Programs, WorkersChangeNothing) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  std::string first;
  for (const char* workers : {"0", "1", "2", "4"}) {
    const fs::path run_folder = folder / (std::string("run") + workers);
    const Outcome trained = run("pretrain", tiny_training(folder / "photos", run_folder, 2, {"--workers", workers}));
    ASSERT_EQ(trained.status, 0) << trained.err;
    const std::string bytes = content_of(run_folder / "trunk.safetensors");
    if (first.empty()) first = bytes;
    EXPECT_TRUE(bytes == first) << workers << " workers";
  }
}

TEST(Programs, KilledAtTenMomentsAndResumedGivesTheSameBits) {
  const TemporaryFolder folder, words;
  make_photos(folder / "photos");
  const std::vector<std::string> often{"--checkpoint-every", "7", "--queue", "16", "--queue-start", "30"};
  const Outcome whole = run("pretrain", tiny_training(folder / "photos", folder / "whole", 40, often));
  ASSERT_EQ(whole.status, 0) << whole.err;

  const fs::path run_folder = folder / "killed";
  const auto arguments = tiny_training(folder / "photos", run_folder, 40, often);
  Philox random(2024);
  int killed = 0;
  for (int i = 0; i < 10; ++i) {
    Process process("pretrain", arguments, words.path());
    // Some lines into this sitting: the first of which may replace those of an earlier one.
    const auto lines = static_cast<int64_t>(random.below(25));
    int64_t seen = 0;
    uintmax_t size = 0;
    wait_until(process, [&] {
      std::error_code none;
      const uintmax_t now = fs::file_size(run_folder / "log.jsonl", none);
      if (!none && now != size) {
        size = now;
        ++seen;
      }
      return seen > lines;
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(8000)));
    process.signal(SIGKILL);
    killed += process.wait() == -SIGKILL ? 1 : 0;
  }
  EXPECT_GE(killed, 8);
  EXPECT_FALSE(io::checkpoint_steps(run_folder / "checkpoints").empty());
  const Outcome rest = run("pretrain", arguments);
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.out.find("Going on from"), std::string::npos) << rest.out;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == content_of(folder / "whole" / "trunk.safetensors"));
  EXPECT_EQ(logged_steps(run_folder), first_numbers(240));
}

TEST(Programs, AWarningOfASchedulerOrAClosedTerminalWritesACheckpointAsCtrlCDoes) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  for (const int signal : {SIGHUP, SIGUSR1, SIGUSR2, SIGTERM}) {
    SCOPED_TRACE(strsignal(signal));
    const TemporaryFolder words;
    const fs::path run_folder = folder / std::to_string(signal);
    Process process("pretrain", tiny_training(folder / "photos", run_folder, 3000), words.path());
    ASSERT_TRUE(wait_until(process, [&] { return lines_of(run_folder / "log.jsonl") > 10; })) << process.err();
    process.signal(signal);
    if (signal != SIGTERM) process.signal(signal);  // schedulers and terminals repeat themselves
    ASSERT_EQ(process.wait(), 130) << process.err();
    EXPECT_EQ(io::checkpoint_steps(run_folder / "checkpoints").back(),
              static_cast<int64_t>(logged_steps(run_folder).size()));
    EXPECT_NE(process.out().find("To go on: saccade-pretrain"), std::string::npos) << process.out();
  }
}

TEST(Programs, NobodyReadingItsWordsDoesNotEndARun) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  std::string command = std::string("OMP_NUM_THREADS=1 '") + SACCADE_BIN + "/saccade-pretrain'";
  for (const std::string& argument : tiny_training(folder / "photos", folder / "run", 30))
    command += " '" + argument + "'";
  ASSERT_EQ(std::system((command + " | true").c_str()), 0);
  EXPECT_EQ(logged_steps(folder / "run").size(), 180U);
  EXPECT_TRUE(fs::exists(folder / "run" / "report.html"));
}

TEST(Programs, AnInterruptedRunSaysHowToGoOn) {
  const TemporaryFolder folder, words;
  make_photos(folder / "photos");
  ASSERT_EQ(run("pretrain", tiny_training(folder / "photos", folder / "whole", 30)).status, 0);

  const fs::path run_folder = folder / "it's mine";
  Process process("pretrain", tiny_training(folder / "photos", run_folder, 30), words.path());
  ASSERT_TRUE(wait_until(process, [&] { return lines_of(run_folder / "log.jsonl") > 10; })) << process.err();
  process.signal(SIGINT);
  ASSERT_EQ(process.wait(), 130) << process.err();
  ASSERT_EQ(io::checkpoint_steps(run_folder / "checkpoints").size(), 1U + (logged_steps(run_folder).size() > 6));
  EXPECT_EQ(io::checkpoint_steps(run_folder / "checkpoints").back(),
            static_cast<int64_t>(logged_steps(run_folder).size()));
  EXPECT_TRUE(fs::exists(run_folder / "report.html"));
  EXPECT_FALSE(fs::exists(run_folder / "trunk.safetensors"));

  // The command it printed, through a shell.
  const std::string out = process.out(), start = "To go on: saccade-pretrain ";
  const size_t at = out.find(start);
  ASSERT_NE(at, std::string::npos) << out;
  const std::string flags = out.substr(at + start.size(), out.find('\n', at) - at - start.size());
  const std::string command =
      std::string("OMP_NUM_THREADS=1 '") + SACCADE_BIN + "/saccade-pretrain' " + flags + " > /dev/null";
  ASSERT_EQ(std::system(command.c_str()), 0) << command;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == content_of(folder / "whole" / "trunk.safetensors"));
  EXPECT_EQ(logged_steps(run_folder), first_numbers(180));

  // A network is the same in the file of its weights and in a checkpoint, which a run that is not finished has alone.
  const auto judge = [&] {
    const Outcome judged = run("eval", {"--weights", run_folder.string(), "--train", (folder / "photos").string(),
                                        "--knn", "5,0.1", "--linear"});
    EXPECT_EQ(judged.status, 0) << judged.err;
    return judged.out.substr(judged.out.find('\n'));
  };
  const std::string of_file = judge();
  fs::remove(run_folder / "trunk.safetensors");
  EXPECT_EQ(judge(), of_file);
}

TEST(Programs, GrayIdxFilesGetANetworkOfOneChannel) {
  const TemporaryFolder folder;
  constexpr uint8_t side = 20, count = 30;
  for (const std::string half : {"train", "t10k"}) {
    std::string images("\0\0\x08\x03\0\0\0", 7), labels("\0\0\x08\x01\0\0\0", 7);
    images += static_cast<char>(count);
    for (int d = 0; d < 2; ++d) images += std::string("\0\0\0", 3) + static_cast<char>(side);
    labels += static_cast<char>(count);
    Philox random(half == "train" ? 1 : 2);
    for (int i = 0; i < count; ++i) {
      labels += static_cast<char>(i % 2);
      for (int p = 0; p < side * side; ++p)
        images += static_cast<char>((i % 2 == 0 ? p % side : p / side) * 8 + static_cast<int>(random.below(60)));
    }
    put(folder / (half + "-images-idx3-ubyte"), images);
    put(folder / (half + "-labels-idx1-ubyte"), labels);
  }
  const std::string data = folder.path().string();
  const auto arguments = tiny_training(folder.path(), folder / "run", 3, {"--knn-data", data});
  for (int sitting = 0; sitting < 2; ++sitting) {
    const Outcome trained = run("pretrain", arguments);
    ASSERT_EQ(trained.status, 0) << trained.err;
  }
  EXPECT_NE(content_of(folder / "run" / "config.toml").find(",in=1"), std::string::npos);
  const auto log = ssl::read_run_log(folder / "run" / "log.jsonl");
  EXPECT_EQ(std::ranges::count(log, std::string("baselines"), &ssl::LogLine::kind), 1)
      << "measured in the first sitting";
  const std::string checkpoint = (folder / "run" / "checkpoints" / "step-00000009.ckpt").string();
  const Outcome judged = run("eval", {"--weights", checkpoint, "--train", data, "--linear"});
  ASSERT_EQ(judged.status, 0) << judged.err;
  EXPECT_NE(judged.out.find("30 images of"), std::string::npos) << judged.out;
  EXPECT_GE(percentage(judged.out, "linear"), 80) << judged.out;
}

TEST(Programs, AConfigurationIsReadAndWrittenAndFlagsWin) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  ASSERT_EQ(run("pretrain", tiny_training(folder / "photos", folder / "first", 1)).status, 0);
  const std::string config = (folder / "first" / "config.toml").string();
  const Outcome again = run("pretrain", {"--config", config, "--run", (folder / "second").string()});
  ASSERT_EQ(again.status, 0) << again.err;
  EXPECT_TRUE(content_of(folder / "first" / "trunk.safetensors") ==
              content_of(folder / "second" / "trunk.safetensors"));
  ASSERT_EQ(run("pretrain", {"--config", config, "--run", (folder / "third").string(), "--seed", "5"}).status, 0);
  EXPECT_NE(content_of(folder / "third" / "config.toml").find("\nseed = 5\n"), std::string::npos);
  EXPECT_FALSE(content_of(folder / "first" / "trunk.safetensors") ==
               content_of(folder / "third" / "trunk.safetensors"));

  put(folder / "wrong.toml", "epoch=3\n");
  const Outcome refused = run("pretrain", tiny_training(folder / "photos", folder / "fourth", 1,
                                                        {"--config", (folder / "wrong.toml").string()}));
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.err.find("wrong.toml, line 1: unknown key, epoch"), std::string::npos) << refused.err;
  EXPECT_FALSE(fs::exists(folder / "fourth"));
}

TEST(Programs, AnotherConfigurationDoesNotGoOnWithARun) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  const auto arguments = tiny_training(folder / "photos", folder / "run", 1);
  ASSERT_EQ(run("pretrain", arguments).status, 0);
  const std::string before = content_of(folder / "run" / "config.toml");
  const auto with = [&](const std::vector<std::string>& more) {
    return run("pretrain", tiny_training(folder / "photos", folder / "run", 1, more));
  };
  const Outcome refused = with({"--lr", "0.5", "--eps", "0.03"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("eps (was 0.05, now 0.03), lr (was 0.01875, now 0.5)"), std::string::npos) << refused.err;
  EXPECT_EQ(content_of(folder / "run" / "config.toml"), before);

  EXPECT_EQ(with({"--workers", "1", "--keep", "1"}).status, 0) << "these may change";
  const std::string old_trunk = content_of(folder / "run" / "trunk.safetensors");
  const Outcome fresh = with({"--lr", "0.5", "--fresh"});
  ASSERT_EQ(fresh.status, 0) << fresh.err;
  EXPECT_FALSE(content_of(folder / "run" / "trunk.safetensors") == old_trunk);
  EXPECT_EQ(logged_steps(folder / "run"), first_numbers(6));
}

}  // namespace
}  // namespace saccade::test
