// The table of methods.
#include <gtest/gtest.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/kernels/error.h>
#include <saccade/ssl/methods/methods.h>
#include <saccade/ssl/train/planner.h>

#include <set>
#include <string>
#include <variant>

#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

const RunFacts kSmallRun{.images = 16, .features = 24, .data = 1000, .per_epoch = 62, .iterations = 620};

TEST(Methods, AreFoundByNameAndOthersAreToldApart) {
  std::set<std::string> names;
  for (const Method& each : methods()) {
    EXPECT_TRUE(names.insert(each.name).second) << each.name;
    EXPECT_EQ(method(each.name).title, each.title);
    EXPECT_FALSE(each.about.empty());
  }
  EXPECT_EQ(methods().front().name, "swav");
  const std::string complaint = test::complaint<Error>([] { method("alchemy"); });
  EXPECT_NE(complaint.find("alchemy"), std::string::npos);
  EXPECT_NE(complaint.find("swav"), std::string::npos) << complaint;
}

TEST(Methods, HaveSettingsThatMakeSenseAsTheyAreAndAsARunLeadsToThem) {
  for (const Method& each : methods()) {
    const auto check = [&] {
      std::set<std::string> names;
      for (const Setting& s : each.settings) {
        EXPECT_TRUE(names.insert(s.name).second) << each.name << " " << s.name;
        EXPECT_FALSE(s.help.empty()) << each.name << " " << s.name;
        const double value = std::visit([](const auto* place) { return static_cast<double>(*place); }, s.value);
        if (s.range) {
          EXPECT_TRUE(s.range->holds(value)) << each.name << " " << s.name << " is " << value;
          EXPECT_FALSE(s.range->holds(-1e30)) << each.name << " " << s.name;
        }
      }
    };
    check();
    each.settle(kSmallRun, [](const Setting&) { return false; });
    check();
    EXPECT_GT(each.lr.find(kSmallRun), 0) << each.name;
    EXPECT_GE(each.warmup.find(kSmallRun), 0) << each.name;
    EXPECT_FALSE(each.misfit && each.misfit(kSmallRun)) << each.name;
  }
}

TEST(Methods, KeepASettingThatWasChosen) {
  const Method swav = method("swav");
  for (const Setting& s : swav.settings)
    if (s.name == "prototypes") s.set(77);
  swav.settle(kSmallRun, [](const Setting& s) { return s.name == "prototypes"; });
  for (const Setting& s : swav.settings) {
    if (s.name == "prototypes") {
      EXPECT_EQ(s.text(), "77");
    }
    if (s.name == "freeze") {
      EXPECT_EQ(s.text(), "62");
    }
  }
  EXPECT_EQ(swav.summary(), "77 prototypes");
}

TEST(Methods, AQueueShorterThanAnIterationIsAMisfit) {
  const Method swav = method("swav");
  for (const Setting& s : swav.settings)
    if (s.name == "queue") s.set(8);
  ASSERT_TRUE(swav.misfit(kSmallRun));
  EXPECT_EQ(swav.misfit(kSmallRun)->setting, "queue");
}

TEST(Methods, CanAllBePlanned) {
  plan::DescribedDevice cpu(plan::device_description("cpu"));
  for (const Method& each : methods()) {
    each.settle(kSmallRun, [](const Setting&) { return false; });
    StepSpec spec;
    spec.objective = each.dearest("y:d=2,w0=8,wa=8,wm=2,g=8");
    spec.batch = 4;
    spec.crops = {{8, 32, 32}};
    EXPECT_GT(Planner(spec, cpu).keep_all(Keep::eager).rehearsal.arena, 0) << each.name;
  }
}

}  // namespace
}  // namespace saccade::ssl
