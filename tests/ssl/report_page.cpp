// The page of a run: whole, self-contained, safe, and readable without eyes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <saccade/ssl/report/html_report.h>

#include <cmath>
#include <limits>

#include "support/temporary_folder.h"

namespace saccade::ssl {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Series ramp(std::string name, int points) {
  Series series{std::move(name), {}, {}};
  for (int i = 0; i < points; ++i) {
    series.x.push_back(i);
    series.y.push_back(i);
  }
  return series;
}

MetricGuide spread() { return *find_guide(HealthMonitor(std::make_unique<HealthRules>(), {}).guides(), "spread"); }

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
  return n;
}

HtmlReport whole_report() {
  HtmlReport report;
  report.title = "A run <script>alert(1)</script>";
  report.subtitle = "60,000 images";
  report.key_figures = {{"kNN", "87.6 %"}};
  report.tables = {{"Results", {"", "kNN"}, {{"raw pixels", "86.1 %"}, {"SwAV", "87.6 %"}}, 1, "Of 10,000."}};
  report.curves = {{"Loss", "iteration", "", {ramp("loss", 5000)}},
                   {"Speed", "iteration", "", {ramp("a", 3), ramp("b", 3)}}};
  report.health = {
      {"spread", "iteration", "", {ramp("spread", 10)}, health_bands(spread()), std::string(spread().note)}};
  report.messages = {{1800, Band::alarm, "the embeddings have collapsed", {"Lower the learning rate.", "Freeze"}}};
  report.galleries = {
      {"Prototypes", "nearest first", {{"prototype 3", {{1, 1, 1, {7}, "a \"b\""}, {1, 1, 1, {7}, ""}}}}}};
  report.configuration = {{"batch", "256"}};
  return report;
}

TEST(HtmlReport, HoldsAllItWasGiven) {
  const std::string page = render_html(whole_report());
  for (const char* part :
       {"87.6 %", "raw pixels", "86.1 %", "<tr class=\"best\"><th scope=\"row\">SwAV", "Of 10,000.",
        "<title>Loss</title>", "Alarm at iteration 1800.", "<li>Lower the learning rate.</li><li>Freeze</li>",
        "prototype 3", "data:image/png;base64,iVBORw0KGgo", "alt=\"a &quot;b&quot;\"", "<dt>batch</dt><dd>256</dd>",
        "How evenly embeddings fill"}) {
    EXPECT_THAT(page, HasSubstr(part));
  }
  EXPECT_EQ(count(page, "<svg"), 3u);
  EXPECT_EQ(count(page, "<img"), 2u);
}

