#include <fmt/format.h>
#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>

#include <map>

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
  fs::remove(run_folder / "data.tsv");
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

TEST_F(Runs, GoOnWhereTheirImagesHaveMovedOrAreSpelledOtherwise) {
  ASSERT_EQ(run("pretrain", training(data())).status, 0);
  const std::string config = content_of(run_folder / "config.toml"),
                    trunk = content_of(run_folder / "trunk.safetensors");
  EXPECT_NE(config.find("data = \"" + data() + "\"\n"), std::string::npos) << config;
  const std::string relative = fs::relative(data()).string();
  for (const std::string& spelled : {data() + "/", data() + "/a/..", relative, "./" + relative}) {
    forget_the_end(run_folder);
    const Outcome rest = go_on({"--data", spelled});
    EXPECT_EQ(rest.status, 0) << rest.err;
    EXPECT_EQ(rest.out.find("have moved"), std::string::npos) << rest.out;
    EXPECT_EQ(content_of(run_folder / "config.toml"), config);
  }
  fs::rename(folder / "photos", folder / "elsewhere");
  forget_the_end(run_folder);
  const Outcome lost = go_on();
  EXPECT_EQ(lost.status, 1);
  EXPECT_NE(lost.err.find("if it has moved: saccade-pretrain --run"), std::string::npos) << lost.err;
  const Outcome moved = go_on({"--data", data("elsewhere")});
  EXPECT_EQ(moved.status, 0) << moved.err;
  EXPECT_NE(moved.out.find("have moved from " + (folder / "photos").string() + " to " + data("elsewhere")),
            std::string::npos)
      << moved.out;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == trunk);
  forget_the_end(run_folder);
  EXPECT_EQ(go_on().status, 0) << "it knows the new place";
}

TEST_F(Runs, DoNotGoOnWithOtherImagesUnlessThatIsAccepted) {
  ASSERT_EQ(run("pretrain", training(data())).status, 0);
  forget_the_end(run_folder);
  const std::string list = content_of(run_folder / "data.tsv");
  fs::copy(folder / "photos" / "a" / "a.ppm", folder / "photos" / "000.ppm");
  for (const char* name : {"b.ppm", "c.ppm", "d.ppm"})
    fs::copy(folder / "photos" / "a" / name, folder / "photos" / fmt::format("0{}", name));
  fs::remove(folder / "photos" / "b" / "d.ppm");
  put(folder / "photos" / "c" / "c.ppm", "P6 1 1 255\nabc");
  const Outcome refused = go_on();
  EXPECT_EQ(refused.status, 1);
  EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
  EXPECT_NE(refused.err.find("12 images then, 15 now: 4 added (000.ppm, 0b.ppm, 0c.ppm, ...), 1 removed (b/d.ppm), 1 "
                             "replaced (c/c.ppm)"),
            std::string::npos)
      << refused.err;
  EXPECT_EQ(content_of(run_folder / "data.tsv"), list);
  EXPECT_EQ(go_on({"--data-changed", "yes"}).status, 2);

  const Outcome accepted = go_on({"--data-changed", "accept"});
  EXPECT_EQ(accepted.status, 0) << accepted.err;
  EXPECT_NE(accepted.out.find("no longer those of an unbroken run"), std::string::npos) << accepted.out;
  EXPECT_NE(accepted.out.find("Going on from 3 of 6 iterations"), std::string::npos) << "its length stays";
  EXPECT_EQ(content_of(run_folder / "config.toml").find("data-changed"), std::string::npos) << "it holds once";
  EXPECT_EQ(go_on().status, 0) << "these are the run's images now";
  fs::remove(folder / "photos" / "000.ppm");
  EXPECT_EQ(go_on().status, 1);
  EXPECT_EQ(run("pretrain", training(data(), {"--fresh"})).status, 0);
  EXPECT_EQ(go_on().status, 0);
}

