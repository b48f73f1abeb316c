#include <gtest/gtest.h>
#include <saccade/core/io/safetensors.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

/// One sentence on stderr that has these words in it, and that exit status.
void expect_sentence(const Outcome& outcome, int status, const std::string& words) {
  EXPECT_EQ(outcome.status, status) << outcome.out << outcome.err;
  EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
  EXPECT_TRUE(outcome.err.starts_with("saccade-")) << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

/// Names of files that were not finished, in a folder and all below it.
std::vector<std::string> unfinished(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.path().extension() == ".tmp") names.push_back(entry.path());
  return names;
}

class BadInput : public testing::Test {
 protected:
  /// A run that is finished, made once.
  static void SetUpTestSuite() { shared = folder_with_run(); }
  static void TearDownTestSuite() { shared.reset(); }

  std::string photos() const { return (*shared / "photos").string(); }
  std::string finished_run() const { return (*shared / "run").string(); }
  Outcome pretrain(const std::vector<std::string>& more) const {
    return run("pretrain", tiny_training(photos(), folder / "run", 1, more));
  }

  static std::unique_ptr<TemporaryFolder> shared;
  TemporaryFolder folder;
};
std::unique_ptr<TemporaryFolder> BadInput::shared;

TEST_F(BadInput, WrongFlags) {
  expect_sentence(pretrain({"--learning-rate", "1"}), 2, "--learning-rate");
  expect_sentence(pretrain({"--lr", "much"}), 2, "--lr");
  expect_sentence(pretrain({"--optimizer", "adam"}), 2, "--optimizer");
  expect_sentence(pretrain({"--keep", "0"}), 2, "--keep");
  expect_sentence(pretrain({"--config", (folder / "none.toml").string()}), 2, "none.toml");
  expect_sentence(run("pretrain", {"--run", (folder / "run").string()}), 2, "--data is required");
  expect_sentence(pretrain({"--device", "cuda"}), 1, "no CUDA");  // in this build, or no device of it
  expect_sentence(pretrain({"--device", "tpu"}), 1, "--device tpu");
  expect_sentence(pretrain({"--names", "jax"}), 1, "torchvision");
  expect_sentence(run("pretrain", {"--data", photos(), "--run", (folder / "run").string(), "--trunk", "y_500mf"}), 1,
                  "y_400mf");
  expect_sentence(run("pretrain", {"--data", photos(), "--run", (folder / "run").string(), "--crops", "2y24"}), 1,
                  "2y24");
  expect_sentence(run("eval", {"--weights", finished_run(), "--train", photos(), "--knn", "20"}), 1, "--knn 20");
  expect_sentence(run("embed", {"--weights", finished_run(), "--data", photos(), "--out", (folder / "f.txt").string()}),
                  1, ".npy or .safetensors");
  EXPECT_EQ(folder.names(), std::vector<std::string>{}) << "nothing is made for a run that cannot be";
}

TEST_F(BadInput, HelpTeaches) {
  for (const char* program : {"pretrain", "eval", "embed"}) {
    const Outcome help = run(program, {"--help"});
    EXPECT_EQ(help.status, 0);
    EXPECT_NE(help.out.find("Example:"), std::string::npos) << program;
    EXPECT_EQ(help.err, "");
  }
}

TEST_F(BadInput, MissingAndEmptyFolders) {
  fs::create_directory(folder / "empty");
  for (const auto& [path, words] :
       {std::pair{folder / "missing", "there is no such folder"}, std::pair{folder / "empty", "hold no image"}}) {
    const std::string data = path.string(), out = (folder / "f.npy").string();
    expect_sentence(run("pretrain", {"--data", data, "--run", (folder / "run").string()}), 1, words);
    expect_sentence(run("eval", {"--weights", finished_run(), "--train", data}), 1, words);
    expect_sentence(run("embed", {"--weights", finished_run(), "--data", data, "--out", out}), 1, words);
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"empty"});
  expect_sentence(run("eval", {"--weights", (folder / "none").string(), "--train", photos()}), 1,
                  "no such file or folder");
  expect_sentence(run("eval", {"--weights", (folder / "empty").string(), "--train", photos()}), 1,
                  "the folder has none of");
}

TEST_F(BadInput, FewerImagesThanABatch) { expect_sentence(pretrain({"--batch", "500"}), 2, "--batch"); }

TEST_F(BadInput, NoLabelsToEvaluateWith) {
  const std::string one_class = (fs::path(photos()) / "a").string();
  expect_sentence(run("eval", {"--weights", finished_run(), "--train", one_class}), 1, "there are no labels");
  expect_sentence(pretrain({"--knn-data", one_class}), 1, "there are no labels");
  make_photos(folder / "other", 2);
  fs::rename(folder / "other" / "b", folder / "other" / "unknown");
  expect_sentence(
      run("eval", {"--weights", finished_run(), "--train", photos(), "--test", (folder / "other").string()}), 1,
      "class unknown does not occur");
}

TEST_F(BadInput, UnreadableImages) {
  for (int i = 0; i < 20; ++i) put(folder / (std::to_string(i) + ".jpg"), "\xff\xd8\xff nothing");
  expect_sentence(run("pretrain", {"--data", folder.path().string(), "--run", (folder / "run").string(), "--batch", "8",
                                   "--crops", "2x24", "--trunk", "y:d=2,w0=8,wa=8,wm=2,g=8"}),
                  1, "can be read");
  expect_sentence(run("embed", {"--weights", finished_run(), "--data", folder.path().string(), "--out",
                                (folder / "f.npy").string()}),
                  1, "can be read");
  EXPECT_FALSE(fs::exists(folder / "f.npy"));
  EXPECT_FALSE(fs::exists(folder / "f.csv"));
}

