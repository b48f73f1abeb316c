// The short programs of examples/, run on small images as their first lines say.
#include <gtest/gtest.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/weights.h>
#include <tools/programs.h>

#include <cmath>
#include <cstdio>
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

}  // namespace
}  // namespace saccade::test
