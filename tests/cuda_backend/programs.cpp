// The programs as they are, on doubles and emulator: from photographs to features by way of the device.
#include <gtest/gtest.h>
#include <saccade/core/io/npy.h>
#include <saccade/ssl/report/run_log.h>
#include <tools/programs.h>

#include <cmath>

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

std::vector<double> losses_of(const fs::path& run) {
  std::vector<double> losses;
  for (const ssl::LogLine& line : ssl::read_run_log(run / "log.jsonl"))
    if (line.kind == "step") losses.push_back(line.numbers.at("loss"));
  return losses;
}

TEST(CudaPrograms, PretrainEvaluateAndEmbedAsOnTheCpu) {
  const TemporaryFolder folder;
  const fs::path photos = folder / "photos";
  make_photos(photos);
  Tensor embedded[2];
  std::vector<double> losses[2];
  for (const char* device : {"cpu", "cuda"}) {
    const int which = device == std::string("cuda");
    const fs::path run_folder = folder / device;
    const Outcome trained =
        run("pretrain", tiny_training(photos, run_folder, 2,
                                      {"--device", device, "--knn-data", photos.string(), "--knn-neighbours", "5"}));
    ASSERT_EQ(trained.status, 0) << trained.out << trained.err;
    losses[which] = losses_of(run_folder);
    EXPECT_NE(content_of(run_folder / "report.html").find("What some prototypes"), std::string::npos);
    const std::string weights = run_folder.string();
    const Outcome evaluated = run(
        "eval", {"--weights", weights, "--train", photos.string(), "--knn", "5,0.07", "--linear", "--device", device});
    EXPECT_EQ(evaluated.status, 0) << evaluated.out << evaluated.err;
    const Outcome embeds = run("embed", {"--weights", weights, "--data", photos.string(), "--device", device, "--out",
                                         (folder / (std::string(device) + ".npy")).string()});
    ASSERT_EQ(embeds.status, 0) << embeds.out << embeds.err;
    embedded[which] = io::read_npy(folder / (std::string(device) + ".npy"));
  }
  ASSERT_EQ(losses[0].size(), 12u);
  ASSERT_EQ(losses[1].size(), 12u);
  for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(losses[1][i], losses[0][i], 2e-3) << i;
  ASSERT_EQ(embedded[0].shape(), embedded[1].shape());
  for (int64_t i = 0; i < embedded[0].numel(); ++i)
    ASSERT_NEAR(embedded[1].data<float>()[static_cast<size_t>(i)], embedded[0].data<float>()[static_cast<size_t>(i)],
                0.02)
        << i;
}

TEST(CudaPrograms, ABudgetOfTheDevicesMemoryIsKeptOrRefused) {
  const TemporaryFolder folder;
  make_photos(folder / "photos");
  const auto train = [&](const std::string& budget) {
    return run("pretrain", tiny_training(folder / "photos", folder / budget, 1,
                                         {"--device", "cuda", "--memory-budget", budget, "--precision", "f16"}));
  };
  const Outcome enough = train("900MiB"), too_little = train("1MiB");
  EXPECT_EQ(enough.status, 0) << enough.out << enough.err;
  EXPECT_EQ(too_little.status, 1) << too_little.out;
  EXPECT_NE(too_little.err.find("smallest memory budget for it is"), std::string::npos) << too_little.err;
}

}  // namespace
}  // namespace saccade::test
