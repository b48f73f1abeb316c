#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/context.h>
#include <saccade/core/io/toml.h>
#include <saccade/nn/trunk.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "programs.h"

/// @file
/// Every file of recipes/: each key and value is one that saccade-pretrain takes, and a training begins with them.
namespace saccade::test {
namespace {

namespace fs = std::filesystem;

using Settings = std::map<std::string, std::string>;

Settings settings_in(const fs::path& file) {
  Settings settings;
  for (const io::TomlSetting& setting : io::parse_toml(content_of(file), file.string()))
    settings[setting.key] = fmt::format("{}", fmt::join(setting.values, ","));
  return settings;
}

/// 0.5 and 5e-1 are the same, and true and 1; so are lists of such.
std::vector<std::string> canonical(const std::string& value) {
  std::vector<std::string> parts(1);
  for (const char c : value)
    if (c == ',')
      parts.emplace_back();
    else
      parts.back() += c;
  for (std::string& part : parts) {
    if (part == "true" || part == "false") part = part == "true" ? "1" : "0";
    char* end = nullptr;
    const double number = std::strtod(part.c_str(), &end);
    if (!part.empty() && *end == '\0') part = fmt::format("{:.6g}", number);
  }
  return parts;
}

class Recipes : public testing::Test {
 protected:
  void SetUp() override {
    make_photos(folder / "photos", 4);
    fs::create_directory(folder / "nothing");
    for (const auto& entry : fs::directory_iterator(fs::path(SACCADE_SOURCE) / "recipes"))
      if (entry.path().extension() == ".toml") recipes.insert(entry.path());
    ASSERT_FALSE(recipes.empty());
  }

  Outcome train(const fs::path& recipe, const std::string& images, const Settings& other) const {
    std::vector<std::string> arguments{"--config", recipe.string(), "--data",   (folder / images).string(),
                                       "--run",    run_of(recipe),  "--device", "cpu"};
    for (const auto& [key, value] : other) arguments.insert(arguments.end(), {"--" + key, value});
    return run("pretrain", arguments);
  }
  std::string run_of(const fs::path& recipe) const { return (folder / recipe.stem().string()).string(); }

  /// Why a recipe is not one; empty if it is. Of all it says only the trunk is replaced, whose memory would be too
  /// much: the program then judges the rest and ends at the batch, which needs more images than there are. One that
  /// leaves choices to the time ends before these, at a folder without images.
  std::string refusal(const fs::path& recipe) const {
    Settings settings;
    try {
      settings = settings_in(recipe);
      const DeviceScope meta(Device::meta);
      if (settings.contains("trunk")) nn::trunk(settings["trunk"]);
    } catch (const std::exception& error) {
      return error.what();
    }
    const bool by_time = settings.contains("minutes");
    Settings other;
    if (settings.contains("trunk")) other["trunk"] = tiny_trunk;
    if (!settings.contains("batch")) other["batch"] = "128";
    const Outcome outcome = train(recipe, by_time ? "nothing" : "photos", other);
    const std::string batch = settings.contains("batch") ? settings["batch"] : other["batch"],
                      wanted = by_time ? (folder / "nothing").string() + ": the folder and those below it hold no image"
                                       : fmt::format("--batch {}: more than the 12 images of ", batch);
    return outcome.status == 1 && outcome.err.starts_with("saccade-pretrain: " + wanted) ? ""
                                                                                         : outcome.err + outcome.out;
  }

