// --method: each method of the table trains, is planned, and has its flags and no other's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/ssl/methods/methods.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "programs.h"

namespace saccade::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

/// tiny_training() without SwAV's flags, with crops that the method takes.
std::vector<std::string> training(const fs::path& photos, const fs::path& run, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = tiny_training(photos, run, 1);
  arguments.resize(arguments.size() - 4);
  for (const ssl::Method& method : ssl::methods())
    if (method.crops_of_each == 2 && std::ranges::find(more, method.name) != more.end())
      std::ranges::replace(arguments, "2x24+2x16", "2x24");
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

class Methods : public testing::Test {
 protected:
  Methods() { make_photos(folder / "photos"); }
  Outcome pretrain(const std::vector<std::string>& more, const std::string& run_name = "run") const {
    return run("pretrain", training(folder / "photos", folder / run_name, more));
  }
  TemporaryFolder folder;
};

TEST_F(Methods, EachTrainsGoesOnAndIsNamedInItsRun) {
  for (const ssl::Method& method : ssl::methods()) {
    const Outcome trained = pretrain({"--method", method.name}, method.name);
    ASSERT_EQ(trained.status, 0) << trained.err;
    EXPECT_THAT(content_of(folder / method.name / "config.toml"), HasSubstr("method = \"" + method.name + "\""));
    EXPECT_THAT(content_of(folder / method.name / "report.html"), HasSubstr(method.title + " on "));
    // A run that goes on needs no word of its method, and cannot change it.
    const Outcome again = run("pretrain", {"--run", (folder / method.name).string()});
    EXPECT_EQ(again.status, 0) << again.err;
    for (const ssl::Method& other : ssl::methods()) {
      if (other.name == method.name) continue;
      const Outcome changed = run("pretrain", {"--run", (folder / method.name).string(), "--method", other.name});
      EXPECT_EQ(changed.status, 1);
      EXPECT_THAT(changed.err, HasSubstr("method (was " + method.name + ", now " + other.name + ")"));
    }
  }
}

TEST_F(Methods, ARunOfAnEarlierVersionIsOfTheFirst) {
  const std::string first = ssl::methods().front().name;
  ASSERT_EQ(pretrain({}).status, 0);
  std::string config = content_of(folder / "run" / "config.toml");
  const size_t line = config.find("method = ");
  ASSERT_NE(line, config.npos);
  config.erase(line, config.find('\n', line) + 1 - line);
  put(folder / "run" / "config.toml", config);
  for (const std::vector<std::string>& more : {std::vector<std::string>{}, {"--method", first}}) {
    std::vector<std::string> arguments{"--run", (folder / "run").string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run("pretrain", arguments);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
  }
}

TEST_F(Methods, EachIsPlanned) {
  for (const ssl::Method& method : ssl::methods()) {
    const Outcome outcome = run(
        "plan", {"--method", method.name, "--trunk", "y:d=2,w0=8,wa=8,wm=2,g=8", "--batch", "8", "--device", "cpu"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.out, HasSubstr("Fits: "));
  }
}

TEST_F(Methods, OneThatThereIsNotIsRefusedWithThoseThereAre) {
  for (const char* program : {"pretrain", "plan"}) {
    const Outcome outcome = run(program, {"--method", "alchemy"});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.err, AllOf(HasSubstr("--method"), HasSubstr("alchemy"), HasSubstr("swav")));
  }
}

TEST_F(Methods, AFlagOfAnotherIsRefusedWithItsOwner) {
  for (const ssl::Method& method : ssl::methods())
    for (const ssl::Method& other : ssl::methods())
      for (const ssl::Setting& setting : other.settings) {
        if (std::ranges::find(method.settings, setting.name, &ssl::Setting::name) != method.settings.end()) continue;
        const Outcome outcome = pretrain({"--method", method.name, "--" + setting.name, setting.text()}, "none");
        EXPECT_EQ(outcome.status, 2);
        EXPECT_THAT(outcome.err, AllOf(HasSubstr("--" + setting.name + " is a setting of "), HasSubstr(other.name),
                                       HasSubstr("and the method is " + method.name)));
        put(folder / "of-another.toml", "method = \"" + method.name + "\"\n" + setting.name + " = 1\n");
        const Outcome in_file = pretrain({"--config", (folder / "of-another.toml").string()}, "none");
        EXPECT_EQ(in_file.status, 2);
        EXPECT_THAT(in_file.err, AllOf(HasSubstr("line 2: " + setting.name + " is a setting of "),
                                       HasSubstr("and the method is " + method.name)));
        EXPECT_FALSE(fs::exists(folder / "none"));
      }
}

}  // namespace
}  // namespace saccade::test
