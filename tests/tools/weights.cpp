#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/npy.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/nn/interop.h>
#include <saccade/nn/key_match.h>
#include <saccade/nn/regnet.h>

#include <cstring>
#include <limits>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTrunk = "y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8";

/// A trained network, and its features of the images it learned from, made once.
class WeightsIn : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared = std::make_unique<TemporaryFolder>();
    make_photos(*shared / "photos", 4);
    const Outcome trained = run("pretrain", tiny_training(*shared / "photos", *shared / "run", 1, {"--queue", "16"}));
    ASSERT_EQ(trained.status, 0) << trained.err;
    const Outcome embedded = embed(*shared / "run", *shared / "photos", *shared / "f.npy");
    ASSERT_EQ(embedded.status, 0) << embedded.err;
  }
  static void TearDownTestSuite() { shared.reset(); }

  static Outcome embed(const fs::path& weights, const fs::path& data, const fs::path& out,
                       std::vector<std::string> more = {}) {
    more.insert(more.end(),
                {"--weights", weights.string(), "--data", data.string(), "--out", out.string(), "--overwrite"});
    return run("embed", more);
  }
  static fs::path photos() { return *shared / "photos"; }
  static fs::path run_folder() { return *shared / "run"; }
  static std::string right_features() { return content_of(*shared / "f.npy"); }

  /// The trained network.
  static std::shared_ptr<nn::RegNet> network() {
    const auto trunk = nn::regnet(kTrunk, 9);
    nn::match_keys(*trunk, io::load_safetensors(run_folder() / "trunk.safetensors").tensors).load();
    return trunk;
  }
  static std::vector<NamedTensor> named(nn::Names names, const std::string& prefix) {
    auto tensors = nn::state_dict(*network(), names);
    for (NamedTensor& t : tensors) t.name.insert(0, prefix);
    return tensors;
  }
  /// Features of weights in a file that says nothing of itself.
  Outcome embed_file(const std::vector<NamedTensor>& tensors, std::vector<std::string> more = {}) const {
    io::save_safetensors(folder / "w.safetensors", tensors);
    more.insert(more.end(), {"--trunk", kTrunk, "--size", "24"});
    return embed(folder / "w.safetensors", photos(), folder / "out.npy", more);
  }
  void expect_refused(const Outcome& outcome, const std::string& words) const {
    EXPECT_EQ(outcome.status, 1) << outcome.out;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err;
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
    EXPECT_FALSE(fs::exists(folder / "out.npy") || fs::exists(folder / "out.csv"));
  }

  static std::unique_ptr<TemporaryFolder> shared;
  TemporaryFolder folder;
};
std::unique_ptr<TemporaryFolder> WeightsIn::shared;

TEST_F(WeightsIn, EveryLayoutGivesTheFeaturesOfTheOriginal) {
  struct Layout {
    nn::Names names;
    std::string prefix, said;
  };
  for (const auto& [names, prefix, said] :
       {Layout{nn::Names::torchvision, "backbone.", "under 'backbone.' in torchvision's names"},
        {nn::Names::torchvision, "_orig_mod.", "under '_orig_mod.'"},
        {nn::Names::swav, "", "under 'module.'"},
        {nn::Names::timm, "teacher.backbone.", "under 'teacher.backbone.' in timm's names"},
        {nn::Names::vissl, "classy_state_dict.base_model.model.trunk.", "in vissl's names"},
        {nn::Names::classy, "", "in classy's names"},
        {nn::Names::pycls, "model_state.", "under 'model_state.' in pycls's names"}}) {
    auto tensors = named(names, prefix);
    tensors.push_back({"module.projection_head.0.weight", Tensor::zeros({4, 4})});
    tensors.push_back({"fc.weight", Tensor::zeros({4, 4})});
    const Outcome outcome = embed_file(tensors);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_NE(outcome.out.find(said), std::string::npos) << outcome.out;
    EXPECT_TRUE(content_of(folder / "out.npy") == right_features()) << nn::name_of(names);
  }
}

TEST_F(WeightsIn, AHuggingFaceFolderIsTaken) {
  fs::create_directory(folder / "hf");
  fs::copy(run_folder() / "trunk.safetensors", folder / "hf" / "model.safetensors");
  put(folder / "hf" / "config.json", "{}");
  const Outcome outcome = embed(folder / "hf", photos(), folder / "out.npy");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(content_of(folder / "out.npy") == right_features());
}

TEST_F(WeightsIn, ACheckpointCopiedAloneKnowsHowImagesAreShown) {
  fs::copy(run_folder() / "checkpoints" / "step-00000001.ckpt", folder / "mine.ckpt");
  const Outcome outcome = embed(folder / "mine.ckpt", photos(), folder / "out.npy");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_TRUE(content_of(folder / "out.npy") == right_features());
}

