// The short programs of examples/, run on small images as their first lines say.
#include <gtest/gtest.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/weights.h>
#include <tools/programs.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

namespace saccade::test {
namespace {

Outcome example(const std::string& name, const std::vector<std::string>& arguments) {
  return run(std::string(SACCADE_EXAMPLES) + "/" + name, arguments);
}

TEST(Examples, EmbedAndSearchFindsTheImagesThemselvesFirst) {
  const TemporaryFolder folder;
  make_photos(folder / "photos", 4);
  const std::string trunk = "y:d=2,w0=8,wa=8,wm=2,g=8,stem_width=8";
  ssl::save_trunk(folder / "trunk.safetensors", *nn::trunk(trunk, 1), nn::Names::torchvision,
                  {.trunk = trunk, .size = 24});
  const std::string photos = (folder / "photos").string();
  const Outcome outcome = example("embed_and_search", {folder / "trunk.safetensors", photos, photos});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  for (const char* name : {"a/a.ppm", "b/c.ppm", "c/d.ppm"})
    EXPECT_NE(outcome.out.find(photos + "/" + name + "\n  1.000  " + photos + "/" + name + "\n"), std::string::npos)
        << outcome.out;
  EXPECT_EQ(example("embed_and_search", {"none", photos, photos}).status, 1);
}

TEST(Examples, OwnOpAgreesWithDifferences) {
  const Outcome outcome = example("own_op", {});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::istringstream lines(outcome.out);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    double x = 0, y = 0, slope = 0, by_differences = 0;
    ASSERT_EQ(
        std::sscanf(line.c_str(), "x %lf softplus %lf slope %lf by differences %lf", &x, &y, &slope, &by_differences),
        4)
        << line;
    EXPECT_NEAR(y, std::log1p(std::exp(x)), 1e-3) << line;
    EXPECT_NEAR(slope, by_differences, 2e-3) << line;
  }
  EXPECT_EQ(count, 5);
}

TEST(Examples, OwnAugmentationTrains) {
  const TemporaryFolder folder;
  make_photos(folder / "photos", 11);
  const Outcome outcome = example("own_augmentation", {folder / "photos", "2"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("\n3: "), std::string::npos) << "two batches of 16 images an epoch\n" << outcome.out;
  EXPECT_NE(outcome.out.find("epoch 2: mean loss "), std::string::npos) << outcome.out;
}

TEST(Examples, PretrainFolderKeepsItsBudgetAndLeavesANetworkToSearchWith) {
  const TemporaryFolder folder;
  make_photos(folder / "photos", 11);
  const Outcome outcome = example("pretrain_folder", {folder / "photos", folder / "run", "1"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE((outcome.out + outcome.err).find(" of 4.00 GiB"), std::string::npos) << outcome.out << outcome.err;
  const std::string photos = (folder / "photos").string();
  EXPECT_EQ(example("embed_and_search", {folder / "run", photos, photos}).status, 0);
}

TEST(Examples, WithinMinutesChoosesAndTrains) {
  const TemporaryFolder folder;
  make_photos(folder / "photos", 11);
  const Outcome outcome = example("within_minutes", {folder / "photos", "0.2", folder / "run"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE((outcome.out + outcome.err).find("iterations: "), std::string::npos) << outcome.out << outcome.err;
  const std::string photos = (folder / "photos").string();
  EXPECT_EQ(example("embed_and_search", {folder / "run", photos, photos}).status, 0);
}

TEST(Examples, OwnMethodTrainsAndGoesOn) {
  const TemporaryFolder folder;
  make_photos(folder / "photos", 11);
  const Outcome first = example("own_method", {folder / "photos", "1", folder / "run"});
  ASSERT_EQ(first.status, 0) << first.err;
  EXPECT_TRUE(std::filesystem::exists(folder / "run" / "trunk.safetensors")) << first.out;
  const Outcome again = example("own_method", {folder / "photos", "1", folder / "run"});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_LT(again.out.size(), first.out.size()) << "all of it was there already\n" << again.out;
}

TEST(Examples, PlanBeforeYouBuyHasARowForEachDevice) {
  const Outcome outcome = example("plan_before_you_buy", {"y_200mf"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  for (const std::string& device : plan::device_names())
    EXPECT_NE(outcome.out.find(device + " "), std::string::npos) << outcome.out;
}

}  // namespace
}  // namespace saccade::test
