#include <fmt/format.h>
#include <saccade/ssl/report/run_reporter.h>

#include <algorithm>
#include <limits>
#include <map>

namespace saccade::ssl {
namespace {

/// Series by name, in the order in which the names first appear.
class SeriesByName {
 public:
  void add(const std::string& name, double x, double y) {
    const auto [at, is_new] = place_.try_emplace(name, series_.size());
    if (is_new) series_.push_back({name, {}, {}});
    series_[at->second].x.push_back(x);
    series_[at->second].y.push_back(y);
  }
  const std::vector<Series>& all() const { return series_; }

 private:
  std::map<std::string, size_t> place_;
  std::vector<Series> series_;
};

double number(const LogLine& line, const std::string& name) {
  const auto at = line.numbers.find(name);
  return at == line.numbers.end() ? std::numeric_limits<double>::quiet_NaN() : at->second;
}

double mean_of_last(const Series& series, size_t count) {
  const size_t n = std::min(count, series.y.size());
  double sum = 0;
  for (size_t i = series.y.size() - n; i < series.y.size(); ++i) sum += series.y[i];
  return sum / static_cast<double>(n);
}

}  // namespace

HtmlReport report_of_log(const std::vector<LogLine>& log, std::span<const MetricGuide> guides) {
  HtmlReport report;
  Series loss{"loss", {}, {}}, lr{"lr", {}, {}};
  SeriesByName health;
  // The last evaluation may be there twice, when a run was stopped during it; its numbers are then the same.
  std::map<int64_t, const LogLine*> evaluations;
  Baselines baselines;  // the last said
  double seconds = 0, images = 0;
  for (const LogLine& line : log) {
    const auto x = static_cast<double>(line.step);
    if (line.kind == "step") {
      loss.x.push_back(x);
      loss.y.push_back(number(line, "loss"));
      lr.x.push_back(x);
      lr.y.push_back(number(line, "lr"));
      seconds += number(line, "seconds");
      images += number(line, "images");
    } else if (line.kind == "health") {
      for (const auto& [name, value] : line.numbers)
        if (name != "step") health.add(name, x, value);
    } else if (line.kind == "evaluation") {
      evaluations[static_cast<int64_t>(number(line, "iterations"))] = &line;
    } else if (line.kind == "baselines") {
      baselines.assign(line.numbers.begin(), line.numbers.end());
    } else if (line.kind == "message" && line.texts.contains("band") && line.texts.contains("trouble")) {
      const auto advice = line.lists.find("advice");
      report.messages.push_back({line.step, line.texts.at("band") == name_of(Band::alarm) ? Band::alarm : Band::warn,
                                 line.texts.at("trouble"),
                                 advice == line.lists.end() ? std::vector<std::string>{} : advice->second});
    }
  }
  SeriesByName accuracy;
  for (const auto& [iterations, line] : evaluations)
    for (const auto& [name, value] : line->numbers)
      if (name != "step" && name != "iterations") accuracy.add(name, static_cast<double>(iterations), 100 * value);

  if (!loss.x.empty()) {
    report.key_figures = {{"Iterations", fmt::format("{:.0f}", loss.x.back() + 1)},
                          {"Images seen", fmt::format("{:.0f}", images)},
                          {"Loss", fmt::format("{:.3f}", mean_of_last(loss, 100))},
                          {"Training time", duration_text(seconds)},
                          {"Images/s", fmt::format("{:.0f}", seconds > 0 ? images / seconds : 0)}};
    report.curves.push_back({.title = "Loss", .y_label = "loss", .series = {loss}});
  }
  for (const Series& s : accuracy.all())
    report.key_figures.insert(report.key_figures.begin(), {s.name, fmt::format("{:.1f} %", s.y.back())});
  if (!accuracy.all().empty()) {
    Chart chart{.title = "Evaluation", .y_label = "% correct", .series = accuracy.all()};
    for (const Series& s : accuracy.all())
      if (s.name == "kNN") chart.note = below_baselines(s.name, s.y.back() / 100, baselines);
    for (const auto& [name, share] : baselines)  // flat, from before training on
      chart.series.push_back({name, {0, static_cast<double>(evaluations.rbegin()->first)}, {100 * share, 100 * share}});
    report.curves.push_back(std::move(chart));
  }
  if (!lr.x.empty()) report.curves.push_back({.title = "Learning rate", .y_label = "lr", .series = {lr}});
  for (const Series& s : health.all()) {
    const MetricGuide* guide = find_guide(guides, s.name);
    report.health.push_back({.title = s.name,
                             .y_label = "",
                             .series = {s},
                             .bands = guide != nullptr ? health_bands(*guide) : std::vector<BandRange>{},
                             .note = guide != nullptr ? std::string(guide->note) : "",
                             .bands_from = static_cast<double>(HealthOptions{}.settle_iterations)});
  }
  report.verdict = verdict_of(log, guides);
  return report;
}

}  // namespace saccade::ssl
