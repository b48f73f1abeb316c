#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/autograd.h>
#include <saccade/nn/layers.h>
#include <saccade/vision/features.h>
#include <saccade/vision/gallery.h>

#include <memory>

#include "made_up.h"

namespace saccade::vision {
namespace {

TEST(Thumbnail, IsTheMiddleSquareUnderTheFilesName) {
  data::Source source = grays();
  source.read = [](int64_t, double, data::Image& out) {
    out.resize(10, 30, 3);
    for (int y = 0; y < 10; ++y)
      for (int x = 0; x < 90; ++x) out.row(y)[x] = static_cast<uint8_t>(x / 3 >= 10 && x / 3 < 20 ? 200 : 0);
  };
  const ssl::Thumbnail picture = thumbnail(source, 0, 64);
  EXPECT_EQ(picture.width, 10) << "nothing is scaled up";
  EXPECT_EQ(picture.height, 10);
  EXPECT_EQ(picture.label, "0, \"a\".png");
  ASSERT_EQ(picture.pixels.size(), 300u);
  for (const int v : picture.pixels) EXPECT_EQ(v, 200);
}

TEST(Thumbnail, HasTheColoursOfATallImagesMiddle) {
  data::Source source = grays();
  source.read = [](int64_t, double, data::Image& out) {
    out.resize(30, 10, 3);
    for (int y = 0; y < 30; ++y)
      for (int x = 0; x < 30; ++x) out.row(y)[x] = static_cast<uint8_t>(y >= 10 && y < 20 ? 50 * (x % 3) : 255);
  };
  const ssl::Thumbnail picture = thumbnail(source, 0, 64);
  ASSERT_EQ(picture.pixels.size(), 300u);
  for (size_t i = 0; i < 300; ++i) EXPECT_EQ(picture.pixels[i], 50 * (i % 3)) << i;
}

/// Embeds an image of one gray as (gray, 1 - gray).
Tensor by_brightness(const Tensor& images) {
  const Segment s = images.segments().front();
  const Tensor rows = Tensor::zeros({s.n, 2});
  for (int64_t n = 0; n < s.n; ++n) {
    const float gray = images.data<float>()[static_cast<size_t>(n * s.h * s.w * 3)];
    rows.data<float>()[static_cast<size_t>(2 * n)] = gray;
    rows.data<float>()[static_cast<size_t>(2 * n + 1)] = 1 - gray;
  }
  return rows;
}

TEST(PrototypeGallery, ShowsTheImagesNearestToEachPrototype) {
  const auto model = nn::trunk(kTiny);
  const Tensor prototypes = Tensor::from(std::vector<float>{1, 0, 0, 1}, {2, 2});
  data::EvalView view = view_of(tiny_info());
  view.mean = {0, 0, 0};
  view.std = {1, 1, 1};
  const ssl::Gallery gallery = prototype_gallery(*model, by_brightness, prototypes, grays(), view);
  ASSERT_EQ(gallery.rows.size(), 2u);
  EXPECT_EQ(gallery.rows[0].name, "1 (4)") << "the dark ones are more: one bright one cannot be read";
  EXPECT_EQ(gallery.rows[1].name, "0 (3)");
  EXPECT_EQ(gallery.rows[0].pictures[0].label, "0, \"a\".png") << "the darkest comes first";
  EXPECT_EQ(gallery.rows[1].pictures[0].label, "7, \"a\".png") << "and the brightest";
  EXPECT_NE(gallery.note.find("7 images"), std::string::npos) << gallery.note;
}

TEST(PrototypeGallery, OfMoreImagesThanItLooksAtTakesThemEvenly) {
  const auto model = nn::trunk(kTiny);
  const Tensor prototypes = Tensor::from(std::vector<float>{1, 0}, {1, 2});
  bool recorded = false;
  const auto embed = [&](const Tensor& images) {
    recorded = autograd::recording({model->parameters().front()});
    return by_brightness(images);
  };
  const ssl::Gallery gallery = prototype_gallery(*model, embed, prototypes, grays(40), view_of(tiny_info()), 4);
  ASSERT_EQ(gallery.rows.size(), 1u);
  std::vector<std::string> labels;
  for (const ssl::Thumbnail& picture : gallery.rows[0].pictures) labels.push_back(picture.label);
  EXPECT_THAT(labels, testing::UnorderedElementsAre("0, \"a\".png", "10, \"a\".png", "20, \"a\".png", "30, \"a\".png"));
  EXPECT_FALSE(recorded) << "nothing is kept for a backward that does not come";
}

}  // namespace
}  // namespace saccade::vision
