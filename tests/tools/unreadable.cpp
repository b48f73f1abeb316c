#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/ssl/report/run_log.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

/// Small images, of which one of `every` is broken in one of ten ways. Returns the names of these.
std::set<std::string> make_some_broken(const fs::path& folder, int count, int every) {
  std::set<std::string> broken;
  for (int i = 0; i < count; ++i) {
    const fs::path path =
        folder / std::string(1, static_cast<char>('a' + i % 4)) / (std::to_string(1000000 + i) + ".jpg");
    fs::create_directories(path.parent_path());
    std::string good = "P6 16 16 255\n";
    Philox random(5, static_cast<uint64_t>(i));
    for (int byte = 0; byte < 16 * 16 * 3; ++byte) good += static_cast<char>(random.next_u32());
    const std::array<std::string, 10> ways{"",
                                           good.substr(0, 200),
                                           "no image",
                                           "P6 60000 60000 255\n",
                                           "\xff\xd8\xff\xe0",
                                           "\x89PNG\r\n\x1a\n",
                                           "RIFF1234WEBPVP8 ",
                                           "BM" + std::string(60, '\0'),
                                           "<!DOCTYPE html><html>404</html>",
                                           "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"};
    const bool is_broken = i % every == every / 2;
    put(path, is_broken ? ways[static_cast<size_t>(i / every % 10)] : good);
    if (is_broken) broken.insert(path.string());
  }
  return broken;
}

/// All that the log lists, in its order.
std::vector<std::string> listed(const fs::path& run) {
  std::vector<std::string> all;
  for (const ssl::LogLine& line : ssl::read_run_log(run / "log.jsonl"))
    if (line.kind == "unreadable") all.insert(all.end(), line.lists.at("files").begin(), line.lists.at("files").end());
  return all;
}

/// Each of these files is listed once, with a reason.
void expect_listed_once(const fs::path& run, const std::set<std::string>& broken) {
  const std::vector<std::string> all = listed(run);
  EXPECT_EQ(all.size(), broken.size());
  std::set<std::string> names;
  for (const std::string& text : all) {
    const size_t end = text.find(": ");
    ASSERT_NE(end, std::string::npos) << text;
    EXPECT_GT(text.size(), end + 5) << text;
    names.insert(text.substr(0, end));
  }
  EXPECT_EQ(names, broken);
}

std::vector<std::string> training(const fs::path& photos, const fs::path& run_folder, int batch, int epochs,
                                  const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"--data",   photos.string(),
                                     "--run",    run_folder.string(),
                                     "--trunk",  "y:d=2,w0=8,wa=8,wm=2,g=8,stem_width=8",
                                     "--crops",  "2x16",
                                     "--batch",  std::to_string(batch),
                                     "--epochs", std::to_string(epochs),
                                     "--hidden", "16",
                                     "--dim",    "8",
                                     "--blur",   "0"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(ProgramsOnBrokenImages, TwoThousandOfWhichTwoHundredAreBrokenTrainToTheEndWithTheSameBits) {
  const TemporaryFolder folder;
  const std::set<std::string> broken = make_some_broken(folder / "photos", 2000, 10);
  ASSERT_EQ(broken.size(), 200u);
  std::string weights;
  for (const char* workers : {"0", "1", "4"}) {
    const fs::path run_folder = folder / (std::string("run") + workers);
    const Outcome trained = run("pretrain", training(folder / "photos", run_folder, 50, 2, {"--workers", workers}));
    ASSERT_EQ(trained.status, 0) << trained.err;
    expect_listed_once(run_folder, broken);
    const std::string now = content_of(run_folder / "trunk.safetensors");
    EXPECT_TRUE(weights.empty() || weights == now) << workers;
    weights = now;
  }
}

TEST(ProgramsOnBrokenImages, ARunThatIsKilledGoesOnWithTheSameBitsAndListsEachImageOnce) {
  const TemporaryFolder folder, words;
  const std::set<std::string> broken = make_some_broken(folder / "photos", 300, 10);
  const std::vector<std::string> often{"--checkpoint-every", "7", "--workers", "2"};
  ASSERT_EQ(run("pretrain", training(folder / "photos", folder / "whole", 10, 8, often)).status, 0);

  const fs::path run_folder = folder / "killed";
  const std::vector<std::string> arguments = training(folder / "photos", run_folder, 10, 8, often);
  int killed = 0;
  for (const int64_t step : {9, 20, 45, 100}) {  // of 240, 30 an epoch
    Process process("pretrain", arguments, words.path());
    wait_until(process, [&] {
      if (!fs::exists(run_folder / "log.jsonl")) return false;
      const std::string log = content_of(run_folder / "log.jsonl");
      return log.find("\"step\":" + std::to_string(step) + ",") != std::string::npos;
    });
    process.signal(SIGKILL);
    killed += process.wait() == -SIGKILL ? 1 : 0;
  }
  EXPECT_GE(killed, 3);
  const Outcome rest = run("pretrain", arguments);
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.out.find("Going on from"), std::string::npos) << rest.out;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == content_of(folder / "whole" / "trunk.safetensors"));
  expect_listed_once(folder / "whole", broken);
  expect_listed_once(run_folder, broken);
}

