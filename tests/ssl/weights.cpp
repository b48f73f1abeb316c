#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/trainer.h>
#include <saccade/ssl/weights.h>

#include <cstring>
#include <limits>

#include "ssl/tiny.h"
#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

namespace fs = std::filesystem;
using test::complaint;
using test::TemporaryFolder;
using testing::tiny_batch;
using testing::tiny_options;
using testing::tiny_trunk;

constexpr const char* kTiny = "y:d=2,w0=8,wa=8,wm=2,g=8,in=1,stem=simple,stem_width=8";

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// The names of tensors of two modules of one kind that differ.
std::vector<std::string> differing(const nn::Module& a, const nn::Module& b) {
  std::vector<std::string> names;
  const auto one = a.named_tensors(), other = b.named_tensors();
  for (size_t i = 0; i < one.size(); ++i)
    if (!same(one[i].tensor, other[i].tensor)) names.push_back(one[i].name);
  return names;
}

TrunkInfo info() {
  return {.trunk = kTiny, .size = 16, .mean = {0.1f, 0.25f, 0.3f}, .std = {0.5f, 1.f, 2.f}, .view = "whole"};
}

/// Trains a little, with a queue, and leaves a checkpoint; returns its path.
fs::path trained(SwAV& model, const fs::path& folder) {
  Trainer trainer(model, optim::adamw({}), {.iterations = 3, .carried = info().metadata(), .monitor = false});
  int64_t next = 0;
  trainer.fit(BatchSource([&] { return tiny_batch(next++); }, [&](int64_t i) { next = i; }, 8), folder);
  return folder / "checkpoints" / "step-00000003.ckpt";
}

SwAVOptions with_queue() {
  SwAVOptions options = tiny_options();
  options.queue_length = 32;
  return options;
}

TEST(TrunkInfo, GoesThroughMetadataUnchanged) {
  TrunkInfo back;
  back.take(info().metadata(), "file");
  EXPECT_EQ(back.metadata(), info().metadata());
  EXPECT_EQ(back.mean, info().mean);
  back.take({{"format", "pt"}, {"size", "32"}}, "file");
  EXPECT_EQ(back.size, 32);
  EXPECT_EQ(back.view, "whole");
}

TEST(TrunkInfo, WhatIsNoNumberIsRefusedWithTheFilesName) {
  for (const auto& [key, value] : {std::pair{"size", "big"},
                                   {"size", "-4"},
                                   {"size", ""},
                                   {"mean", "1,2"},
                                   {"mean", "1,nan,3"},
                                   {"std", "1,0,1"},
                                   {"std", "1,2,3,"},
                                   {"view", "all"},
                                   {"seed", "-1"}}) {
    TrunkInfo into;
    EXPECT_NE(complaint<Error>([&] {
                into.take({{key, value}}, "some/file");
              }).find("some/file says"),
              std::string::npos)
        << key << " " << value;
  }
}

TEST(Weights, ATrunkThatWasSavedSaysWhatItIs) {
  const TemporaryFolder folder;
  const auto trunk = tiny_trunk(1), other = tiny_trunk(2);
  save_trunk(folder / "t.safetensors", *trunk, nn::Names::vissl, info());
  const Weights weights = read_weights(folder / "t.safetensors");
  EXPECT_EQ(trunk_of(weights), kTiny);
  EXPECT_EQ(weights.metadata.at("view"), "whole");
  EXPECT_TRUE(load_trunk(*other, weights).whole());
  EXPECT_TRUE(differing(*trunk, *other).empty());
}

TEST(Weights, ATrunkThatIsNotFiniteIsNotWritten) {
  const TemporaryFolder folder;
  const auto trunk = tiny_trunk(1);
  trunk->named_tensors()[3].tensor.data<float>()[1] = std::numeric_limits<float>::infinity();
  EXPECT_NE(complaint<Error>([&] {
              save_trunk(folder / "t.safetensors", *trunk, nn::Names::torchvision, info());
            }).find("\"" + trunk->named_tensors()[3].name + "\""),
            std::string::npos);
  EXPECT_TRUE(folder.names().empty());
}

