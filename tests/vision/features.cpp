#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/core/io/npy.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/data/rows_file.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/vision/features.h>

#include <algorithm>
#include <cmath>

#include "made_up.h"
#include "support/temporary_folder.h"

namespace saccade::vision {
namespace {

using test::TemporaryFolder;

/// What a network of given first values makes of an image of one gray, computed by hand.
Tensor features_of_gray(nn::Trunk& trunk, float gray) {
  const NoGradScope no_grad;
  const ssl::EvaluationScope evaluation(trunk);
  const ssl::TrunkInfo info = tiny_info();
  const Tensor image = Tensor::images({{1, 16, 16}}, 3);
  for (size_t i = 0; i < image.data<float>().size(); ++i)
    image.data<float>()[i] = (gray / 255 - info.mean[i % 3]) / info.std[i % 3];
  return trunk.features(image);
}

TEST(Features, OfASourceAreThoseOfEachImageAsTheNetworkIsShownIt) {
  const ssl::Network network{.trunk = nn::trunk(kTiny, 1), .info = tiny_info()};
  network.trunk->train();
  const data::Rows found = features(network, grays());
  EXPECT_TRUE(network.trunk->is_training()) << "the network gets its mode back";
  EXPECT_EQ(found.indices, (std::vector<int64_t>{0, 1, 2, 4, 5, 6, 7}));
  EXPECT_EQ(found.labels, (std::vector<int>{0, 1, 0, 0, 1, 0, 1}));
  ASSERT_EQ(found.failures.size(), 1u);
  EXPECT_EQ(found.failures[0].reason.find("grays/3"), 0u) << found.failures[0].reason;
  for (const size_t row : {size_t{0}, size_t{4}}) {
    const auto sample = found.indices[row];
    const Tensor by_hand =
        features_of_gray(*network.trunk, static_cast<float>(sample % 2 == 0 ? 20 : 220) + static_cast<float>(sample));
    const auto width = static_cast<size_t>(by_hand.dim(1));
    for (size_t i = 0; i < width; ++i)
      EXPECT_NEAR(found.rows.data<float>()[row * width + i], by_hand.data<float>()[i], 1e-5) << row << ", " << i;
  }
}

TEST(KnnTest, MeasuresWhatNeighboursSayAndTellsOnceOfEachThatCannotBeRead) {
  std::vector<std::string> told;
  const auto measure = knn_test(nn::trunk(kTiny, 1), tiny_info(), {.train = grays(), .test = grays(), .summary = ""},
                                {.neighbours = 1}, [&](const std::string& reason) { told.push_back(reason); });
  for (int i = 0; i < 2; ++i) {
    const auto numbers = measure(i);
    ASSERT_EQ(numbers.size(), 1u);
    EXPECT_EQ(numbers[0].first, "kNN");
    EXPECT_EQ(numbers[0].second, 1) << "each image is its own nearest";
  }
  EXPECT_EQ(told.size(), 1u);
}

TEST(KnnTest, AsksOfTheTestImagesWhatTheTrainImagesSay) {
  data::Source untrue = grays();
  for (const size_t i : {size_t{0}, size_t{2}, size_t{4}}) untrue.labels[i] = 1;
  const data::LabelledPair pair = {.train = grays(3), .test = untrue, .summary = ""};
  const auto numbers = knn_test(nn::trunk(kTiny, 1), tiny_info(), pair, {.neighbours = 1}, {})(0);
  EXPECT_NEAR(numbers[0].second, 4. / 7, 1e-6) << "three of the seven that can be read are dark and said to be bright";
}

TEST(Network, OutOfAFileIsThatWhichWasSavedAndWhatIsKnownBetterWins) {
  const TemporaryFolder folder;
  const auto trunk = nn::trunk(kTiny, 1);
  ssl::save_trunk(folder / "trunk.safetensors", *trunk, nn::Names::torchvision, tiny_info());
  const ssl::Network network = ssl::load_network(folder / "trunk.safetensors");
  EXPECT_TRUE(network.match.whole());
  EXPECT_EQ(network.file, folder / "trunk.safetensors");
  EXPECT_EQ(network.info.metadata(), tiny_info().metadata());
  const data::Rows kept = features(*trunk, tiny_info(), grays()), loaded = features(network, grays());
  EXPECT_TRUE(std::ranges::equal(kept.rows.data<float>(), loaded.rows.data<float>()));

  const ssl::Network other =
      ssl::load_network(folder / "trunk.safetensors", {.size = 24, .std = {1, 1, 1}, .view = "middle"});
  EXPECT_EQ(other.info.size, 24);
  EXPECT_EQ(other.info.std, (std::vector<float>{1, 1, 1}));
  EXPECT_EQ(other.info.view, "middle");
  EXPECT_EQ(other.info.mean, tiny_info().mean);
  EXPECT_THROW(ssl::load_network(folder / "trunk.safetensors", {.trunk = "y_200mf"}), Error);
}

TEST(RowsInFiles, AreAMatrixAndATableOfWhoseTheyAre) {
  const TemporaryFolder folder;
  const data::Source source = grays(3);
  const data::Rows rows{.rows = Tensor::from(std::vector<float>{1, 2, 3, 4}, {2, 2}),
                        .indices = {2, 1},
                        .labels = {-1, 1},
                        .failures = {}};
  data::write_rows(folder / "a.npy", rows, source);
  EXPECT_TRUE(std::ranges::equal(io::read_npy(folder / "a.npy").data<float>(), rows.rows.data<float>()));
  EXPECT_EQ(test::content_of(folder / "a.csv"),
            "row,path,class\n0,\"grays/2, \"\"a\"\".png\",\n1,\"grays/1, \"\"a\"\".png\",bright\n");
  data::write_rows(folder / "b.safetensors", rows, source);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"a.csv", "a.npy", "b.csv", "b.safetensors"}));
  EXPECT_NE(test::complaint<Error>([&] { data::write_rows(folder / "c.txt", rows, source); }).find(".npy"),
            std::string::npos);
  EXPECT_EQ(folder.names().size(), 4u);
}

TEST(Rows, ScaledToUnitLengthKeepTheirDirection) {
  const Tensor rows = Tensor::from(std::vector<float>{3, 4, 0, 0, -5, 0}, {3, 2});
  ssl::scale_to_unit_length(rows);
  const std::vector<float> expected{.6f, .8f, 0, 0, -1, 0};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_FLOAT_EQ(rows.data<float>()[i], expected[i]);
}

}  // namespace
}  // namespace saccade::vision
