#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/ssl/eval/baselines.h>
#include <saccade/ssl/report/run_reporter.h>

#include <algorithm>

#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

const Baselines both{{"raw pixels", 0.458}, {"untrained network", 0.31}};

TEST(Baselines, ASentenceNamesThoseThatFeaturesAreBelow) {
  EXPECT_THAT(below_baselines("kNN", 0.593, both), IsEmpty());
  EXPECT_THAT(below_baselines("kNN", 0.458, both), IsEmpty());
  const std::string one = below_baselines("kNN", 0.4, both), two = below_baselines("linear", 0.293, both);
  EXPECT_THAT(one, HasSubstr("kNN: the features (40.0 %)"));
  EXPECT_THAT(one, HasSubstr("(raw pixels 45.8 %)"));
  EXPECT_THAT(two, HasSubstr("linear: the features (29.3 %)"));
  EXPECT_THAT(two, HasSubstr("(raw pixels 45.8 %, untrained network 31.0 %)"));
}

std::vector<LogLine> log_of(double knn) {
  return {{.kind = "baselines", .numbers = {both.begin(), both.end()}, .texts = {{"judged", "x"}}, .lists = {}},
          {.kind = "evaluation", .step = 9, .numbers = {{"iterations", 10}, {"kNN", 0.3}}, .texts = {}, .lists = {}},
          {.kind = "evaluation", .step = 19, .numbers = {{"iterations", 20}, {"kNN", knn}}, .texts = {}, .lists = {}}};
}

TEST(Baselines, AreFlatLinesBesideTheCurveOfKnn) {
  const HtmlReport report = report_of_log(log_of(0.4), {});
  ASSERT_EQ(report.curves.size(), 1u);
  const std::vector<Series>& series = report.curves[0].series;
  ASSERT_EQ(series.size(), 3u);
  EXPECT_EQ(series[0].name, "kNN");
  EXPECT_EQ(series[1].name, "raw pixels");
  EXPECT_EQ(series[1].x, (std::vector<double>{0, 20}));
  EXPECT_EQ(series[1].y, (std::vector<double>{100 * 0.458, 100 * 0.458}));
  EXPECT_EQ(series[2].name, "untrained network");
  EXPECT_THAT(report.curves[0].note, HasSubstr("raw pixels 45.8 %"));
  EXPECT_THAT(report_of_log(log_of(0.6), {}).curves[0].note, IsEmpty());
}

TEST(Baselines, AreMeasuredOnceAndAgainWhereSomethingElseIsJudged) {
  const test::TemporaryFolder folder;
  std::FILE* nowhere = std::fopen("/dev/null", "w");
  int measured = 0;
  const auto measure = [&] {
    ++measured;
    return both;
  };
  for (const auto& [judged, times] :
       {std::pair{"photos", 1}, {"photos", 1}, {"drawings", 2}, {"drawings", 2}, {"photos", 2}}) {
    const RunFolder run(folder / "run");
    RunReporter reporter(run, {.to = nowhere});
    reporter.compare_with(judged, measure);
    EXPECT_EQ(measured, times) << judged;
  }
  const auto log = read_run_log(folder / "run" / "log.jsonl");
  ASSERT_EQ(std::ranges::count(log, std::string("baselines"), &LogLine::kind), 2);
  EXPECT_EQ(log[0].numbers.at("raw pixels"), 0.458);
  std::fclose(nowhere);
}

}  // namespace
}  // namespace saccade::ssl
