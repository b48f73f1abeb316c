#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/key_match.h>
#include <saccade/nn/regnet.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>

namespace saccade::nn {
namespace {

constexpr Names every[] = {Names::torchvision, Names::timm, Names::vissl, Names::classy, Names::pycls, Names::swav};
constexpr const char* tiny = "y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8";

void expect_same_bits(const Module& a, const Module& b) {
  const auto one = a.named_tensors(), other = b.named_tensors();
  ASSERT_EQ(one.size(), other.size());
  for (size_t i = 0; i < one.size(); ++i)
    EXPECT_EQ(std::memcmp(one[i].tensor.raw(), other[i].tensor.raw(), one[i].tensor.bytes()), 0) << one[i].name;
}

/// A state dict of a tiny network whose numbers differ from those of any other seed, behind a prefix.
std::vector<NamedTensor> saved(Names names, const std::string& prefix = "", uint64_t seed = 1,
                               const char* description = tiny) {
  auto tensors = state_dict(*trunk(description, seed), names);
  for (NamedTensor& t : tensors) t.name.insert(0, prefix);
  return tensors;
}

void append(std::vector<NamedTensor>& to, std::vector<NamedTensor> more) {
  to.insert(to.end(), more.begin(), more.end());
}

TEST(KeyMatch, ATrunkIsFoundBehindEveryPrefixInEverybodysNames) {
  for (const Names names : every)
    for (const char* prefix :
         {"", "backbone.", "module.", "encoder_q.", "teacher.backbone.", "teacher.module.backbone.", "_orig_mod.",
          "state_dict.model.module.", "model_state.", "student.", "momentum_encoder.", "module.backbone._orig_mod.",
          "classy_state_dict.base_model.model.trunk.", "base_model.model.trunk._fsdp_wrapped_module.", "net.encoder.f.",
          "state_dict.model.trunk.", "layer1.0.", "s1.b1.", "stem."}) {
      SCOPED_TRACE(std::string(prefix) + " " + std::string(name_of(names)));
      const auto from = regnet(tiny, 1), to = regnet(tiny, 2);
      for (const NamedTensor& t : from->named_buffers()) t.tensor.fill(0.25f);
      auto tensors = state_dict(*from, names);
      for (NamedTensor& t : tensors) t.name.insert(0, prefix);
      const KeyMatch match = match_keys(*to, tensors);
      EXPECT_TRUE(match.whole()) << match.describe();
      EXPECT_EQ(match.names, names == Names::swav ? Names::torchvision : names);  // alike but for "module."
      EXPECT_EQ(match.prefix, prefix + std::string(names == Names::swav ? "module." : ""));
      match.load();
      expect_same_bits(*from, *to);
    }
}

TEST(KeyMatch, AResNetIsFoundToo) {
  const DeviceScope meta(Device::meta);
  const auto network = trunk("resnet50");
  for (const Names names : {Names::torchvision, Names::timm, Names::vissl, Names::swav}) {
    std::vector<NamedTensor> tensors;
    const auto own = network->named_tensors();
    const auto map = name_map(*network, names);
    for (size_t i = 0; i < own.size(); ++i)
      tensors.push_back(
          {"module.encoder_q." + map[i].second, Tensor::empty(stored_shape(own[i].name, own[i].tensor.shape()))});
    const KeyMatch match = match_keys(*network, tensors);
    EXPECT_TRUE(match.whole()) << match.describe();
    EXPECT_TRUE(match.also_under.empty()) << "the same tensors are no second place";
  }
}

TEST(KeyMatch, WrappersAndCheckpointedStagesAreSeenThrough) {
  const auto from = regnet(tiny, 1), to = regnet(tiny, 2);
  auto tensors = state_dict(*from, Names::vissl);
  for (NamedTensor& t : tensors) {
    if (const size_t block = t.name.find("block1-0"); block != std::string::npos)
      t.name.insert(block, "_fsdp_wrapped_module._fpw_module.block1-part0.");
    t.name.insert(0, "module.");
  }
  const KeyMatch match = match_keys(*to, tensors);
  ASSERT_TRUE(match.whole()) << match.describe();
  match.load();
  expect_same_bits(*from, *to);
}

TEST(KeyMatch, OfSeveralPlacesTheOneThatIsEvaluatedIsTaken) {
  const auto to = regnet(tiny, 9);
  struct Case {
    const char *taken, *other;
  };
  for (const auto& [taken, other] : {Case{"teacher.backbone.", "student.backbone."}, Case{"encoder_q.", "encoder_k."},
                                     Case{"backbone.", "momentum_backbone."}, Case{"state_dict_ema.", "state_dict."},
                                     Case{"ema_state.", "model_state."}, Case{"online_encoder.", "target_encoder."},
                                     Case{"model.", "schema.model."}}) {
    for (const bool taken_first : {true, false}) {
      auto tensors = saved(Names::timm, taken_first ? taken : other, taken_first ? 1 : 2);
      append(tensors, saved(Names::timm, taken_first ? other : taken, taken_first ? 2 : 1));
      const KeyMatch match = match_keys(*to, tensors);
      EXPECT_TRUE(match.whole());
      EXPECT_EQ(match.prefix, taken);
      EXPECT_EQ(match.also_under, std::vector<std::string>{other});
      EXPECT_NE(match.describe().find(std::string("also under '") + other), std::string::npos) << match.describe();
      match.load();
      expect_same_bits(*to, *regnet(tiny, 1));
    }
  }
}

TEST(KeyMatch, APlaceWhereAllFitsIsTakenBeforeAPreferredOne) {
  auto tensors = saved(Names::torchvision, "teacher.", 1);
  tensors.erase(tensors.begin());
  append(tensors, saved(Names::torchvision, "student.", 2));
  const KeyMatch match = match_keys(*regnet(tiny), tensors);
  EXPECT_TRUE(match.whole());
  EXPECT_EQ(match.prefix, "student.");
}

TEST(KeyMatch, HeadsAndClassifiersBesideATrunkAreNotInItsWay) {
  auto tensors = saved(Names::torchvision, "module.");
  for (const char* name : {"module.fc.weight", "module.projection_head.0.weight", "module.prototypes.weight", "queue",
                           "optimizer.state.0.exp_avg"})
    tensors.push_back({name, Tensor::zeros({2, 2})});
  const KeyMatch match = match_keys(*regnet(tiny), tensors);
  EXPECT_TRUE(match.whole()) << match.describe();
  EXPECT_EQ(match.elsewhere.size(), 5U);
  EXPECT_NE(match.describe().find("projection_head.0.weight"), std::string::npos) << match.describe();
}

TEST(KeyMatch, ADeeperNetworkThanOneAskedForIsNotIt) {
  const DeviceScope meta(Device::meta);
  std::vector<NamedTensor> deep;
  for (const NamedTensor& t : trunk("resnet101")->named_tensors())
    deep.push_back({t.name, Tensor::empty(stored_shape(t.name, t.tensor.shape()))});
  const KeyMatch match = match_keys(*trunk("resnet50"), deep);
  EXPECT_TRUE(match.missing.empty());
  EXPECT_FALSE(match.whole());
  EXPECT_EQ(match.left_over.size(), 17U * 15) << "seventeen blocks of three convolutions with their norms";
}

TEST(KeyMatch, WhatDoesNotMatchIsReported) {
  auto tensors = saved(Names::torchvision, "backbone.");
  tensors.erase(tensors.begin());
  for (NamedTensor& t : tensors)
    if (t.name.ends_with("block2-0.f.c.1.bias")) t.tensor = Tensor::zeros({3});
  tensors.push_back({"backbone.trunk_output.block9.block9-0.f.a.0.weight", Tensor::zeros({2, 2})});
  const auto network = regnet(tiny, 1);
  const KeyMatch match = match_keys(*network, tensors);
  EXPECT_EQ(match.missing, std::vector<std::string>{"stem.0.weight"});
  EXPECT_EQ(match.misshapen, std::vector<std::string>{"backbone.trunk_output.block2.block2-0.f.c.1.bias is f32 (3), "
                                                      "expected floating-point (16)"});
  EXPECT_EQ(match.left_over, std::vector<std::string>{"backbone.trunk_output.block9.block9-0.f.a.0.weight"});
  EXPECT_EQ(match.matched.size(), network->named_tensors().size() - 2);
  for (const char* words : {"under 'backbone.' in torchvision's names", "1 not given: stem.0.weight",
                            "1 of another shape: backbone.trunk_output", "1 given for nothing here"})
    EXPECT_NE(match.describe().find(words), std::string::npos) << match.describe();
  std::istringstream table(match.table());
  std::vector<std::string> lines;
  for (std::string line; std::getline(table, line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 6U) << match.table();
  EXPECT_EQ(lines[1].substr(0, 6), "block1");
  EXPECT_EQ(lines[4], "stem                             4         1");
}

TEST(KeyMatch, AGivenPlaceIsTheOnlyOneLookedAt) {
  auto tensors = saved(Names::torchvision, "module.a.");
  append(tensors, saved(Names::torchvision, "module.b.", 2));
  for (const char* prefix : {"module.b.", "b."}) {
    const auto to = regnet(tiny, 3);
    const KeyMatch match = match_keys(*to, tensors, Names::torchvision, prefix);
    ASSERT_TRUE(match.whole()) << match.describe();
    match.load();
    expect_same_bits(*to, *regnet(tiny, 2));
  }
  EXPECT_TRUE(match_keys(*regnet(tiny), tensors, Names::torchvision, "c.").matched.empty());
}

TEST(KeyMatch, NothingInCommonIsSaid) {
  const KeyMatch match = match_keys(*regnet(tiny), {{"encoder.weights.0", Tensor::zeros({2})}});
  EXPECT_TRUE(match.matched.empty());
  EXPECT_NE(match.describe().find("encoder.weights.0"), std::string::npos) << match.describe();
}

TEST(KeyMatch, ANameGivenTwiceIsAnError) {
  auto tensors = saved(Names::torchvision);
  tensors.push_back({"module.stem.0.weight", tensors.front().tensor});
  EXPECT_THROW((void)match_keys(*regnet(tiny), tensors), Error);
}

TEST(KeyMatch, HalfPrecisionIsTaken) {
  const auto from = regnet(tiny, 1), to = regnet(tiny, 2);
  auto tensors = state_dict(*from);
  for (NamedTensor& t : tensors)
    if (t.tensor.dtype() == DType::f32) t.tensor = t.tensor.to(DType::f16);
  match_keys(*to, tensors).load();
  const auto a = from->named_parameters().front().tensor.data<float>(),
             b = to->named_parameters().front().tensor.data<float>();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-3);
}

TEST(KeyMatch, OwnLayoutIsAsInMemory) {
  const auto from = regnet(tiny, 1), to = regnet(tiny, 2);
  std::vector<NamedTensor> tensors;
  for (const NamedTensor& t : from->named_tensors()) tensors.push_back({"model.trunk." + t.name, t.tensor});
  tensors.push_back({"optimizer.momentum.trunk.stem.0.weight", tensors.front().tensor});
  const KeyMatch match = match_keys(*to, tensors, Layout::own);
  ASSERT_TRUE(match.whole()) << match.describe();
  EXPECT_EQ(match.prefix, "model.trunk.");
  match.load();
  expect_same_bits(*from, *to);
  EXPECT_FALSE(match_keys(*to, tensors).whole()) << "another order of the same numbers";
}

TEST(KeyMatch, ValuesThatNoNetworkHasAreRefusedBeforeAnythingIsChanged) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (const auto& [name, value] : {std::pair{"stem.1.weight", nan},
                                    {"stem.1.bias", infinity},
                                    {"trunk_output.block2.block2-0.f.c.1.running_mean", -infinity},
                                    {"trunk_output.block1.block1-0.f.a.1.running_var", -1e-3f}}) {
    const auto to = regnet(tiny, 2);
    auto tensors = saved(Names::torchvision, "x.");
    for (NamedTensor& t : tensors)
      if (t.name == std::string("x.") + name) t.tensor.data<float>().back() = value;
    const KeyMatch match = match_keys(*to, tensors);
    try {
      match.load();
      FAIL() << name;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(std::string("\"x.") + name + "\""), std::string::npos) << error.what();
    }
    expect_same_bits(*to, *regnet(tiny, 2));
  }
  auto half = saved(Names::torchvision);
  half.front().tensor = half.front().tensor.to(DType::f16);
  static_cast<uint16_t*>(half.front().tensor.raw())[3] = 0x7c00;  // infinity
  EXPECT_NE(impossible_value(half), "");
  EXPECT_EQ(impossible_value({{"mean", Tensor::full({2}, -1.f)}, {"count", Tensor::zeros({}, DType::i64)}}), "");
}

