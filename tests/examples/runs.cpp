#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>

#include "programs.h"

/// @file
/// What a run's folder promises: it goes on wherever its images lie, and nothing in it but its own is touched.
namespace saccade::test {
namespace {

namespace fs = std::filesystem;

/// Removes the newest checkpoint, so that a finished run has something left to do.
void forget_the_end(const fs::path& run) {
  const fs::path checkpoints = run / "checkpoints";
  fs::remove(checkpoints / fmt::format("step-{:08d}.ckpt", io::checkpoint_steps(checkpoints).back()));
}

/// Six iterations on twelve photos.
class Runs : public testing::Test {
 protected:
  std::string data(const std::string& name = "photos") {
    if (!fs::exists(folder / name)) make_photos(folder / name, 4);
    return folder / name;
  }
  std::vector<std::string> training(const std::string& photos, const std::vector<std::string>& more = {}) {
    auto flags = tiny_training(photos, run_folder, 2, {"--batch", "4"});
    flags.erase(flags.begin() + 8, flags.begin() + 10);  // its own batch
    flags.insert(flags.end(), more.begin(), more.end());
    return flags;
  }
  Outcome go_on(const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags{"--run", run_folder.string()};
    flags.insert(flags.end(), more.begin(), more.end());
    return run("pretrain", flags);
  }

  TemporaryFolder folder;
  const fs::path run_folder = folder / "run";
};

TEST_F(Runs, GoOnWhateverTheFolderOfTheirImagesIsCalled) {
  for (const std::string name :
       {"#1 best", "it's", "a\nb", "\"", "back\\slash\\n", " blank ", "[a, b]", "latin\xe9", "1e5", "{x}", "é"}) {
    SCOPED_TRACE(name);
    fs::remove_all(run_folder);
    const Outcome first = run("pretrain", training(data(name)));
    ASSERT_EQ(first.status, 0) << first.err;
    forget_the_end(run_folder);
    const Outcome rest = go_on();
    EXPECT_EQ(rest.status, 0) << rest.err;
    EXPECT_NE(rest.out.find("Going on from 3 of 6 iterations"), std::string::npos) << rest.out;
    EXPECT_EQ(run("eval", {"--weights", run_folder.string(), "--train", data(name)}).status, 0);
  }
}

TEST_F(Runs, ThatAnEarlierVersionStartedGoOn) {
  const std::string photos = data("#1 \"best\"");
  ASSERT_EQ(run("pretrain", training(photos)).status, 0);
  forget_the_end(run_folder);
  // As it was written then: text in quotes of either kind, nothing escaped.
  put(run_folder / "config.toml",
      fmt::format("# Learns features from a folder of images without labels (SwAV).\n\n# Run Options\n\n"
                  "# Folder of the run\nrun=\"{}\"\nseed=0\ndata='{}'\nexif=true\nmean=[0.485, 0.456, 0.406]\n"
                  "trunk=\"y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8\"\ncrops=\"2x24+2x16\"\nbatch=4\nepochs=2\nhidden=32\n"
                  "dim=16\nprototypes=4\nqueue-start=0\nfreeze=3\nlr=0.009375\nwarmup=0\nhead-bn=true\n",
                  run_folder.string(), photos));
  const Outcome rest = go_on();
  EXPECT_EQ(rest.status, 0) << rest.err;
  EXPECT_NE(rest.out.find("Going on from 3 of 6 iterations"), std::string::npos) << rest.out;
}

}  // namespace
}  // namespace saccade::test