TEST_F(WeightsIn, ANamedTrunkNeedsNoName) {
  io::save_safetensors(folder / "w.safetensors", nn::state_dict(*nn::regnet("y_200mf", 1), nn::Names::timm));
  const Outcome outcome = embed(folder / "w.safetensors", photos() / "a", folder / "out.npy", {"--size", "32"});
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("y_200mf from"), std::string::npos) << outcome.out;
  fs::remove(folder / "out.npy");
  fs::remove(folder / "out.csv");
  io::save_safetensors(folder / "w.safetensors", named(nn::Names::timm, ""));
  expect_refused(embed(folder / "w.safetensors", photos(), folder / "out.npy"), "give --trunk");
}

TEST_F(WeightsIn, ValuesThatNoNetworkHasAreRefusedByName) {
  for (const auto& [name, value] : {std::pair{"stem.0.weight", std::numeric_limits<float>::quiet_NaN()},
                                    {"trunk_output.block2.block2-0.f.b.1.running_var", -1.f}}) {
    auto tensors = named(nn::Names::torchvision, "");
    for (NamedTensor& t : tensors)
      if (t.name == name) t.tensor.data<float>()[3] = value;
    expect_refused(embed_file(tensors), std::string("\"") + name + "\"");
    expect_refused(embed_file(tensors, {"--allow-partial"}), std::string("\"") + name + "\"");
    const Outcome outcome =
        run("pretrain", tiny_training(photos(), folder / "run", 1, {"--init", (folder / "w.safetensors").string()}));
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find(name), std::string::npos) << outcome.err;
    EXPECT_FALSE(fs::exists(folder / "run"));
  }
}

TEST_F(WeightsIn, FeaturesThatAreNotFiniteNameImageAndLayerAndAreNotWritten) {
  auto tensors = named(nn::Names::torchvision, "");
  for (NamedTensor& t : tensors)
    if (t.name.starts_with("trunk_output.block3.block3-1.f.c.1.") && t.tensor.dtype() == DType::f32)
      t.tensor.fill(t.name.ends_with("weight") ? 3e38f : 0.f);
  const Outcome outcome = embed_file(tensors);
  expect_refused(outcome, "a.ppm");
  EXPECT_NE(outcome.err.find("trunk_output.block3.block3-1.f.c.1"), std::string::npos) << outcome.err;
  const Outcome judged = run("eval", {"--weights", (folder / "w.safetensors").string(), "--trunk", kTrunk, "--size",
                                      "24", "--train", photos().string()});
  EXPECT_EQ(judged.status, 1);
  EXPECT_EQ(judged.out.find('%'), std::string::npos) << judged.out;
}

TEST_F(WeightsIn, APartIsTakenOnlyIfAllowedAndNothingIsNoPart) {
  auto tensors = named(nn::Names::torchvision, "x.");
  std::erase_if(tensors, [](const NamedTensor& t) { return t.name.starts_with("x.stem."); });
  expect_refused(embed_file(tensors), "5 not given: stem.0.weight");
  const Outcome part = embed_file(tensors, {"--allow-partial"});
  EXPECT_EQ(part.status, 0) << part.err;
  EXPECT_NE(part.out.find("5 not given: stem.0.weight"), std::string::npos) << part.out;
  fs::remove(folder / "out.npy");
  fs::remove(folder / "out.csv");
  for (NamedTensor& t : tensors) t.name += "_";
  expect_refused(embed_file(tensors, {"--allow-partial"}), "does not hold this network");
}

TEST_F(WeightsIn, AnImagesFeaturesAreTheSameAloneAndInAnyCompany) {
  // An icon of the network's own size sorts first; the photographs are its neighbours.
  std::string icon = "P6 24 24 255\n";
  for (int i = 0; i < 24 * 24 * 3; ++i) icon += static_cast<char>(i);
  const fs::path company = folder / "company", alone = folder / "alone";
  fs::copy(photos(), company, fs::copy_options::recursive);
  put(company / "0.ppm", icon);
  fs::create_directory(alone);
  fs::copy(photos() / "b" / "c.ppm", alone / "c.ppm");
  ASSERT_EQ(embed(run_folder(), company, folder / "company.npy").status, 0);
  ASSERT_EQ(embed(run_folder(), alone, folder / "alone.npy", {"--workers", "2"}).status, 0);
  const Tensor all = io::read_npy(folder / "company.npy"), one = io::read_npy(folder / "alone.npy"),
               before = io::read_npy(*shared / "f.npy");
  ASSERT_EQ(all.dim(0), 13);
  const size_t row = static_cast<size_t>(all.dim(1)) * sizeof(float);
  EXPECT_EQ(std::memcmp(all.slice(1, 13).raw(), before.raw(), before.bytes()), 0);
  EXPECT_EQ(std::memcmp(one.raw(), before.slice(6, 7).raw(), row), 0);
}