TEST(KeyMatch, PyclsWeightsGiveTheFeaturesOfTheOriginal) {
  // The weights as pycls has them, made here by hand: its stem's kernels are (out, blue green red, 3, 3).
  const auto original = regnet(tiny, 1), copy = regnet(tiny, 2);
  auto tensors = state_dict(*original, Names::timm);
  const char* pieces[][2] = {{"conv1.conv", "f.a"},  {"conv1.bn", "f.a_bn"},    {"conv2.conv", "f.b"},
                             {"conv2.bn", "f.b_bn"}, {"se.fc1", "f.se.f_ex.0"}, {"se.fc2", "f.se.f_ex.2"},
                             {"conv3.conv", "f.c"},  {"conv3.bn", "f.c_bn"},    {"downsample.conv", "proj"},
                             {"downsample.bn", "bn"}};
  for (NamedTensor& t : tensors) {
    for (const auto& [timm, pycls] : pieces)
      if (const size_t at = t.name.find(timm); at != std::string::npos && t.name.starts_with("s") && t.name[1] != 't') {
        t.name.replace(at, std::strlen(timm), pycls);
        break;
      }
    if (t.name != "stem.conv.weight") continue;
    const Tensor rgb = t.tensor.clone();
    for (size_t out = 0; out < 8; ++out)
      for (size_t in = 0; in < 3; ++in)
        for (size_t i = 0; i < 9; ++i)
          t.tensor.data<float>()[(out * 3 + in) * 9 + i] = rgb.data<float>()[(out * 3 + 2 - in) * 9 + i];
  }
  const KeyMatch match = match_keys(*copy, tensors);
  ASSERT_TRUE(match.whole()) << match.describe();
  EXPECT_EQ(match.names, Names::pycls);
  match.load();
  const NoGradScope no_grad;
  Tensor images = Tensor::images({{2, 24, 24}}, 3);
  for (size_t i = 0; i < images.data<float>().size(); ++i)
    images.data<float>()[i] = std::sin(0.37f * static_cast<float>(i));
  original->train(false);
  copy->train(false);
  const Tensor a = original->features(images), b = copy->features(images);
  EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes()), 0);
}

