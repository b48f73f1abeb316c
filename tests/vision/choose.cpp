#include <gtest/gtest.h>
#include <saccade/data/loader.h>
#include <saccade/kernels/error.h>
#include <saccade/vision/choose.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "made_up.h"

namespace saccade::vision {
namespace {

/// Images of one size; those in colour differ in blue.
data::Source squares(int64_t count, int side, bool gray) {
  data::Source source = grays(count);
  source.read = [=](int64_t i, double, data::Image& out) {
    out.resize(side, side + 3, 3);
    for (size_t p = 0; p < out.pixels.size(); ++p)
      out.pixels[p] = static_cast<uint8_t>((p / 3 * static_cast<size_t>(i + 1)) % 251 + (!gray && p % 3 == 2 ? 4 : 0));
  };
  return source;
}

std::map<std::string, std::string> by_name(const std::vector<Choice>& choices) {
  std::map<std::string, std::string> values;
  for (const Choice& c : choices) {
    EXPECT_TRUE(values.emplace(c.setting, c.value).second) << c.setting << " is chosen twice";
    EXPECT_FALSE(c.reason.empty()) << c.setting;
  }
  return values;
}

TEST(ImageFacts, AreTheMedianSideAndWhetherAllAreGray) {
  const ImageFacts colours = look_at(squares(200, 40, false));
  EXPECT_EQ(colours.count, 200);
  EXPECT_EQ(colours.side, 40);
  EXPECT_FALSE(colours.gray);
  EXPECT_TRUE(look_at(squares(5, 40, true)).gray);
}

TEST(ImageFacts, PassOverWhatCannotBeRead) {
  EXPECT_EQ(look_at(grays(8)).side, 20);
  data::Source broken = grays(3);
  broken.read = [](int64_t, double, data::Image&) { throw Error("broken for good"); };
  try {
    look_at(broken);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("broken for good"), std::string::npos) << error.what();
  }
}

TEST(Choose, SmallImagesGetCropsThatStillShowSomethingAndAStemThatKeepsTheirSize) {
  Training training;
  const auto chosen = by_name(choose(training, {.count = 50000, .side = 32}));
  EXPECT_EQ(chosen.at("crops"), "2x32@0.4-1+2x20@0.2-0.5");
  EXPECT_EQ(chosen.at("trunk"), "resnet9:width=16") << "its stem keeps their size";
  EXPECT_EQ(chosen.at("blur"), "0");
  EXPECT_EQ(chosen.at("batch"), "128");
  EXPECT_EQ(training.crops, chosen.at("crops")) << "the training has what was chosen";
  EXPECT_EQ(training.views.blur_p, 0.f);
  EXPECT_EQ(training.views.hue, 0.1f);
}

TEST(Choose, WholeImagesAreShownLargerThanTheirCrops) {
  const auto size_for = [](const char* method, int side) {
    Training training{.method = ssl::method(method)};
    choose(training, {.count = 5000, .side = side});
    return training.shown_size();
  };
  EXPECT_EQ(size_for("simclr", 32), 32) << "crops of 24";
  EXPECT_EQ(size_for("swav", 32), 32) << "crops of 32";
  EXPECT_EQ(size_for("swav", 3000), 128) << "crops of 96";
  EXPECT_EQ(size_for("swav", 100), 100) << "no larger than the images";
  EXPECT_EQ((Training{.crops = "2x40"}.shown_size()), 40) << "where nobody chose";
}

TEST(Choose, GrayImagesGetANetworkOfOneChannel) {
  Training training;
  const auto chosen = by_name(choose(training, {.count = 60000, .side = 28, .gray = true}));
  EXPECT_EQ(chosen.at("crops"), "2x28@0.4-1+2x16@0.2-0.5");
  EXPECT_NE(chosen.at("trunk").find(",in=1"), std::string::npos);
  EXPECT_FALSE(chosen.contains("saturation")) << "gray has none";
  Training of_photos;
  const auto large = by_name(choose(of_photos, {.count = 900, .side = 300, .gray = true}));
  EXPECT_EQ(large.at("trunk"), "y_400mf:in=1");
  EXPECT_EQ(large.at("contrast"), "0.4") << "levels are all that they differ in";
  EXPECT_EQ(large.at("blur"), "0");
}

TEST(Choose, PhotographsGetTheMethodsOwnCrops) {
  Training training;
  const auto chosen = by_name(choose(training, {.count = 100000, .side = 3000}));
  EXPECT_EQ(chosen.at("trunk"), "y_400mf");
  EXPECT_EQ(chosen.at("crops"), training.method.crops);
  EXPECT_FALSE(chosen.contains("blur"));
  EXPECT_EQ(training.views.blur_p, 0.5f);
}

TEST(Choose, CropsKeepWhatTheMethodGivesEachOfThem) {
  const auto crops_of = [](int side) {
    Training training{.method = ssl::method("dino")};
    choose(training, {.count = 5000, .side = side});
    return training.crops;
  };
  EXPECT_EQ(data::parse_crops(crops_of(3000)), data::parse_crops(ssl::method("dino").crops));
  EXPECT_EQ(crops_of(32).find("blur"), std::string::npos) << "nothing of 32 pixels is blurred";
  EXPECT_NE(crops_of(32).find("solarize=0.2"), std::string::npos) << crops_of(32);
}

TEST(Choose, WhateverTheImagesWhatIsChosenCanBeMade) {
  for (const char* method : {"swav", "simclr", "dino"})
    for (const int side : {1, 8, 27, 28, 32, 40, 41, 63, 64, 95, 96, 224, 5000})
      for (const int64_t count : {1, 3, 20, 300, 10'000'000}) {
        SCOPED_TRACE(std::string(method) + ", " + std::to_string(count) + " of " + std::to_string(side));
        Training training{.method = ssl::method(method)};
        training.crops = training.method.crops;
        choose(training, {.count = count, .side = side});
        const data::MultiCrop views = training.multi_crop();
        EXPECT_NO_THROW(views.check());
        const int64_t each = training.method.crops_of_each;
        EXPECT_TRUE(each == 0 || views.crops_per_image() == each) << views.crops_per_image();
        EXPECT_GE(training.batch, 1);
        EXPECT_LE(training.batch, count);
        const DeviceScope meta(Device::meta);
        EXPECT_NO_THROW(nn::trunk(training.trunk));
      }
}

TEST(Choose, LeavesWhatWasGivenAsItIs) {
  Training training{.trunk = "y_200mf", .batch = 17};
  const std::set<std::string> given{"trunk", "batch", "blur"};
  const auto chosen = by_name(
      choose(training, {.count = 50000, .side = 32}, [&](const std::string& name) { return given.contains(name); }));
  for (const std::string& name : given) EXPECT_FALSE(chosen.contains(name)) << name;
  EXPECT_EQ(training.trunk, "y_200mf");
  EXPECT_EQ(training.batch, 17);
  EXPECT_EQ(training.views.blur_p, 0.5f);
}

const Given kTrunkIsGiven = [](const std::string& name) { return name == "trunk" || name == "crops"; };

TEST(ChooseWithin, TheScheduleIsAsLongAsTheTimeHolds) {
  const auto iterations_in = [](double minutes) {
    data::Source source = squares(64, 24, false);
    Training training{.trunk = kTiny, .crops = "2x16"};
    const auto start = std::chrono::steady_clock::now();
    const auto chosen = by_name(choose_within({.minutes = minutes}, training, source, Device::cpu, kTrunkIsGiven));
    EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 15 * minutes)
        << "what is looked at beforehand leaves three quarters of the time at least";
    EXPECT_EQ(std::to_string(training.options.iterations), chosen.at("iterations"));
    EXPECT_EQ(chosen.at("optimizer"), "adamw");
    return static_cast<double>(training.options.iterations);
  };
  const double few = iterations_in(0.05), many = iterations_in(0.5);
  EXPECT_GT(few, 10);
  EXPECT_GT(many, 6 * few) << "ten times the time";
}