TEST_F(WeightsIn, TheViewIsRecordedWithTheNetwork) {
  fs::create_directory(folder / "icons");
  for (int n = 0; n < 8; ++n) {
    std::string icon = "P6 24 24 255\n";
    for (int i = 0; i < 24 * 24 * 3; ++i) icon += static_cast<char>(i * (n + 1));
    put(folder / "icons" / (std::to_string(n) + ".ppm"), icon);
  }
  ASSERT_EQ(run("pretrain", tiny_training(folder / "icons", folder / "run", 1)).status, 0);
  EXPECT_EQ(io::load_safetensors(folder / "run" / "trunk.safetensors").metadata.at("view"), "whole");
  EXPECT_EQ(io::load_safetensors(run_folder() / "trunk.safetensors").metadata.at("view"), "middle");
  const auto features = [&](const std::vector<std::string>& more) {
    EXPECT_EQ(embed(folder / "run", photos(), folder / "out.npy", more).status, 0);
    return content_of(folder / "out.npy");
  };
  const std::string recorded = features({});
  EXPECT_TRUE(recorded == features({"--view", "whole"}));
  EXPECT_FALSE(recorded == features({"--view", "middle"}));
}

/// Parameters of two trunks in files: whether all have the same bits.
bool same_parameters(const fs::path& one, const fs::path& other) {
  const io::Safetensors a = io::load_safetensors(one), b = io::load_safetensors(other);
  return std::ranges::all_of(a.tensors, [&](const NamedTensor& t) {
    return t.name.find("running_") != std::string::npos || t.name.ends_with("num_batches_tracked") ||
           std::memcmp(t.tensor.raw(), b[t.name].raw(), t.tensor.bytes()) == 0;
  });
}

TEST_F(WeightsIn, TrainingStartsFromWeightsOnceAndSaysWhatItTook) {
  const fs::path weights = folder / "start.safetensors";
  fs::copy(run_folder() / "trunk.safetensors", weights);
  // So small a rate leaves every parameter as it is.
  auto arguments = tiny_training(photos(), folder / "run", 2,
                                 {"--init", weights.string(), "--lr", "1e-30", "--optimizer", "adamw", "--seed", "7"});
  const Outcome trained = run("pretrain", arguments);
  ASSERT_EQ(trained.status, 0) << trained.err;
  EXPECT_TRUE(same_parameters(folder / "run" / "trunk.safetensors", weights));
  EXPECT_NE(trained.out.find("Trunk from " + weights.string()), std::string::npos) << trained.out;
  EXPECT_NE(trained.out.find("The projection head begins anew"), std::string::npos) << trained.out;
  EXPECT_NE(content_of(folder / "run" / "config.toml").find(weights.string()), std::string::npos);
  fs::remove(weights);
  const Outcome again = run("pretrain", arguments);
  EXPECT_EQ(again.status, 0) << "what has begun needs its start no longer: " << again.err;
  EXPECT_EQ(again.out.find("Trunk from"), std::string::npos) << again.out;
}

TEST_F(WeightsIn, ACheckpointToStartFromBringsHeadPrototypesAndQueue) {
  const std::string checkpoint = (run_folder() / "checkpoints" / "step-00000001.ckpt").string();
  const std::vector<std::string> same{"--init", checkpoint, "--queue", "16", "--lr", "1e-30", "--optimizer", "adamw"};
  const Outcome trained = run("pretrain", tiny_training(photos(), folder / "run", 1, same));
  ASSERT_EQ(trained.status, 0) << trained.err;
  for (const char* said : {"Trunk from", "Projection head from it", "prototypes from it", "The queue from it"})
    EXPECT_NE(trained.out.find(said), std::string::npos) << trained.out;
  const io::Checkpoint before = io::load_checkpoint(checkpoint),
                       after = io::load_checkpoint(folder / "run" / "checkpoints" / "step-00000001.ckpt");
  for (const char* name : {"model.head.0.weight", "model.head.3.bias", "model.trunk.stem.0.weight"})
    EXPECT_EQ(std::memcmp(before[name].raw(), after[name].raw(), before[name].bytes()), 0) << name;
}

TEST_F(WeightsIn, TheNetworkToStartFromNeedsNoName) {
  const Outcome trained =
      run("pretrain", {"--data", photos().string(), "--run", (folder / "run").string(), "--init", run_folder().string(),
                       "--crops", "2x24+2x16", "--batch", "8", "--epochs", "1"});
  ASSERT_EQ(trained.status, 0) << trained.err;
  EXPECT_EQ(io::load_safetensors(folder / "run" / "trunk.safetensors").metadata.at("trunk"), kTrunk);
}

}  // namespace
}  // namespace saccade::test
