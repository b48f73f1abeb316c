#include <gtest/gtest.h>
#include <saccade/core/random.h>
#include <saccade/kernels/error.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/eval/features.h>

#include <cmath>

namespace saccade::ssl {
namespace {

struct Features : ::testing::Test {
  std::shared_ptr<nn::Trunk> trunk = nn::trunk("y:d=3,w0=8,wa=12,wm=2,g=8,stem_width=8,in=1");
  Tensor pixels = Tensor::empty({5 * 64 * 64, 1});
  ImageRange images = [this](int64_t first, int64_t last) {
    return pixels.slice(first * 64 * 64, last * 64 * 64).with_segments({{last - first, 64, 64}});
  };
  Features() {
    Philox random(3);
    for (float& p : pixels.data<float>()) p = random.uniform(-1.f, 1.f);
  }
};

TEST_F(Features, TheMeanOfAGridsCellsIsThePooledFeature) {
  const Tensor pooled = features(*trunk, images, 5), grid = features(*trunk, images, 5, 2, 2);
  const int64_t channels = trunk->out_channels();
  ASSERT_EQ(grid.shape(), (Shape{5, 4 * channels}));
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t c = 0; c < channels; ++c) {
      float mean = 0;
      for (int64_t cell = 0; cell < 4; ++cell)
        mean += grid.data<float>()[static_cast<size_t>((i * 4 + cell) * channels + c)] / 4;
      EXPECT_NEAR(mean, pooled.data<float>()[static_cast<size_t>(i * channels + c)], 1e-5f);
    }
}

TEST_F(Features, CellsRunFromLeftToRightThenDown) {
  // An image that is dark but for its upper right quarter differs from a dark one mostly in cell 1.
  for (float& p : pixels.data<float>()) p = 0.f;
  const Tensor dark = features(*trunk, images, 1, 1, 2).clone();
  for (size_t y = 0; y < 32; ++y)
    for (size_t x = 32; x < 64; ++x) pixels.data<float>()[y * 64 + x] = 2.f;
  const Tensor lit = features(*trunk, images, 1, 1, 2);
  const int64_t channels = trunk->out_channels();
  std::vector<float> change(4);
  for (int64_t i = 0; i < 4 * channels; ++i)
    change[static_cast<size_t>(i / channels)] +=
        std::abs(lit.data<float>()[static_cast<size_t>(i)] - dark.data<float>()[static_cast<size_t>(i)]);
  for (const size_t cell : {0, 2, 3}) EXPECT_GT(change[1], change[cell]) << cell;
}

TEST_F(Features, TheFirstLayerThatIsNotFiniteIsNamed) {
  EXPECT_EQ(where_not_finite(*trunk, images(0, 2)), "");
  const auto set = [&](const std::string& name, float value) {
    for (const NamedTensor& t : trunk->named_tensors())
      if (t.name == name) t.tensor.fill(value);
  };
  set("trunk_output.block3.block3-0.f.c.1.weight", 3e38f);
  set("trunk_output.block3.block3-0.f.c.1.running_var", 1e-20f);
  EXPECT_EQ(where_not_finite(*trunk, images(0, 1)),
            "the layer trunk_output.block3.block3-0.f.c.1 is the first whose result is not");
  set("trunk_output.block1.block1-0.f.b.0.weight", NAN);
  EXPECT_EQ(where_not_finite(*trunk, images(0, 1)),
            "the layer trunk_output.block1.block1-0.f.b.0 is the first whose result is not");
  pixels.data<float>()[70] = INFINITY;
  EXPECT_EQ(where_not_finite(*trunk, images(0, 1)), "the image as it is shown to the network is not");
}

TEST_F(Features, RefusesAGridOfNothing) { EXPECT_THROW(features(*trunk, images, 5, 2, 0), Error); }

}  // namespace
}  // namespace saccade::ssl
