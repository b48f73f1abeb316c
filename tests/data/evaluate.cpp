#include <gtest/gtest.h>
#include <saccade/data/evaluate.h>
#include <saccade/kernels/error.h>

#include <cmath>
#include <set>

#include "support/temporary_folder.h"

namespace saccade::data {
namespace {

/// Images of one colour each, of the size that `side` says; those of side 0 cannot be read.
Source of_sides(std::vector<int> sides) {
  Source source;
  source.name = "made up";
  source.count = std::ssize(sides);
  source.channels = 1;
  source.key = [](int64_t i) { return "image " + std::to_string(i); };
  source.read = [sides = std::move(sides)](int64_t i, double, Image& out) {
    const int side = sides[static_cast<size_t>(i)];
    if (side == 0) throw Error("broken");
    out.resize(side, side, 1);
    for (auto& p : out.pixels) p = static_cast<uint8_t>(10 * i + 5);
  };
  return source;
}

/// The mean of each image, as a row of one number.
Tensor means(const Tensor& images) {
  const Segment s = images.segments().front();
  const Tensor rows = Tensor::zeros({s.n, 1});
  for (int64_t n = 0; n < s.n; ++n)
    for (int64_t p = 0; p < s.h * s.w; ++p)
      rows.data<float>()[static_cast<size_t>(n)] +=
          images.data<float>()[static_cast<size_t>(n * s.h * s.w + p)] / static_cast<float>(s.h * s.w);
  return rows;
}

TEST(ViewRule, IsWholeWhereAllOfASampleHaveTheNetworksSize) {
  EXPECT_EQ(choose_view_rule(of_sides({32, 32, 0, 32}), 32), ViewRule::whole);
  EXPECT_EQ(choose_view_rule(of_sides({32, 32, 33, 32}), 32), ViewRule::middle) << "one icon first decides nothing";
  EXPECT_EQ(choose_view_rule(of_sides({0, 0}), 32), ViewRule::middle);
  std::vector<int> late(1000, 32);
  for (size_t i = 600; i < 1000; ++i) late[i] = 48;
  EXPECT_EQ(choose_view_rule(of_sides(late), 32), ViewRule::middle) << "the sample is of all";
}

TEST(ViewRule, IsNamed) {
  for (const ViewRule rule : {ViewRule::middle, ViewRule::whole}) EXPECT_EQ(view_rule_of(name_of(rule)), rule);
  EXPECT_THROW(view_rule_of("all"), Error);
}

TEST(ViewRule, WholeShowsAllOfAnImageOfAnyShape) {
  Image image;
  image.resize(40, 80, 1);  // dark at the left, bright at the right
  for (int y = 0; y < 40; ++y)
    for (int x = 0; x < 80; ++x) image.row(y)[x] = x < 40 ? 0 : 200;
  EvalView view = eval_view(ViewRule::whole, 8);
  view.mean = {0, 0, 0};
  view.std = {1, 1, 1};
  std::vector<float> out(64);
  make_view(view, image, out.data());
  for (size_t i = 0; i < 64; ++i) {
    if (i % 8 == 3 || i % 8 == 4) continue;  // between the two
    EXPECT_NEAR(out[i] * 255, i % 8 < 4 ? 0 : 200, 1) << i;
  }
  EXPECT_EQ(eval_view(ViewRule::middle, 224).resize, 256);
}

TEST(ComputeRows, EveryBatchIsOfTheSameNumberOfImages) {
  const Source source = of_sides(std::vector<int>(11, 12));
  const EvalView view{.resize = 8, .size = 8};
  for (const int batch : {4, 32}) {
    std::set<int64_t> counts;
    const Rows rows = compute_rows(source, view,
                                   [&](const Tensor& images) {
                                     counts.insert(images.segments().front().n);
                                     return means(images);
                                   },
                                   {.batch = batch});
    EXPECT_EQ(counts, std::set<int64_t>{batch});
    ASSERT_EQ(rows.rows.shape(), (Shape{11, 1}));
    for (size_t i = 1; i < 11; ++i) EXPECT_GT(rows.rows.data<float>()[i], rows.rows.data<float>()[i - 1]);
  }
}

TEST(ComputeRows, ARowThatIsNotFiniteNamesItsImage) {
  const auto compute = [](const Tensor& images) {
    Tensor rows = means(images);
    for (float& v : rows.data<float>())
      if (v > 0) v = NAN;  // of the brighter images
    return rows;
  };
  int64_t shown = 0;
  const std::string said = test::complaint<Error>([&] {
    compute_rows(of_sides(std::vector<int>(20, 12)), {.resize = 8, .size = 8}, compute, {.batch = 4},
                 [&](const Tensor& image) {
                   shown = image.segments().front().n;
                   return std::string("for a reason");
                 });
  });
  EXPECT_EQ(said, "image 11: what is computed of it is not finite: for a reason");  // 115 / 255 is above the mean
  EXPECT_EQ(shown, 1);
}

}  // namespace
}  // namespace saccade::data
