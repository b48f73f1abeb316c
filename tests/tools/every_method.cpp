// SimCLR and DINO by the programs: from a folder of images to features, on from a checkpoint, and from one run to
// another.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/npy.h>
#include <saccade/ssl/report/run_log.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

class ProgramsOfMethod : public ::testing::TestWithParam<const char*> {
 protected:
  std::string method() const { return GetParam(); }
  std::string crops() const { return method() == "simclr" ? "2x32@0.2-1" : "2x32@0.2-1+2x16@0.1-0.4"; }
  std::vector<std::string> training(const fs::path& photos, const fs::path& run, const char* epochs,
                                    const std::vector<std::string>& more) const {
    std::vector<std::string> all{"--data",    photos.string(),
                                 "--run",     run.string(),
                                 "--method",  method(),
                                 "--trunk",   "y:d=2,w0=8,wa=8,wm=2,g=8,stem=simple,stem_width=8",
                                 "--crops",   crops(),
                                 "--batch",   "8",
                                 "--epochs",  epochs,
                                 "--hidden",  "32",
                                 "--dim",     "16",
                                 "--blur",    "0",
                                 "--workers", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

TEST_P(ProgramsOfMethod, TrainEvaluateEmbedStartFromEachOtherAndGoOn) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  const fs::path first = folder / "first", second = folder / "second", third = folder / "third";
  const Outcome trained = run(
      "pretrain",
      training(folder / "photos", first, "3", {"--knn-data", (folder / "photos").string(), "--knn-neighbours", "5"}));
  ASSERT_EQ(trained.status, 0) << trained.out << trained.err;
  EXPECT_TRUE(fs::exists(first / "report.html"));
  std::vector<double> losses;
  for (const ssl::LogLine& line : ssl::read_run_log(first / "log.jsonl"))
    if (line.kind == "step") losses.push_back(line.numbers.at("loss"));
  ASSERT_GE(losses.size(), 6u);
  for (const double loss : losses) EXPECT_TRUE(std::isfinite(loss));

  const Outcome judged =
      run("eval", {"--weights", first.string(), "--train", (folder / "photos").string(), "--knn", "5,0.07"});
  EXPECT_EQ(judged.status, 0) << judged.out << judged.err;
  const fs::path rows = folder / "rows.npy";
  const Outcome embedded =
      run("embed", {"--weights", first.string(), "--data", (folder / "photos").string(), "--out", rows.string()});
  ASSERT_EQ(embedded.status, 0) << embedded.out << embedded.err;
  for (const float v : io::read_npy(rows).data<float>()) ASSERT_TRUE(std::isfinite(v));

  // Another run begins with what the first has learned.
  const int64_t last = io::checkpoint_steps(first / "checkpoints").back();
  const fs::path checkpoint = first / "checkpoints" / fmt::format("step-{:08}.ckpt", last);
  const Outcome started = run("pretrain", training(folder / "photos", second, "1", {"--init", checkpoint.string()}));
  EXPECT_EQ(started.status, 0) << started.out << started.err;
  EXPECT_NE(started.out.find("Head from it"), std::string::npos) << started.out;

  // Under a budget, in f16 and in two parts: the same way to the end.
  for (const std::vector<std::string>& how :
       {std::vector<std::string>{"--memory-budget", "1GiB"}, {"--precision", "f16", "--accumulate", "2"}}) {
    std::vector<std::string> more = how;
    more.emplace_back("--fresh");
    const Outcome other = run("pretrain", training(folder / "photos", third, "1", more));
    EXPECT_EQ(other.status, 0) << other.out << other.err;
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, ProgramsOfMethod, ::testing::Values("simclr", "dino"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace saccade::test
