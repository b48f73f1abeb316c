#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/kernels/error.h>
#include <saccade/vision/run_images.h>

#include <vector>

#include "support/temporary_folder.h"

namespace saccade::vision {
namespace {

using test::complaint;
using test::put;

/// A folder of images, and that of a run which has learned from them and can go on.
struct RunOnImages : ::testing::Test {
  RunOnImages() {
    std::filesystem::create_directory(photos);
    for (const char* name : {"a.pgm", "b.pgm"}) put(photos / name, "P5 1 1 255\nx");
    const ssl::RunFolder made(run);
    compare().store(made);
    const std::vector<NamedTensor> tensors{{"w", Tensor::zeros({1})}};
    io::save_checkpoint(made.checkpoints(), 1, tensors, "{}", 1);
  }
  RunImages compare(RunImagesOptions options = {}) const {
    return compare_images(run, data::folder(photos.string()), photos.string(), options);
  }
  test::TemporaryFolder folder;
  std::filesystem::path photos = folder / "photos", run = folder / "run";
};

TEST_F(RunOnImages, GoesOnWithTheSameOnesWordlesslyAndTellsOfAMove) {
  EXPECT_EQ(compare().notice, "");
  EXPECT_FALSE(compare().has_changed);
  std::filesystem::rename(photos, folder / "elsewhere");
  photos = folder / "elsewhere";
  EXPECT_NE(compare().notice.find("have moved"), std::string::npos) << compare().notice;
  EXPECT_FALSE(compare().has_changed);
}

TEST_F(RunOnImages, RefusesOthersByNameUnlessTheyAreAccepted) {
  put(photos / "c.pgm", "P5 1 1 255\nx");
  const std::string said = complaint<Error>([&] { compare({.how_to_accept = "--yes"}); });
  EXPECT_NE(said.find("1 added (c.pgm)"), std::string::npos) << said;
  EXPECT_NE(said.find("go on with --yes"), std::string::npos) << said;
  const RunImages accepted = compare({.accept_changed = true});
  EXPECT_TRUE(accepted.has_changed);
  EXPECT_TRUE(accepted.now.was_changed);
  EXPECT_NE(accepted.notice.find("which was accepted"), std::string::npos) << accepted.notice;
  accepted.store(ssl::RunFolder(run));
  EXPECT_FALSE(compare().has_changed);
  EXPECT_TRUE(compare().now.was_changed) << "a run never forgets that its images changed";
  EXPECT_FALSE(compare({.fresh = true}).has_changed) << "a run that starts over compares nothing";
}

TEST_F(RunOnImages, ThatWereNotWrittenDownAreKnownByTheirPlace) {
  std::filesystem::remove(run / "data.tsv");
  EXPECT_NE(complaint<Error>([&] { compare(); }).find("were not written down"), std::string::npos);
  EXPECT_EQ(compare({.path_before = photos.string()}).notice, "");
}

}  // namespace
}  // namespace saccade::vision