TEST(TrunksOf, TellsEveryNamedTrunkByItsTensors) {
  const DeviceScope meta(Device::meta);
  for (const char* name : {"y_200mf", "x_200mf", "y_800mf", "y_800mf_tv", "y_16gf", "y_10b", "resnet9", "resnet18",
                           "resnet18:stem=cifar", "resnet34", "resnet50", "resnet101", "resnet50w2"}) {
    const auto network = trunk(name);
    const auto own = network->named_tensors();
    const auto map = name_map(*network, Names::vissl);
    std::vector<NamedTensor> tensors{{"heads.0.clf.0.weight", Tensor::empty({1000, 440})}};
    for (size_t i = 0; i < own.size(); ++i)
      tensors.push_back({"trunk." + map[i].second, Tensor::empty(stored_shape(own[i].name, own[i].tensor.shape()))});
    EXPECT_EQ(trunks_of(tensors), std::vector<std::string>{name});
    tensors.pop_back();
    EXPECT_TRUE(trunks_of(tensors).empty()) << name;
  }
}

// What timm.create_model() of that name holds: tests/goldens/timm_names.py.
struct TimmsTensors {
  const char *timm, *ours;
  std::vector<std::string> classifier;
};

class TrunksOfTimms : public ::testing::TestWithParam<TimmsTensors> {};

