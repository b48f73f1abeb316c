#pragma once

#include <saccade/ssl/eval/baselines.h>
#include <saccade/ssl/report/html_report.h>
#include <saccade/ssl/report/progress_line.h>
#include <saccade/ssl/report/run_folder.h>
#include <saccade/ssl/report/run_log.h>
#include <saccade/ssl/report/tensorboard.h>
#include <saccade/ssl/train/trainer.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::ssl {

struct RunReportOptions {
  std::string title = "Saccade run", subtitle = {};
  int64_t epochs = 0;  ///< for the progress line; 0: unknown
  std::vector<std::pair<std::string, std::string>> configuration = {};
  /// All samples that could not be read so far, each with its reason: asked at the end of each epoch and of the run.
  /// The log lists each once.
  std::function<std::vector<std::string>()> unreadable = {};
  std::FILE* to = stdout;  ///< the progress line and what the run has to say
};

/// Tells of a run while it goes on: the progress line, a line of log.jsonl and TensorBoard scalars for each step,
/// reading of the health monitor, message, evaluation and notice; and report.html from the log, so that the page of a
/// resumed run shows all of its sittings.
///
/// Lines of the log, by kind: "step" (loss, lr, epoch, images, seconds, waiting), "health" (the metrics by name),
/// "message" (band, trouble, advice), "evaluation" (iterations: how many were done; the numbers by name), "notice"
/// (text), "baselines" (judged: by what; the accuracies by name), "unreadable" (files: those found since the last such
/// line). "step" is the iteration, from 0; an evaluation stands at the last iteration before it.
class RunReporter {
 public:
  RunReporter(const RunFolder& folder, RunReportOptions options);

  /// What kNN accuracies are shown beside, from here on: in words, in the log, as flat lines of the page; a sentence
  /// says at the end where features are worth less. Measured once: a run that goes on has it from its log.
  /// @param judged  what the accuracies depend on: they are measured anew where the log has those of something else
  void compare_with(const std::string& judged, const std::function<Baselines()>& measure);

  /// Trains to the end, or until interrupted, and writes the page; also when training fails, before the error goes on
  /// its way.
  FitResult run(Trainer& trainer, const BatchSource& source);

  /// A line of its own for people, and a notice in the log.
  void say(const std::string& sentence);

  /// For the page.
  /// @{
  void add(ReportTable table) { tables_.push_back(std::move(table)); }
  void add(Gallery gallery) { galleries_.push_back(std::move(gallery)); }
  /// @}
  void write_page() const;

 private:
  Observer observer();
  void on_step(const StepReport& step);
  void on_health(const HealthReading& reading);
  void on_message(const HealthMessage& message);
  void on_evaluation(int64_t iteration, const std::vector<std::pair<std::string, double>>& numbers);
  void list_unreadable();
  TensorBoard& board(int64_t step);

  std::filesystem::path folder_, page_;
  RunReportOptions options_;
  RunLog log_;
  ProgressLine progress_;
  std::unique_ptr<TensorBoard> board_;  ///< made at the first step, which it has to know
  ProgressNumbers numbers_;
  Baselines baselines_;
  bool has_stepped_ = false;
  int64_t epoch_ = 0;
  std::optional<std::set<std::string>> listed_;  ///< unreadable samples of the log, once it was looked at
  std::vector<MetricGuide> guides_;
  std::vector<ReportTable> tables_;
  std::vector<Gallery> galleries_;
};

/// What a log holds, as a page: curves, health, messages and key figures.
/// @param guides  how the metrics are judged and read: Trainer::metric_guides()
HtmlReport report_of_log(const std::vector<LogLine>& log, std::span<const MetricGuide> guides);

}  // namespace saccade::ssl