TEST(ChooseWithin, SaysSoWhenTheTimeIsTooShort) {
  Training training{.trunk = kTiny, .crops = "2x16"};
  data::Source source = squares(64, 24, false);
  EXPECT_THROW(choose_within({.minutes = 1e-4}, training, source, Device::cpu, kTrunkIsGiven), Error);
}

TEST(ChooseWithin, TakesTheCheapestTrunkWhereThereIsLittleTime) {
  Training training;
  data::Source source = squares(64, 16, true);
  const auto chosen = by_name(choose_within({.minutes = 1}, training, source, Device::cpu));
  EXPECT_EQ(source.channels, 1) << "a network of one channel is shown gray images";
  Training cheapest;
  EXPECT_EQ(chosen.at("trunk"), by_name(choose(cheapest, {.count = 64, .side = 16, .gray = true})).at("trunk"));
  EXPECT_EQ(training.trunk, chosen.at("trunk"));
}

TEST(ChooseWithin, TheMethodFollowsFromTheImagesUnlessItOrASettingOfItIsGiven) {
  const auto method_for = [](const std::string& given) {
    Training training{.trunk = kTiny};
    data::Source source = squares(64, 16, false);
    const auto chosen =
        by_name(choose_within({.minutes = 0.2}, training, source, Device::cpu,
                              [&](const std::string& name) { return name == "trunk" || name == given; }));
    EXPECT_EQ(chosen.contains("method"), given.empty());
    EXPECT_EQ(training.crops, chosen.at("crops"));
    return training.method.name;
  };
  EXPECT_EQ(method_for(""), "simclr");
  EXPECT_EQ(method_for("method"), "swav") << "what the training has is what was given";
  EXPECT_EQ(method_for("prototypes"), "swav") << "a setting of the method's own";
}

TEST(ChooseWithin, EachMethodIsGivenItsOwnCrops) {
  for (const char* method : {"simclr", "dino"}) {
    Training training{.method = ssl::method(method), .trunk = kTiny};
    data::Source source = squares(64, 16, false);
    const auto chosen =
        by_name(choose_within({.minutes = 1}, training, source, Device::cpu,
                              [](const std::string& name) { return name == "trunk" || name == "method"; }));
    EXPECT_EQ(training.method.name, method);
    EXPECT_EQ(training.multi_crop().crops_per_image(), method == std::string("simclr") ? 2 : 4);
    EXPECT_FALSE(chosen.contains("prototypes")) << method << " has none";
  }
}

}  // namespace
}  // namespace saccade::vision