TEST_P(TrunksOfTimms, ListOfTensorsIsOneTrunk) {
  const DeviceScope meta(Device::meta);
  std::ifstream list(std::string(SACCADE_GOLDENS) + "/timm_" + GetParam().timm + ".txt");
  std::vector<NamedTensor> tensors;
  for (std::string name; list >> name;) {
    std::string extents;
    std::getline(list, extents);
    Shape shape;
    std::istringstream numbers(extents);
    for (int64_t extent = 0; numbers >> extent;) shape.push_back(extent);
    tensors.push_back({name, Tensor::empty(shape)});
  }
  ASSERT_GT(tensors.size(), 100U);
  EXPECT_EQ(trunks_of(tensors), std::vector<std::string>{GetParam().ours});
  const auto network = trunk(GetParam().ours);
  const KeyMatch match = match_keys(*network, tensors);
  EXPECT_TRUE(match.whole()) << match.describe();
  EXPECT_EQ(match.elsewhere, GetParam().classifier);
  std::vector<std::string> theirs, written = GetParam().classifier;
  for (const NamedTensor& t : tensors) theirs.push_back(t.name);
  for (const auto& [ours, name] : name_map(*network, Names::timm)) {
    written.push_back(name);
    if (name.ends_with("running_var")) written.push_back(name.substr(0, name.rfind('.')) + ".num_batches_tracked");
  }
  EXPECT_TRUE(std::ranges::is_permutation(written, theirs)) << "what is saved is what timm loads";
}

INSTANTIATE_TEST_SUITE_P(Timm, TrunksOfTimms,
                         ::testing::Values(TimmsTensors{"regnety_004", "y_400mf", {"head.fc.weight", "head.fc.bias"}},
                                           TimmsTensors{"resnet18", "resnet18", {"fc.weight", "fc.bias"}},
                                           TimmsTensors{"resnet34", "resnet34", {"fc.weight", "fc.bias"}}),
                         [](const auto& info) { return std::string(info.param.timm); });

}  // namespace
}  // namespace saccade::nn