TEST(Weights, ACheckpointCarriesWhatIsNeededWhereverItIsCopiedAndWhateverItIsCalled) {
  const TemporaryFolder folder;
  SwAV model(tiny_trunk(1), tiny_options(), 1);
  const fs::path made = trained(model, folder / "run");
  for (const char* name : {"alone.ckpt", "weights.safetensors", "weights"}) {
    const TemporaryFolder elsewhere;
    fs::copy(made, elsewhere / name);
    const Weights weights = read_weights(elsewhere / name);
    EXPECT_EQ(weights.layout, nn::Layout::own);
    EXPECT_EQ(weights.metadata, info().metadata());
    const auto trunk = nn::trunk(trunk_of(weights), 5);
    EXPECT_TRUE(load_trunk(*trunk, weights).whole());
    EXPECT_TRUE(differing(*trunk, model.trunk()).empty());
  }
  fs::create_symlink(made, folder / "link");
  EXPECT_EQ(read_weights(folder / "link").metadata, info().metadata());
  std::string bytes = test::content_of(made);
  bytes[bytes.find("iterations")] ^= 1;  // in the manifest
  test::put(folder / "changed.ckpt", bytes);
  const std::string said = complaint<Error>([&] { read_weights(folder / "changed.ckpt"); });
  EXPECT_NE(said.find("changed since it was written"), std::string::npos) << said;
  const auto of_run = tiny_trunk(7);
  load_trunk(*of_run, read_weights(folder / "run"));
  EXPECT_TRUE(differing(*of_run, model.trunk()).empty());
}

TEST(Weights, WhatDoesNotFitIsRefusedUnlessAPartIsEnoughAndNothingNever) {
  const TemporaryFolder folder;
  auto tensors = nn::state_dict(*tiny_trunk(1));
  tensors.erase(tensors.begin());
  io::save_safetensors(folder / "part.safetensors", tensors);
  const Weights part = read_weights(folder / "part.safetensors");
  const auto trunk = tiny_trunk(2);
  EXPECT_NE(complaint<Error>([&] { load_trunk(*trunk, part); }).find("1 not given: stem.0.weight"), std::string::npos);
  EXPECT_TRUE(differing(*trunk, *tiny_trunk(2)).empty());
  EXPECT_EQ(load_trunk(*trunk, part, true).missing, std::vector<std::string>{"stem.0.weight"});

  for (NamedTensor& t : tensors) t.name.push_back('y');
  io::save_safetensors(folder / "none.safetensors", tensors);
  const Weights none = read_weights(folder / "none.safetensors");
  EXPECT_NE(complaint<Error>([&] { load_trunk(*trunk, none, true); }).find("does not hold this network"),
            std::string::npos);
  EXPECT_NE(complaint<Error>([&] { trunk_of(none); }).find("--trunk"), std::string::npos);
}

TEST(InitFrom, ACheckpointGivesTrunkHeadPrototypesAndQueue) {
  const TemporaryFolder folder;
  SwAV model(tiny_trunk(1), with_queue(), 1), fresh(tiny_trunk(2), with_queue(), 2);
  const Weights weights = read_weights(trained(model, folder / "run"));
  const InitReport report = init_from(fresh, weights);
  EXPECT_TRUE(report.took("head") && report.took("prototypes") && report.took("queue"));
  EXPECT_TRUE(differing(model, fresh).empty());
  EXPECT_EQ(report.lines.size(), 5U);

  SwAV without(tiny_trunk(2), tiny_options(), 2);
  EXPECT_FALSE(init_from(without, weights).took("queue"));
  SwAVOptions longer = with_queue();
  longer.queue_length = 48;
  SwAV other_queue(tiny_trunk(2), longer, 2);
  const InitReport no_queue = init_from(other_queue, weights);
  EXPECT_TRUE(no_queue.took("head") && no_queue.took("prototypes") && !no_queue.took("queue"));
  EXPECT_EQ(no_queue.lines[3], "The queue begins anew: model.queue0 is f32 (32, 16) in the file, (48, 16) here.");
}