TEST(HtmlReport, NeedsNothingFromOutsideAndRunsNothing) {
  const std::string page = render_html(whole_report());
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("http:")), Not(HasSubstr("https:")),
                          Not(HasSubstr("<link"))));
  EXPECT_THAT(page, HasSubstr("A run &lt;script&gt;"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme: dark"));
}

TEST(HtmlReport, WhatIsEmptyIsLeftOut) {
  const std::string page = render_html({});
  EXPECT_THAT(page,
              AllOf(Not(HasSubstr("<h2>")), Not(HasSubstr("<svg")), Not(HasSubstr("<table")), HasSubstr("</html>")));
}

TEST(HtmlReport, IsWrittenWhole) {
  const test::TemporaryFolder folder;
  write_html_report(folder / "report.html", whole_report());
  EXPECT_EQ(test::content_of(folder / "report.html"), render_html(whole_report()));
}

TEST(HtmlReport, PicturesAreEncodedInBase64AsTheStandardSays) {
  HtmlReport report;
  report.galleries = {{"", "", {{"", {{1, 1, 1, {7}, ""}}}}}};
  const std::string page = render_html(report);
  const size_t start = page.find("base64,") + 7;
  const std::string text = page.substr(start, page.find('"', start) - start);
  std::string bytes;
  uint32_t bits = 0;
  int held = 0;
  for (const char c : text.substr(0, text.find('='))) {
    const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    if ((held += 6) >= 8) bytes += static_cast<char>(bits >> (held -= 8));
  }
  EXPECT_EQ(text.size() % 4, 0u);
  EXPECT_EQ(bytes, encode_png({1, 1, 1, {7}, ""}));
}

TEST(Chart, LongSeriesAreReducedAndShowTheirRange) {
  const std::string svg = render_chart({"Loss", "iteration", "", {ramp("loss", 100'000)}}, 520, 240);
  EXPECT_LT(svg.size(), 20'000u);
  EXPECT_THAT(svg, HasSubstr("class=\"range s0\""));
  EXPECT_THAT(svg, Not(HasSubstr("<circle")));
  EXPECT_THAT(svg, HasSubstr("role=\"img\"><title>Loss</title><desc>loss: "));
}

TEST(Chart, GapsBreakTheLineAndOddValuesAreDrawnSomehow) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const std::string broken = render_chart({"t", "x", "", {{"s", {0, 1, 2, 3, 4}, {1, 2, nan, 3, 4}}}}, 300, 200);
  EXPECT_EQ(count(broken, "class=\"line s0\""), 2u);
  EXPECT_EQ(count(broken, "<circle"), 4u);
  for (const Series& series : {Series{"one", {5}, {3}}, Series{"flat", {0, 1}, {7, 7}}, Series{"zero", {0, 1}, {0, 0}},
                               Series{"infinite", {0, 1}, {1, infinity}}, Series{"large", {0, 1e9}, {1e12, 3e12}},
                               Series{"small", {0, 1}, {1e-12, 2e-12}}, Series{"none", {}, {}},
                               Series{"nan", {0}, {nan}}, Series{"uneven", {0, 1, 2}, {1}}}) {
    const std::string svg = render_chart({"t", "x", "", {series}}, 300, 200);
    EXPECT_THAT(svg,
                AllOf(Not(HasSubstr("nan ")), Not(HasSubstr("inf ")), Not(HasSubstr("\"nan")), HasSubstr("</svg>")))
        << series.name;
    EXPECT_LT(svg.size(), 5000u) << series.name;
  }
  EXPECT_THAT(render_chart({"t", "x", "", {}}, 300, 200), HasSubstr("no values yet"));
}

TEST(Chart, BandsAreDrawnWhereTheyAreInView) {
  const auto chart = [](std::vector<double> values) {
    return render_chart({"spread", "x", "", {{"s", {0, 1}, std::move(values)}}, health_bands(spread())}, 300, 200);
  };
  EXPECT_THAT(chart({0.8, 0.9}), AllOf(Not(HasSubstr("rect class=\"warn")), Not(HasSubstr("rect class=\"alarm"))));
  EXPECT_THAT(chart({0.3, 0.9}), AllOf(HasSubstr("rect class=\"warn"), Not(HasSubstr("rect class=\"alarm"))));
  EXPECT_THAT(chart({0.02, 0.9}), AllOf(HasSubstr("rect class=\"warn"), HasSubstr("rect class=\"alarm")));
}

TEST(Chart, BandsBeginWhereJudgingDoes) {
  const auto chart = [](double from) {
    Chart spread{"spread", "x", "", {{"s", {0, 1000}, {0.02, 0.9}}}, {{Band::alarm, 0, 0.1}}};
    spread.bands_from = from;
    return render_chart(spread, 300, 200);
  };
  const auto width = [](const std::string& svg) {
    const size_t rect = svg.find("rect class=\"alarm"), at = svg.find("width=\"", rect);
    return rect == std::string::npos ? 0.0 : std::stod(svg.substr(at + 7));
  };
  EXPECT_NEAR(width(chart(200)) / width(chart(0)), 0.8, 0.01);
  EXPECT_EQ(width(chart(1000)), 0.0);
}

TEST(HtmlReport, StackedChartsPileTheirSeriesUp) {
  Chart chart{"Memory", "seconds", "", {ramp("parameters", 11), ramp("activations", 11)}};
  chart.stacked = true;
  chart.limit = 40;
  chart.stretches = {{"forward", 0, 5}, {"back<ward", 5, 10, Stretch::Shade::dark}};
  const std::string svg = render_chart(chart, 600, 300);
  // 10 on top of 10: the upper area reaches twice as high as the lower; both stand on the axis, the limit is above.
  const auto y_of_last_top = [&svg](const std::string& path) {
    const size_t from = svg.find("class=\"area " + path), end = svg.find("Z", from);
    std::vector<double> ys;
    for (size_t at = svg.find(' ', svg.find(" d=", from) + 1); at < end; at = svg.find(' ', at + 1))
      ys.push_back(std::stod(svg.substr(at + 1)));
    return std::pair(ys[ys.size() - 2], ys.back());  // the last point, the way down to the axis
  };
  ASSERT_THAT(svg, AllOf(HasSubstr("class=\"area s0\""), HasSubstr("class=\"area s1\""), Not(HasSubstr("\"line s0"))));
  const auto [lower, axis] = y_of_last_top("s0");
  const auto [upper, same_axis] = y_of_last_top("s1");
  EXPECT_EQ(axis, same_axis);
  EXPECT_NEAR(axis - upper, 2 * (axis - lower), 0.3);
  EXPECT_LT(svg.find("class=\"area s1"), svg.find("class=\"area s0"));  // the higher one is painted first
  const size_t limit = svg.find("class=\"limit\"");
  ASSERT_NE(limit, svg.npos);
  EXPECT_LT(std::stod(svg.substr(svg.find("y1=\"", limit) + 4)), upper);
  EXPECT_THAT(svg, AllOf(HasSubstr("class=\"stretch dark\""), HasSubstr("<title>back&lt;ward</title>"),
                         HasSubstr(">forward</text>"), HasSubstr("activations: 20 at seconds 10.")));
}

}  // namespace
}  // namespace saccade::ssl
