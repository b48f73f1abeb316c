// A plan as tables and a chart.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/report/plan_report.h>

#include <algorithm>
#include <cmath>

namespace saccade::ssl {
namespace {

Rehearsal step_with_a_peak() {
  Rehearsal rehearsal;
  for (int i = 0; i <= 5000; ++i) {
    Moment moment{.seconds = i * 1e-3,
                  .phase = i < 2000   ? Phase::forward
                           : i < 2100 ? Phase::recompute
                                      : Phase::backward};
    moment.live[static_cast<size_t>(Tag::parameters)] = int64_t{1} << 30;
    moment.live[static_cast<size_t>(Tag::activations)] = i == 3210 ? int64_t{3} << 30 : int64_t{1} << 20;
    rehearsal.timeline.push_back(moment);
  }
  rehearsal.peak = int64_t{4} << 30;
  rehearsal.arena = rehearsal.peak + 1024;
  rehearsal.at_peak = rehearsal.timeline[3210].live;
  return rehearsal;
}

TEST(PlanReport, TheChartKeepsThePeakThoughItShowsFewMoments) {
  const Chart chart = memory_chart(step_with_a_peak(), int64_t{5} << 30);
  ASSERT_EQ(chart.series.size(), kTags);
  EXPECT_TRUE(chart.stacked);
  EXPECT_LE(chart.series[0].x.size(), 500u);
  double highest = 0, when = 0;
  for (size_t k = 0; k < chart.series[0].y.size(); ++k) {
    double sum = 0;
    for (const Series& series : chart.series) sum += series.y[k];
    if (sum > highest) highest = sum, when = chart.series[0].x[k];
  }
  EXPECT_EQ(highest, 4);
  EXPECT_DOUBLE_EQ(when, 3.21);
  EXPECT_EQ(chart.limit, 5);
  ASSERT_EQ(chart.stretches.size(), 3u);
  EXPECT_EQ(chart.stretches[1].name, "recompute");
  EXPECT_EQ(chart.stretches[1].shade, Stretch::Shade::marked);
  EXPECT_NEAR(chart.stretches[1].to - chart.stretches[1].from, 0.1, 1e-9);
  EXPECT_TRUE(std::isnan(memory_chart(step_with_a_peak(), int64_t{50} << 30).limit));  // would press the curve flat
}

TEST(PlanReport, TheTableOfMemoryAddsUp) {
  const Rehearsal rehearsal = step_with_a_peak();
  const ReportTable table = memory_table(rehearsal, 7000);
  int64_t sum = 0, all = 0;
  for (const std::vector<std::string>& row : table.rows) {
    if (row[0] == "all")
      all = std::stoll(row[2]);
    else if (row[0] != "arena")
      sum += std::stoll(row[2]);
  }
  EXPECT_EQ(sum, all);
  EXPECT_EQ(all, rehearsal.arena + 7000);
}

TEST(PlanReport, LayersThatFareAlikeShareARow) {
  plan::DescribedDevice device(plan::device_description("v100-32gb"));
  StepSpec spec;
  spec.objective = dearest_swav("y:d=6,w0=16,wa=8,wm=2,g=8", {.prototypes = 16, .hidden = 32, .dim = 16});
  spec.crops = {{16, 32, 32}};
  spec.batch = 8;
  Planner planner(spec, device);
  const StepPlan blocks = planner.recompute_each_block(), kept = planner.keep_all(Keep::lean);
  for (const auto& [plan, forwards, mode] : {std::tuple(&blocks, "2", "eager"), std::tuple(&kept, "1", "lean")}) {
    const ReportTable table = layer_table(planner, *plan);
    EXPECT_LE(table.rows.size(), planner.chain().size() - 1);
    EXPECT_THAT(table.rows[0][0], testing::HasSubstr("stem"));
    for (const std::vector<std::string>& row : table.rows) {
      ASSERT_EQ(row.size(), table.header.size());
      EXPECT_EQ(row[1], mode);
      EXPECT_EQ(row[2], forwards);
    }
  }
  const std::vector<StepPlan> both{kept, blocks};
  const ReportTable ways = ways_table(both);
  EXPECT_EQ(ways.rows[0][3], "+0.0 %");
  EXPECT_EQ(ways.rows[1][0], "each block");
  EXPECT_THAT(ways.rows[1][3], testing::StartsWith("+"));
}

TEST(PlanReport, TextIsAligned) {
  const ReportTable table{"Title", {"", "bytes"}, {{"a", "1"}, {"longer", "10 MiB"}}, 1};
  EXPECT_EQ(table_text(table),
            "Title\n"
            "           bytes\n"
            "  a            1\n"
            "* longer  10 MiB\n");
  EXPECT_EQ(seconds_text(1.234), "1.23 s");
  EXPECT_EQ(seconds_text(0.0873), "87.3 ms");
}

}  // namespace
}  // namespace saccade::ssl