  static constexpr const char* tiny_trunk = "y:d=2,w0=8,wa=8,wm=2,g=8";
  TemporaryFolder folder;
  std::set<fs::path> recipes;
};

TEST_F(Recipes, AreTakenAsTheyStand) {
  for (const fs::path& recipe : recipes) EXPECT_EQ(refusal(recipe), "") << recipe;
}

TEST_F(Recipes, AreRefusedWithAnUnknownKeyOrABadValue) {
  const fs::path spoiled = folder / "spoiled.toml";
  const std::string good = content_of(*recipes.begin());
  const auto refused_with = [&](const std::string& key, const std::string& value) {
    std::string text;
    for (const io::TomlSetting& setting : io::parse_toml(good, "recipe"))
      if (setting.key != key)
        text += fmt::format(
            "{} = {}\n", setting.key,
            setting.values.size() == 1 ? io::toml_value(setting.values[0]) : io::toml_array(setting.values));
    put(spoiled, text + fmt::format("{} = {}\n", key, value));
    return refusal(spoiled);
  };
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  for (const auto& [key, value] : Pairs{{"seed", "7"}, {"minutes", "5"}})
    EXPECT_EQ(refused_with(key, value), "") << key;
  for (const auto& [key, value] : Pairs{{"prototype", "3"},
                                        {"trunk", "\"resnet17\""},
                                        {"crops", "\"2x0\""},
                                        {"mean", "[0.5, 0.5]"},
                                        {"hue", "0.7"},
                                        {"head-bn", "\"maybe\""},
                                        {"optimizer", "\"lars\""},
                                        {"lr", "-1"},
                                        {"precision", "\"f8\""},
                                        {"batch", "0"},
                                        {"minutes", "-5"}})
    EXPECT_NE(refused_with(key, value), "") << key;
}

TEST_F(Recipes, BeginATrainingOfWhichFlagsOverrideASetting) {
  for (const fs::path& recipe : recipes) {
    const Settings settings = settings_in(recipe);
    Settings other{{"trunk", tiny_trunk}, {"crops", "2x16"}, {"batch", "4"},  {"accumulate", "1"},
                   {"iterations", "1"},   {"hidden", "16"},  {"threads", "1"}};
    if (settings.contains("minutes")) other["minutes"] = "0";
    const Outcome outcome = train(recipe, "photos", other);
    ASSERT_EQ(outcome.status, 0) << recipe << ": " << outcome.err << outcome.out;
    Settings stored = settings_in(fs::path(run_of(recipe)) / "config.toml");
    for (const auto& [key, value] : settings)
      EXPECT_EQ(canonical(stored[key]), canonical(other.contains(key) ? other[key] : value)) << recipe << ": " << key;
  }
}

TEST_F(Recipes, ArePlannedAsTheyStand) {
  for (const fs::path& recipe : recipes) {
    const Settings settings = settings_in(recipe);
    if (settings.contains("accumulate")) continue;  // the giants of ImageNet: minutes to plan
    const Outcome outcome = run("plan", {"--config", recipe.string(), "--device", "v100-32gb", "--batch", "32"});
    ASSERT_EQ(outcome.status, 0) << recipe << ": " << outcome.err;
    EXPECT_THAT(outcome.out, testing::AllOf(testing::HasSubstr(settings.contains("trunk") ? settings.at("trunk") : ""),
                                            testing::HasSubstr(", batch 32, "), testing::HasSubstr("Fits: ")));
  }
  const fs::path spoiled = folder / "spoiled.toml";
  put(spoiled, "method = \"simclr\"\nprototypes = 3\n");
  const Outcome outcome = run("plan", {"--config", spoiled.string(), "--device", "v100-32gb"});
  EXPECT_NE(outcome.status, 0);
  EXPECT_THAT(outcome.err, testing::HasSubstr("prototypes is a setting of swav, and the method is simclr"))
      << outcome.out;
}

TEST_F(Recipes, StandInTheTableOfTheirFolder) {
  const std::string page = content_of(fs::path(SACCADE_SOURCE) / "recipes" / "README.md");
  for (const fs::path& recipe : recipes) {
    const std::string name = recipe.filename().string();
    EXPECT_NE(page.find(fmt::format("({})", name)), std::string::npos) << name;
    EXPECT_NE(content_of(recipe).find("--config recipes/" + name), std::string::npos) << name << " tells how to use it";
  }
}

}  // namespace
}  // namespace saccade::test