TEST_F(Runs, AreNotWrittenWhereOtherThingsLie) {
  const std::string photos = data();
  fs::create_directory(run_folder);
  put(run_folder / "config.toml", "mine\n");
  put(run_folder / "report.html", "mine\n");
  for (const std::string flag : {"--seed=1", "--fresh"}) {
    const Outcome refused = run("pretrain", training(photos, {flag}));
    EXPECT_EQ(refused.status, 1);
    EXPECT_NE(refused.err.find("not the folder of a run"), std::string::npos) << refused.err;
    EXPECT_EQ(content_of(run_folder / "config.toml") + content_of(run_folder / "report.html"), "mine\nmine\n");
    EXPECT_EQ(std::distance(fs::directory_iterator(run_folder), fs::directory_iterator()), 2);
  }
  auto flags = training(photos);
  flags[3] = photos + "/.";
  const Outcome refused = run("pretrain", flags);
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("--run and --data are the same folder"), std::string::npos) << refused.err;
}

TEST_F(Runs, AFinishedOneWithoutItsCheckpointsIsNotReplaced) {
  ASSERT_EQ(run("pretrain", training(data())).status, 0);
  fs::remove_all(run_folder / "checkpoints");
  const std::string trunk = content_of(run_folder / "trunk.safetensors");
  const Outcome refused = run("pretrain", training(data(), {"--seed", "1"}));
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.err.find("without the checkpoints"), std::string::npos) << refused.err;
  EXPECT_TRUE(content_of(run_folder / "trunk.safetensors") == trunk);
  EXPECT_EQ(run("pretrain", training(data(), {"--seed", "1", "--fresh"})).status, 0);
  EXPECT_FALSE(content_of(run_folder / "trunk.safetensors") == trunk);
}

TEST_F(Runs, OutputsAreLookedAtBeforeTheWorkAndOnlyReplacedWhenThatIsAskedFor) {
  ASSERT_EQ(run("pretrain", training(data())).status, 0);
  fs::create_directory(folder / "folder.npy");
  fs::create_directory(folder / "sub");
  put(folder / "a.csv", "id,label\n");
  put(folder / "b.npy", "mine");
  fs::create_symlink(folder / "nowhere", folder / "link.npy");
  const auto embed = [&](const std::string& out, const std::vector<std::string>& more = {}) {
    std::vector<std::string> flags{"--weights", run_folder.string(),    "--data", data(),
                                   "--out",     (folder / out).string()};
    flags.insert(flags.end(), more.begin(), more.end());
    return run("embed", flags);
  };
  const auto before = folder.names();
  for (const auto& [out, words] : std::map<std::string, std::string>{{"a.npy", "a.csv: exists already"},
                                                                     {"b.npy", "b.npy: exists already"},
                                                                     {"link.npy", "link.npy: exists already"},
                                                                     {"none/c.npy", "its folder does not exist"},
                                                                     {"a.csv/c.npy", "its folder is not a folder"},
                                                                     {"folder.npy", "is a folder"}}) {
    const Outcome refused = embed(out);
    EXPECT_EQ(refused.status, 1);
    EXPECT_NE(refused.err.find(words), std::string::npos) << refused.err;
    EXPECT_EQ(refused.out, "") << "said before the work";
    EXPECT_EQ(folder.names(), before);
  }
  EXPECT_EQ(content_of(folder / "a.csv") + content_of(folder / "b.npy"), "id,label\nmine");
  ASSERT_EQ(embed("a.npy", {"--overwrite"}).status, 0);
  EXPECT_TRUE(content_of(folder / "a.csv").starts_with("row,path,class\n"));
  const std::string trunk = (run_folder / "trunk.safetensors").string();
  const Outcome input = run("embed", {"--weights", trunk, "--data", data(), "--out", trunk, "--overwrite"});
  EXPECT_NE(input.err.find("is what is read"), std::string::npos) << input.err;

  put(folder / "plan.html", "mine");
  std::vector<std::string> plan{
      "--trunk", "y:d=2,w0=8,wa=8,wm=2,g=8",     "--crops", "2x24", "--batch", "4", "--device", "v100-32gb",
      "--html",  (folder / "plan.html").string()};
  EXPECT_NE(run("plan", plan).err.find("plan.html: exists already"), std::string::npos);
  EXPECT_EQ(content_of(folder / "plan.html"), "mine");
  plan.emplace_back("--overwrite");
  EXPECT_EQ(run("plan", plan).status, 0);
}

}  // namespace
}  // namespace saccade::test