TEST_F(BadInput, WeightsThatDoNotFit) {
  const std::string trunk = (fs::path(finished_run()) / "trunk.safetensors").string();
  const std::vector<std::string> deeper{"--weights", trunk,     "--train",
                                        photos(),    "--trunk", "y:d=5,w0=8,wa=8,wm=2,g=8,stem_width=8,stem=cifar"};
  const Outcome refused = run("eval", deeper);
  EXPECT_EQ(refused.status, 1) << refused.out;
  EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;

  // A file with a tensor missing is refused, and taken when that is asked for; so is the classifier of a file passed
  // over.
  io::Safetensors file = io::load_safetensors(trunk);
  file.tensors.push_back({"fc.weight", Tensor::zeros({10, 32})});
  io::save_safetensors(folder / "more.safetensors", file.tensors, file.metadata);
  std::erase_if(file.tensors, [](const NamedTensor& t) { return t.name == "stem.0.weight"; });
  io::save_safetensors(folder / "less.safetensors", file.tensors, file.metadata);
  std::vector<std::string> less{"--weights", (folder / "less.safetensors").string(), "--train", photos()};
  expect_sentence(run("eval", less), 1, "stem.0.weight");
  less.emplace_back("--allow-partial");
  EXPECT_EQ(run("eval", less).status, 0);
  EXPECT_EQ(run("eval", {"--weights", (folder / "more.safetensors").string(), "--train", photos()}).status, 0);

  // Of a file without our metadata one has to say which network it is.
  io::save_safetensors(folder / "bare.safetensors", file.tensors);
  expect_sentence(run("eval", {"--weights", (folder / "bare.safetensors").string(), "--train", photos()}), 1,
                  "give --trunk");
  put(folder / "cut.safetensors", content_of(trunk).substr(0, 3000));
  expect_sentence(run("eval", {"--weights", (folder / "cut.safetensors").string(), "--train", photos()}), 1,
                  "cut.safetensors");
}

TEST_F(BadInput, CorruptCheckpoints) {
  fs::copy(finished_run(), folder / "run", fs::copy_options::recursive);
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder / "run" / "checkpoints"))
    newest = std::max(newest, entry.path());
  std::string bytes = content_of(newest);
  bytes[bytes.size() - 100] = static_cast<char>(bytes[bytes.size() - 100] ^ 1);
  put(newest, bytes);
  expect_sentence(run("eval", {"--weights", newest.string(), "--train", photos()}), 1, newest.filename());
  expect_sentence(run("pretrain", {"--run", (folder / "run").string()}), 1, "checkpoint");
  EXPECT_EQ(content_of(newest), bytes) << "it is left for people to look at";
}

TEST_F(BadInput, RunFoldersThatCannotBe) {
  put(folder / "file", "");
  expect_sentence(run("pretrain", tiny_training(photos(), folder / "file" / "run", 1)), 1, "cannot be made");
  if (geteuid() != 0) {
    fs::create_directory(folder / "closed");
    chmod((folder / "closed").c_str(), 0500);
    expect_sentence(run("pretrain", tiny_training(photos(), folder / "closed", 1)), 1, "cannot be written to");
  }
  const TemporaryFolder words;
  Process first("pretrain", tiny_training(photos(), folder / "shared", 400), words.path());
  ASSERT_TRUE(wait_until(first, [&] { return fs::exists(folder / "shared" / "log.jsonl"); }));
  expect_sentence(run("pretrain", tiny_training(photos(), folder / "shared", 400)), 1, "another process");
}

/// A file system of that many bytes.
struct SmallDisk {
  fs::path path;
  bool mounted;
  SmallDisk(const fs::path& path, const std::string& size) : path(path) {
    fs::create_directory(path);
    mounted = mount("none", path.c_str(), "tmpfs", 0, ("size=" + size).c_str()) == 0;
  }
  ~SmallDisk() {
    if (mounted) umount2(path.c_str(), MNT_DETACH);
  }
};

TEST_F(BadInput, AFullDisk) {
  const SmallDisk disk(folder / "disk", "128k");
  if (!disk.mounted) GTEST_SKIP() << "mounting needs more rights: " << std::strerror(errno);
  expect_sentence(run("pretrain", tiny_training(photos(), disk.path / "run", 1)), 1, "the disk is full");
  EXPECT_FALSE(fs::exists(disk.path / "run" / "trunk.safetensors"));
  EXPECT_TRUE(fs::is_empty(disk.path / "run" / "checkpoints"));
  EXPECT_EQ(unfinished(disk.path), std::vector<std::string>{});

  put(disk.path / "filler", std::string(200000, 'x'));
  expect_sentence(
      run("embed", {"--weights", finished_run(), "--data", photos(), "--out", (disk.path / "f.npy").string()}), 1,
      "the disk is full");
  EXPECT_FALSE(fs::exists(disk.path / "f.npy"));
  EXPECT_FALSE(fs::exists(disk.path / "f.csv"));
  EXPECT_EQ(unfinished(disk.path), std::vector<std::string>{});
}

}  // namespace
}  // namespace saccade::test
