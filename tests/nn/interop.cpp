#include <gtest/gtest.h>
#include <saccade/nn/heads.h>
#include <saccade/nn/interop.h>
#include <saccade/nn/layers.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/resnet.h>

#include <cstring>
#include <map>
#include <set>

namespace saccade::nn {
namespace {

constexpr Names every[] = {Names::torchvision, Names::timm, Names::vissl, Names::classy, Names::pycls, Names::swav};

/// A whole SwAV model's tree.
class Model : public Module {
 public:
  explicit Model(const std::string& description, uint64_t seed = 0) {
    add_child("trunk", trunk(description, seed));
    add_child("projection_head",
              std::make_shared<ProjectionHead>(std::vector<int64_t>{8, 8, 4}, true, Init{seed, "h"}));
    add_child("prototypes", std::make_shared<Prototypes>(6, 4, Init{seed, "p"}));
    add_buffer("queue0", Tensor::full({16, 4}, static_cast<float>(seed)));
  }

 protected:
  Tensor forward(const Tensor& x) override { return x; }
};

class Classifier : public Module {
 public:
  explicit Classifier(const std::string& description) {
    const auto network = add_child("trunk", trunk(description));
    add_child("fc", std::make_shared<Linear>(network->out_channels(), 10));
  }

 protected:
  Tensor forward(const Tensor& x) override { return x; }
};

std::map<std::string, std::string> names(const Module& module, Names which) {
  const auto map = name_map(module, which);
  return {map.begin(), map.end()};
}

TEST(Interop, RegNetNamesAreThoseOfEachProgram) {
  const DeviceScope meta(Device::meta);
  const Classifier model("y_400mf");
  struct Case {
    const char *ours, *torchvision, *timm, *vissl, *classy, *pycls;
  };
  const Case cases[] = {
      {"trunk.stem.0.weight", "trunk.stem.0.weight", "stem.conv.weight", "_feature_blocks.conv1.stem.0.weight",
       "stem.stem.0.weight", "stem.conv.weight"},
      {"trunk.stem.1.running_var", "trunk.stem.1.running_var", "stem.bn.running_var",
       "_feature_blocks.conv1.stem.1.running_var", "stem.stem.1.running_var", "stem.bn.running_var"},
      {"trunk.trunk_output.block3.block3-2.f.b.1.bias", "", "s3.b3.conv2.bn.bias",
       "_feature_blocks.res4.block3-2.f.b.1.bias", "trunk_output.block3.block3-2.f.b.1.bias", "s3.b3.f.b_bn.bias"},
      {"trunk.trunk_output.block2.block2-0.f.a.0.weight", "", "s2.b1.conv1.conv.weight",
       "_feature_blocks.res3.block2-0.f.a.0.weight", "trunk_output.block2.block2-0.f.a.0.weight", "s2.b1.f.a.weight"},
      {"trunk.trunk_output.block1.block1-0.f.se.fc1.bias", "", "s1.b1.se.fc1.bias",
       "_feature_blocks.res2.block1-0.f.se.excitation.0.bias", "trunk_output.block1.block1-0.f.se.excitation.0.bias",
       "s1.b1.f.se.f_ex.0.bias"},
      {"trunk.trunk_output.block4.block4-5.f.se.fc2.weight", "", "s4.b6.se.fc2.weight",
       "_feature_blocks.res5.block4-5.f.se.excitation.2.weight",
       "trunk_output.block4.block4-5.f.se.excitation.2.weight", "s4.b6.f.se.f_ex.2.weight"},
      {"trunk.trunk_output.block1.block1-0.f.c.0.weight", "", "s1.b1.conv3.conv.weight",
       "_feature_blocks.res2.block1-0.f.c.weight", "trunk_output.block1.block1-0.f.c.weight", "s1.b1.f.c.weight"},
      {"trunk.trunk_output.block1.block1-0.f.c.1.weight", "", "s1.b1.conv3.bn.weight",
       "_feature_blocks.res2.block1-0.f.final_bn.weight", "trunk_output.block1.block1-0.f.final_bn.weight",
       "s1.b1.f.c_bn.weight"},
      {"trunk.trunk_output.block1.block1-0.proj.0.weight", "", "s1.b1.downsample.conv.weight",
       "_feature_blocks.res2.block1-0.proj.weight", "trunk_output.block1.block1-0.proj.weight", "s1.b1.proj.weight"},
      {"trunk.trunk_output.block1.block1-0.proj.1.running_mean", "", "s1.b1.downsample.bn.running_mean",
       "_feature_blocks.res2.block1-0.bn.running_mean", "trunk_output.block1.block1-0.bn.running_mean",
       "s1.b1.bn.running_mean"},
  };
  const auto torchvision = names(model, Names::torchvision), timm = names(model, Names::timm),
             vissl = names(model, Names::vissl), pycls = names(model, Names::pycls);
  const auto classy = names(*trunk("y_400mf"), Names::classy);
  for (const Case& c : cases) {
    const std::string bare = std::string(c.ours).substr(6);
    EXPECT_EQ(torchvision.at(c.ours), bare);
    EXPECT_EQ(timm.at(c.ours), c.timm);
    EXPECT_EQ(vissl.at(c.ours), c.vissl);
    EXPECT_EQ(pycls.at(c.ours), c.pycls);
    EXPECT_EQ(classy.at(bare), c.classy);
  }
  EXPECT_EQ(torchvision.at("fc.weight"), "fc.weight");
  EXPECT_EQ(timm.at("fc.weight"), "head.fc.weight");
  EXPECT_EQ(pycls.at("fc.bias"), "head.fc.bias");
  EXPECT_EQ(vissl.at("fc.bias"), "0.clf.0.bias");
}

TEST(Interop, ResNetAndHeadNames) {
  const DeviceScope meta(Device::meta);
  const Model model("resnet50");
  const auto swav = names(model, Names::swav), vissl = names(model, Names::vissl);
  EXPECT_EQ(swav.at("trunk.conv1.weight"), "module.conv1.weight");
  EXPECT_EQ(swav.at("trunk.layer3.5.bn2.running_var"), "module.layer3.5.bn2.running_var");
  EXPECT_EQ(swav.at("trunk.layer2.0.downsample.1.weight"), "module.layer2.0.downsample.1.weight");
  EXPECT_EQ(swav.at("projection_head.3.bias"), "module.projection_head.3.bias");
  EXPECT_EQ(swav.at("prototypes.weight"), "module.prototypes.weight");
  EXPECT_EQ(vissl.at("trunk.bn1.bias"), "_feature_blocks.bn1.bias");
  EXPECT_EQ(vissl.at("projection_head.1.running_mean"), "0.projection_head.1.running_mean");
  EXPECT_EQ(vissl.at("prototypes.weight"), "0.prototypes0.weight");
  EXPECT_EQ(names(Classifier("resnet50"), Names::timm).at("fc.weight"), "fc.weight");
  EXPECT_THROW(name_map(model, Names::pycls), Error);
}

TEST(Interop, NoTwoTensorsShareAName) {
  const DeviceScope meta(Device::meta);
  for (const char* description : {"y_10b", "x_200mf", "y_400mf"})
    for (const Names which : every) {
      const auto map = name_map(*trunk(description), which);
      std::set<std::string> unique;
      for (const auto& [ours, theirs] : map) EXPECT_TRUE(unique.insert(theirs).second) << theirs;
      EXPECT_EQ(unique.size(), trunk(description)->named_tensors().size());
    }
}

TEST(Interop, WordsNameThem) {
  for (const Names which : every) EXPECT_EQ(names_of(name_of(which)), which);
  EXPECT_THROW(names_of("keras"), Error);
}

constexpr const char* tiny = "y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8";

TEST(Interop, LayoutsArePyTorchs) {
  const auto network = regnet(tiny, 1);
  std::map<std::string, Tensor> ours, theirs;
  for (const NamedTensor& t : network->named_tensors()) ours[t.name] = t.tensor;
  for (const NamedTensor& t : state_dict(*network)) theirs[t.name] = t.tensor;
  const Tensor a = ours.at("stem.0.weight"), b = theirs.at("stem.0.weight");
  ASSERT_EQ(a.shape(), (Shape{8, 3, 3, 3}));
  ASSERT_EQ(b.shape(), (Shape{8, 3, 3, 3}));
  const auto at = [](const Tensor& t, int64_t i, int64_t j, int64_t k, int64_t l) {
    return t.data<float>()[static_cast<size_t>(((i * t.dim(1) + j) * t.dim(2) + k) * t.dim(3) + l)];
  };
  for (int64_t out = 0; out < 8; ++out)
    for (int64_t in = 0; in < 3; ++in)
      for (int64_t row = 0; row < 3; ++row)
        for (int64_t column = 0; column < 3; ++column)
          ASSERT_EQ(at(a, out, row, column, in), at(b, out, in, row, column));
  EXPECT_EQ(theirs.at("trunk_output.block1.block1-0.f.b.0.weight").shape(), (Shape{8, 8, 3, 3}));
  EXPECT_EQ(theirs.at("trunk_output.block1.block1-0.f.se.fc1.weight").shape(), (Shape{2, 8, 1, 1}));
  const Tensor counter = theirs.at("stem.1.num_batches_tracked");
  EXPECT_EQ(counter.shape(), Shape{});
  EXPECT_EQ(counter.dtype(), DType::i64);
  EXPECT_EQ(counter.data<int64_t>()[0], 0);
}

TEST(Interop, PyclsSeesBlueGreenRed) {
  const auto network = regnet(tiny, 1);
  const auto stem = [&](Names which) {
    for (const NamedTensor& t : state_dict(*network, which))
      if (t.name.starts_with("stem.") && t.tensor.rank() == 4) return t.tensor;
    return Tensor();
  };
  const Tensor rgb = stem(Names::timm), bgr = stem(Names::pycls);  // both (8, 3, 3, 3)
  for (size_t out = 0; out < 8; ++out)
    for (size_t in = 0; in < 3; ++in)
      for (size_t pixel = 0; pixel < 9; ++pixel)
        ASSERT_EQ(rgb.data<float>()[(out * 3 + in) * 9 + pixel], bgr.data<float>()[(out * 3 + 2 - in) * 9 + pixel]);
}

TEST(Interop, AGrayStemIsNotTurned) {
  const auto network = regnet("y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8,in=1", 1);
  const Tensor plain = state_dict(*network, Names::timm).front().tensor,
               pycls = state_dict(*network, Names::pycls).front().tensor;
  EXPECT_EQ(std::memcmp(plain.raw(), pycls.raw(), plain.bytes()), 0);
}

}  // namespace
}  // namespace saccade::nn
