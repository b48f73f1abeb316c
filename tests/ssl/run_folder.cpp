#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/report/html_report.h>
#include <saccade/ssl/report/run_folder.h>
#include <saccade/ssl/report/run_log.h>
#include <saccade/ssl/report/tensorboard.h>

#include <map>

#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

namespace fs = std::filesystem;
using test::complaint, test::content_of, test::put, test::TemporaryFolder;

/// All that a run writes.
void write_run(const fs::path& path) {
  RunFolder folder(path);
  put(folder.config(), std::string(RunFolder::kConfigStart) + "a program\nlr = 1\n");
  put(folder.data(), std::string(RunFolder::kDataStart) + "\n");
  RunLog(folder.log()).write("notice", {{"text", "hello"}});
  TensorBoard board(path, 3);
  write_html_report(folder.report(), {});
  const std::vector<NamedTensor> tensors{{"embeddings", Tensor::zeros({2})}};
  io::save_safetensors(folder.trunk(), tensors, {{"trunk", "y_200mf"}});
  io::save_safetensors(path / "not-finite.safetensors", tensors);
  io::save_checkpoint(folder.checkpoints(), 4, tensors, "{}", 2);
}

/// Below a folder, with their content; but for hidden ones.
std::map<std::string, std::string> files_of(const fs::path& path) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file() && !entry.path().filename().string().starts_with('.'))
      files[fs::relative(entry.path(), path)] = content_of(entry.path());
  return files;
}

TEST(RunFolder, IsMadeOrEmptyOrARun) {
  const TemporaryFolder folder;
  { const RunFolder made(folder / "a" / "b"); }
  { const RunFolder again(folder / "a" / "b"); }
  fs::create_directory(folder / "hidden");
  put(folder / "hidden" / ".gitkeep", "x");
  { const RunFolder empty(folder / "hidden"); }
  write_run(folder / "run");
  put(folder / "run" / "notes.txt", "mine");
  { const RunFolder run(folder / "run"); }
}

TEST(RunFolder, AnythingElseIsRefusedAndLeftAsItIs) {
  const std::vector<std::vector<std::string>> cases{{"config.toml", "report.html"},
                                                    {"notes.txt"},
                                                    {"log.jsonl"},
                                                    {"trunk.safetensors"},
                                                    {"sub/a.txt"},
                                                    {"checkpoints/step-00000003.ckpt"},
                                                    {"data.tsv"},
                                                    {"checkpoints"},
                                                    {"events.out.tfevents.1.host.2.0"}};
  for (const auto& names : cases) {
    const TemporaryFolder folder;
    for (const std::string& name : names) {
      fs::create_directories((folder / name).parent_path());
      put(folder / name, "mine");
    }
    const auto before = files_of(folder.path());
    const std::string said = complaint<Error>([&] { const RunFolder run(folder.path()); });
    EXPECT_NE(said.find(folder.path().string() + " is not the folder of a run"), std::string::npos) << said;
    EXPECT_NE(said.find(names[0].substr(0, 3)), std::string::npos) << said;
    EXPECT_EQ(files_of(folder.path()), before);
    EXPECT_FALSE(fs::exists(folder / ".lock"));
  }
}

TEST(RunFolder, AFileOfOthersUnderARunsNameIsNamed) {
  for (const std::string name :
       {"report.html", "trunk.safetensors", "data.tsv", "log.jsonl", "not-finite.safetensors"}) {
    const TemporaryFolder folder;
    write_run(folder.path());
    put(folder / name, "mine");
    const std::string said = complaint<Error>([&] { const RunFolder run(folder.path()); });
    EXPECT_NE(said.find("under names that a run needs: " + name), std::string::npos) << said;
    EXPECT_EQ(content_of(folder / name), "mine");
  }
}

TEST(RunFolder, StartingOverRemovesWhatTheRunWroteAndNothingElse) {
  const TemporaryFolder folder;
  const std::vector<std::string> of_others{"notes.txt",
                                           "events.out.tfevents.1700000000.host.123.0",
                                           "checkpoints/best.ckpt",
                                           "checkpoints/step-by-step.txt",
                                           "checkpoints/step-4.ckpt",
                                           "sub/config.toml",
                                           "config.toml.bak"};
  write_run(folder / "run");
  std::map<std::string, std::string> left;
  for (const std::string& name : of_others) {
    const fs::path path = folder / "run" / name;
    fs::create_directories(path.parent_path());
    // As PyTorch's writer has it: no step in the first record.
    left[name] = name.starts_with("events")
                     ? std::string(12, 'x') + "\x09" + std::string(8, 't') + "\x1a\rbrain.Event:2"
                     : "mine";
    put(path, left[name]);
  }
  RunFolder(folder / "run").clear();
  EXPECT_EQ(files_of(folder / "run"), left);
}

TEST(RunFolder, ADamagedCheckpointIsNotRemoved) {
  const TemporaryFolder folder;
  write_run(folder.path());
  put(folder / "checkpoints" / "step-00000009.ckpt", "damaged");
  const auto before = files_of(folder.path());
  RunFolder run(folder.path());
  EXPECT_NE(complaint<Error>([&] { run.clear(); }).find("step-00000009.ckpt"), std::string::npos);
  EXPECT_EQ(files_of(folder.path()), before);
}

}  // namespace
}  // namespace saccade::ssl