TEST(InitFrom, PartsOfOtherSizesBeginAnew) {
  const TemporaryFolder folder;
  SwAV model(tiny_trunk(1), tiny_options(), 1);
  const Weights weights = read_weights(trained(model, folder / "run"));
  SwAVOptions options = tiny_options();
  options.prototypes = 20;
  SwAV more(tiny_trunk(2), options, 2);
  const InitReport some = init_from(more, weights);
  EXPECT_TRUE(some.took("head") && !some.took("prototypes"));
  EXPECT_EQ(differing(more, SwAV(tiny_trunk(2), options, 2)).size(),
            differing(model, SwAV(tiny_trunk(2), tiny_options(), 2)).size() - 1);

  options = tiny_options();
  options.hidden = 48;
  SwAV wider(tiny_trunk(2), options, 2);
  const InitReport trunk_alone = init_from(wider, weights);
  EXPECT_FALSE(trunk_alone.took("head") || trunk_alone.took("prototypes"))
      << "prototypes are points of their head's space";
  EXPECT_TRUE(differing(wider.trunk(), model.trunk()).empty());
  for (const std::string& name : differing(wider, SwAV(tiny_trunk(2), options, 2)))
    EXPECT_TRUE(name.starts_with("trunk.")) << name;
}

/// A SwAV model as another program keeps it.
std::vector<NamedTensor> as(SwAV& model, const std::string& trunk, nn::Names names, const std::string& head,
                            const std::string& prototypes) {
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& t : nn::state_dict(model.trunk(), names)) tensors.push_back({trunk + t.name, t.tensor});
  for (const NamedTensor& t : model.named_tensors()) {
    if (t.name.starts_with("head.")) tensors.push_back({head + t.name.substr(5), t.tensor});
    if (t.name.starts_with("prototypes.")) tensors.push_back({prototypes, t.tensor});
  }
  return tensors;
}

TEST(InitFrom, ModelsAsTheirAuthorsReleaseThemGiveAllOfThem) {
  SwAV model(tiny_trunk(1), tiny_options(), 1);
  const std::string vissl = "classy_state_dict.base_model.model.";
  for (const auto& tensors :
       {as(model, "", nn::Names::swav, "module.projection_head.", "module.prototypes.weight"),
        as(model, vissl + "trunk.", nn::Names::vissl, vissl + "heads.0.projection_head.",
           vissl + "heads.0.prototypes0.weight"),
        as(model, "module.", nn::Names::torchvision, "module.projection_head.", "module.prototypes.prototypes0.weight"),
        as(model, "model.", nn::Names::timm, "model.head.", "model.prototypes.weight")}) {
    SwAV fresh(tiny_trunk(2), tiny_options(), 2);
    const InitReport report = init_from(fresh, {.file = "f", .tensors = tensors, .metadata = {}, .words = {}});
    EXPECT_TRUE(report.took("head") && report.took("prototypes")) << ::testing::PrintToString(report.lines);
    EXPECT_TRUE(differing(model, fresh).empty()) << ::testing::PrintToString(differing(model, fresh));
  }
}

TEST(InitFrom, ATeachersHeadGoesWithATeachersTrunk) {
  SwAV teacher(tiny_trunk(1), tiny_options(), 1), student(tiny_trunk(3), tiny_options(), 3);
  auto tensors = as(student, "student.backbone.", nn::Names::torchvision, "student.head.", "student.prototypes.weight");
  for (NamedTensor& t :
       as(teacher, "teacher.backbone.", nn::Names::torchvision, "teacher.head.", "teacher.prototypes.weight"))
    tensors.push_back(t);
  SwAV fresh(tiny_trunk(2), tiny_options(), 2);
  init_from(fresh, {.file = "f", .tensors = tensors, .metadata = {}, .words = {}});
  EXPECT_TRUE(differing(teacher, fresh).empty());
}

TEST(InitFrom, AHeadThatIsNotFiniteIsRefusedAndNothingIsChanged) {
  SwAV model(tiny_trunk(1), tiny_options(), 1);
  auto tensors = as(model, "", nn::Names::torchvision, "projection_head.", "prototypes.weight");
  for (NamedTensor& t : tensors)
    if (t.name == "projection_head.1.running_var") {
      t.tensor = t.tensor.clone();
      t.tensor.data<float>()[5] = -1.f;
    }
  SwAV fresh(tiny_trunk(2), tiny_options(), 2);
  const std::string said =
      complaint<Error>([&] { init_from(fresh, {.file = "bad.pth", .tensors = tensors, .metadata = {}, .words = {}}); });
  EXPECT_EQ(said, "bad.pth: the tensor \"projection_head.1.running_var\" holds the variance -1, below zero");
  EXPECT_TRUE(differing(fresh, SwAV(tiny_trunk(2), tiny_options(), 2)).empty());
}

}  // namespace
}  // namespace saccade::ssl
