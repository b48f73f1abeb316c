#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/report/run_reporter.h>
#include <saccade/ssl/report/verdict.h>

#include <map>

/// @file
/// What the report says of a run as a whole.
namespace saccade::ssl {
namespace {

using testing::HasSubstr;
using testing::Not;

/// Of a run that got good features of CIFAR-10's photographs, and of one whose features were worth less than pixels.
const std::map<std::string, double> kGood{
    {"loss gap", 1.29},           {"learned", 1.29 / 5.55},     {"spread", 0.9},          {"common direction", 0.18},
    {"assignment entropy", 0.55}, {"prediction marginal", 1.0}, {"effective rank", 18.6}, {"rank share", 18.6 / 64}};
const std::map<std::string, double> kHalfDead{
    {"loss gap", 0.25},           {"learned", 0.25 / 6.24},     {"spread", 0.62},        {"common direction", 0.59},
    {"assignment entropy", 0.91}, {"prediction marginal", 1.0}, {"effective rank", 5.5}, {"rank share", 5.5 / 128}};

std::vector<MetricGuide> guides() { return HealthMonitor(swav_health({.prototypes = 256}), {}).guides(); }

/// A log of so many iterations with a reading every 20th, as `at` says.
template <class At>
std::vector<LogLine> log_of(int64_t iterations, At at) {
  std::vector<LogLine> log;
  for (int64_t i = 0; i < iterations; ++i) {
    log.push_back({.kind = "step", .step = i});
    if (i % 20 == 0) log.push_back({.kind = "health", .step = i, .numbers = at(i)});
  }
  return log;
}

TEST(Verdict, AHealthyRunIsCalledSoWithItsReadings) {
  const Verdict verdict = verdict_of(log_of(1000, [](int64_t) { return kGood; }), guides());
  EXPECT_EQ(verdict.band, Band::healthy);
  EXPECT_THAT(verdict.text, HasSubstr("Healthy: "));
  EXPECT_THAT(verdict.text, HasSubstr("common direction 0.18"));
}

TEST(Verdict, AHalfDeadRunIsNotThoughNoTroubleOfItWasSaid) {
  const Verdict verdict = verdict_of(log_of(1000, [](int64_t) { return kHalfDead; }), guides());
  EXPECT_EQ(verdict.band, Band::warn);
  EXPECT_THAT(verdict.text, Not(HasSubstr("Healthy: ")));
  for (const char* part : {"learned 0.04 (healthy from 0.05)", "common direction 0.59 (healthy up to 0.5)",
                           "rank share 0.043 (healthy from 0.0625)"})
    EXPECT_THAT(verdict.text, HasSubstr(part));
  EXPECT_THAT(verdict.text, Not(HasSubstr("spread")));
}

TEST(Verdict, IsOnTheLastQuarterAlone) {
  const auto recovers = log_of(1000, [](int64_t i) { return i < 750 ? kHalfDead : kGood; });
  EXPECT_EQ(verdict_of(recovers, guides()).band, Band::healthy);
  const auto dies = log_of(1000, [](int64_t i) { return i < 750 ? kGood : kHalfDead; });
  EXPECT_EQ(verdict_of(dies, guides()).band, Band::warn);
}

TEST(Verdict, ARunWithMessagesIsNotCalledHealthyWhateverItsEnd) {
  auto log = log_of(1000, [](int64_t) { return kGood; });
  log.push_back({.kind = "message", .step = 400});
  EXPECT_THAT(verdict_of(log, guides()).text, Not(HasSubstr("Healthy")));
}

TEST(Verdict, AShortRunIsNotJudged) {
  for (const int64_t iterations : {1, 150, 240}) {
    const auto log = log_of(iterations, [](int64_t) { return kHalfDead; });
    EXPECT_EQ(verdict_of(log, guides()).text, "") << iterations;
    EXPECT_THAT(render_html(report_of_log(log, guides())), HasSubstr("too short for its health to be judged"));
  }
}

TEST(Verdict, StandsOnThePage) {
  const std::string page = render_html(report_of_log(log_of(1000, [](int64_t) { return kHalfDead; }), guides()));
  EXPECT_THAT(page, HasSubstr("class=\"card message warn\">Not healthy in all"));
  EXPECT_THAT(page, Not(HasSubstr("Healthy:")));
}

}  // namespace
}  // namespace saccade::ssl
