// Checkpoints: what verifies, what is fallen back to, what may be removed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>

#include "support/temporary_folder.h"

namespace saccade::io {
namespace {

using test::complaint;
using test::content_of;
using test::put;
using test::TemporaryFolder;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

std::vector<NamedTensor> model(float value) {
  return {{"trunk.weight", Tensor::full({4, 3}, value)},
          {"queue", Tensor::full({0, 3}, 0.f)},
          {"steps", Tensor::full({}, value)}};
}

void flip_bit(const std::filesystem::path& path, size_t byte) {
  std::string content = content_of(path);
  content.at(byte) = static_cast<char>(content.at(byte) ^ 4);
  put(path, content);
}

TEST(Checkpoint, ComesBackWithStepStateAndTensors) {
  const TemporaryFolder folder;
  const auto saved = save_checkpoint(folder / "checkpoints", 1234, model(2.5f), R"({"lr":0.1,"name":"\u00e9"})", 3);
  EXPECT_EQ(saved.path, folder / "checkpoints" / "step-00001234.ckpt");
  std::vector<std::string> problems;
  const auto latest = latest_checkpoint(folder / "checkpoints", problems);
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->step, 1234);
  EXPECT_EQ(latest->state, R"({"lr":0.1,"name":"\u00e9"})");
  EXPECT_EQ(latest->path, saved.path);
  EXPECT_THAT(latest->tensors, SizeIs(3));
  EXPECT_EQ((*latest)["trunk.weight"].shape(), (Shape{4, 3}));
  EXPECT_EQ((*latest)["trunk.weight"].data<float>()[11], 2.5f);
  EXPECT_EQ((*latest)["queue"].numel(), 0);
  EXPECT_TRUE(problems.empty());
}

TEST(Checkpoint, NoFolderAndAnEmptyFolderHoldNone) {
  const TemporaryFolder folder;
  std::vector<std::string> problems;
  EXPECT_FALSE(latest_checkpoint(folder.path(), problems));
  EXPECT_FALSE(latest_checkpoint(folder / "none", problems));
}

TEST(Checkpoint, AnyFlippedBitIsNoticed) {
  const TemporaryFolder folder;
  const auto path = save_checkpoint(folder.path(), 1, model(1.f), R"({"epoch":3})", 1).path;
  const std::string whole = content_of(path);
  for (size_t byte = 0; byte < whole.size(); ++byte) {
    std::string flipped = whole;
    flipped[byte] = static_cast<char>(flipped[byte] ^ 1);
    put(path, flipped);
    const std::string text = complaint<Error>([&] { load_checkpoint(path); });
    // A space of the padding, or of one kind of white space, may differ: it holds nothing.
    if (whole[byte] != ' ') {
      EXPECT_THAT(text, HasSubstr("cannot be used")) << "byte " << byte << " " << whole[byte];
    }
  }
}

TEST(Checkpoint, FallsBackFromCorruptOnesAndSaysSo) {
  const TemporaryFolder folder;
  for (const int64_t step : {100, 200, 300})
    save_checkpoint(folder.path(), step, model(static_cast<float>(step)), "{}", 9);
  flip_bit(folder / "step-00000300.ckpt", std::filesystem::file_size(folder / "step-00000300.ckpt") - 1);
  std::filesystem::resize_file(folder / "step-00000200.ckpt", 300);
  std::vector<std::string> problems;
  const auto latest = latest_checkpoint(folder.path(), problems);
  ASSERT_TRUE(latest);
  EXPECT_EQ(latest->step, 100);
  EXPECT_EQ((*latest)["trunk.weight"].data<float>()[0], 100.f);
  ASSERT_THAT(problems, SizeIs(2));
  EXPECT_THAT(problems[0], HasSubstr("step-00000300.ckpt cannot be used: the tensor"));
  EXPECT_THAT(problems[1], HasSubstr("step-00000200.ckpt cannot be used"));
}

TEST(Checkpoint, WhenAllAreCorruptThatIsAnError) {
  const TemporaryFolder folder;
  put(folder / "step-00000007.ckpt", "nonsense");
  put(folder / "step-00000008.ckpt", "");
  std::vector<std::string> problems;
  EXPECT_THAT(complaint<Error>([&] { latest_checkpoint(folder.path(), problems); }),
              HasSubstr("none of the 2 checkpoints"));
  EXPECT_THAT(problems, SizeIs(2));
}

TEST(Checkpoint, ASafetensorsFileOfSomeoneElseIsNoCheckpoint) {
  const TemporaryFolder folder;
  save_safetensors(folder / "step-00000007.ckpt", model(1.f));
  EXPECT_THAT(complaint<Error>([&] { load_checkpoint(folder / "step-00000007.ckpt"); }), HasSubstr("no manifest"));
}

TEST(Checkpoint, KeepsTheLastOnes) {
  const TemporaryFolder folder;
  for (int64_t step = 1; step <= 5; ++step) save_checkpoint(folder.path(), step, model(1.f), "{}", 2);
  EXPECT_THAT(folder.names(), ElementsAre("step-00000004.ckpt", "step-00000005.ckpt"));
}

TEST(Checkpoint, NeverRemovesWhatItDidNotMake) {
  const TemporaryFolder folder;
  put(folder / "notes.txt", "mine");
  put(folder / "step-00000001.ckpt", "nonsense under our name");
  save_safetensors(folder / "step-00000002.ckpt", model(1.f));
  save_checkpoint(folder.path(), 3, model(1.f), "{}", 9);
  std::filesystem::rename(folder / "step-00000003.ckpt", folder / "step-3.ckpt");  // not how we write it
  std::filesystem::create_symlink(folder / "step-3.ckpt", folder / "step-00000004.ckpt");
  std::filesystem::create_directory(folder / "step-00000005.ckpt");
  save_checkpoint(folder.path(), 900, model(1.f), "{}", 9);  // a later step, of a run that went further
  save_checkpoint(folder.path(), 10, model(1.f), "{}", 1);
  save_checkpoint(folder.path(), 11, model(1.f), "{}", 1);
  EXPECT_THAT(folder.names(),
              ElementsAre("notes.txt", "step-00000001.ckpt", "step-00000002.ckpt", "step-00000004.ckpt",
                          "step-00000005.ckpt", "step-00000011.ckpt", "step-00000900.ckpt", "step-3.ckpt"));
}

TEST(Checkpoint, StepsBeyondEightDigitsAreFoundInOrder) {
  const TemporaryFolder folder;
  for (const int64_t step : {int64_t{99'999'999}, int64_t{100'000'000}})
    save_checkpoint(folder.path(), step, model(1.f), "{}", 9);
  EXPECT_THAT(checkpoint_steps(folder.path()), ElementsAre(99'999'999, 100'000'000));
}

TEST(Checkpoint, RefusesNonsense) {
  const TemporaryFolder folder;
  EXPECT_THROW(save_checkpoint(folder.path(), -1, model(1.f), "{}", 1), Error);
  EXPECT_THROW(save_checkpoint(folder.path(), 1, model(1.f), "{}", 0), Error);
  EXPECT_THROW(save_checkpoint(folder.path(), 1, model(1.f), "{lr: 3", 1), Error);
  EXPECT_THROW(save_checkpoint(folder.path(), 1,
                               std::vector<NamedTensor>{{"a", Tensor::full({1}, 1.f).to(Device::meta)}}, "{}", 1),
               Error);
  put(folder / "file", "");
  EXPECT_THAT(complaint<Error>([&] { save_checkpoint(folder / "file", 1, model(1.f), "{}", 1); }),
              HasSubstr("could not make the folder"));
  EXPECT_THAT(folder.names(), ElementsAre("file"));
}

}  // namespace
}  // namespace saccade::io