TEST(ProgramsOnBrokenImages, TooManyStopARunWithATableAndAnotherLimitGoesOn) {
  const TemporaryFolder folder;
  const std::set<std::string> broken = make_some_broken(folder / "photos", 300, 3);
  const fs::path run_folder = folder / "run";
  const Outcome stopped = run("pretrain", training(folder / "photos", run_folder, 10, 3));
  EXPECT_EQ(stopped.status, 1);
  const std::string sentence = stopped.err.substr(0, stopped.err.find('\n'));
  EXPECT_TRUE(sentence.starts_with("saccade-pretrain: " + (folder / "photos").string() + ": ")) << stopped.err;
  EXPECT_NE(sentence.find("tried cannot be read, which is more than 10 % of all (--max-unreadable"), std::string::npos)
      << sentence;
  EXPECT_NE(stopped.err.find("  the file is empty ("), std::string::npos) << stopped.err;
  EXPECT_FALSE(listed(run_folder).empty());

  const Outcome more = run("pretrain", {"--run", run_folder.string(), "--max-unreadable", "0.5"});
  ASSERT_EQ(more.status, 0) << more.err;
  EXPECT_NE(more.out.find("Going on from"), std::string::npos) << more.out;
  expect_listed_once(run_folder, broken);
  const Outcome whole =
      run("pretrain",
          training(folder / "photos", folder / "whole", 10, 3,
                   {"--max-unreadable", "0.5", "--knn-data", (folder / "photos").string(), "--knn-every", "1"}));
  ASSERT_EQ(whole.status, 0) << whole.err;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == content_of(folder / "whole" / "trunk.safetensors"));

  int64_t left_out = 0;
  for (const ssl::LogLine& line : ssl::read_run_log(folder / "whole" / "log.jsonl"))
    left_out += line.kind == "notice" && line.texts.at("text").starts_with("kNN: left out: ") ? 1 : 0;
  EXPECT_EQ(left_out, 100) << "three tests name each image once";

  EXPECT_EQ(run("pretrain", training(folder / "photos", folder / "none", 10, 1, {"--max-unreadable", "10"})).status, 2);

  // What is judged and what is embedded is never stopped: all that cannot be read is named and left out.
  const Outcome embedded = run("embed", {"--weights", run_folder.string(), "--data", (folder / "photos").string(),
                                         "--out", (folder / "f.npy").string()});
  ASSERT_EQ(embedded.status, 0) << embedded.err;
  EXPECT_EQ(std::count(embedded.err.begin(), embedded.err.end(), '\n'), 100) << embedded.err;
  for (const std::string& path : broken) EXPECT_NE(embedded.err.find(path + ": "), std::string::npos) << path;
  const std::string table = content_of(folder / "f.csv");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 201);
}

TEST(ProgramsOnBrokenImages, MendedOnesAreLearnedFromWhenTheRunGoesOn) {
  const TemporaryFolder folder;
  const std::set<std::string> broken = make_some_broken(folder / "photos", 300, 3);
  const fs::path run_folder = folder / "run";
  ASSERT_EQ(run("pretrain", training(folder / "photos", run_folder, 10, 2)).status, 1);
  const size_t before = listed(run_folder).size();
  for (const std::string& path : broken) put(path, "P6 16 16 255\n" + std::string(16 * 16 * 3, 'x'));
  EXPECT_NE(run("pretrain", {"--run", run_folder.string()}).err.find("--data-changed accept"), std::string::npos);
  const Outcome rest = run("pretrain", {"--run", run_folder.string(), "--data-changed", "accept"});
  ASSERT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.out.find("Going on from"), std::string::npos) << rest.out;
  EXPECT_LE(listed(run_folder).size(), before);
  const std::string state = io::load_checkpoint(run_folder / "checkpoints" / "step-00000060.ckpt").state;
  EXPECT_NE(state.find("\"source\":\"\""), std::string::npos) << state;
}

}  // namespace
}  // namespace saccade::test
