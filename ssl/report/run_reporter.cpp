#include <fmt/format.h>
#include <saccade/ssl/report/run_reporter.h>

#include <exception>

namespace saccade::ssl {

RunReporter::RunReporter(const RunFolder& folder, RunReportOptions options)
    : folder_(folder.path()),
      page_(folder.report()),
      options_(std::move(options)),
      log_(folder.log()),
      progress_(options_.to) {}

FitResult RunReporter::run(Trainer& trainer, const BatchSource& source) {
  trainer.observe(observer());
  guides_ = trainer.metric_guides();
  try {
    const FitResult result = trainer.fit(source, folder_);
    list_unreadable();
    if (!result.interrupted && numbers_.knn >= 0)
      if (const std::string below = below_baselines("kNN", numbers_.knn, baselines_); !below.empty()) say(below);
    progress_.finish();
    if (const Verdict verdict = verdict_of(read_run_log(folder_ / "log.jsonl"), guides_);
        !result.interrupted && !verdict.text.empty())
      say(verdict.text);
    write_page();
    return result;
  } catch (...) {
    progress_.finish();
    const std::exception_ptr failure = std::current_exception();
    try {
      list_unreadable();
      write_page();  // a run that went wrong is when the page is needed
    } catch (const std::exception&) {
      // the first error says more: often both have the same cause
    }
    std::rethrow_exception(failure);
  }
}

void RunReporter::compare_with(const std::string& judged, const std::function<Baselines()>& measure) {
  baselines_.clear();
  for (const LogLine& line : read_run_log(folder_ / "log.jsonl"))
    if (line.kind == "baselines" && line.texts.contains("judged") && line.texts.at("judged") == judged)
      baselines_.assign(line.numbers.begin(), line.numbers.end());
  if (baselines_.empty()) {
    baselines_ = measure();
    std::vector<LogField> fields{{"judged", judged}};
    for (const auto& [name, accuracy] : baselines_) fields.emplace_back(name, accuracy);
    log_.write("baselines", fields);
  }
  progress_.say("kNN without training: " + text_of(baselines_));
}

Observer RunReporter::observer() {
  return {.on_step = [this](const StepReport& s) { on_step(s); },
          .on_health = [this](const HealthReading& r) { on_health(r); },
          .on_message = [this](const HealthMessage& m) { on_message(m); },
          .on_evaluation = [this](int64_t i, const auto& numbers) { on_evaluation(i, numbers); },
          .on_notice = [this](const std::string& sentence) { say(sentence); }};
}

void RunReporter::say(const std::string& sentence) {
  progress_.say(sentence);
  log_.write("notice", {{"text", sentence}});
}

TensorBoard& RunReporter::board(int64_t step) {
  if (!board_) board_ = std::make_unique<TensorBoard>(folder_, step);
  return *board_;
}

void RunReporter::list_unreadable() {
  if (!options_.unreadable) return;
  if (!listed_) {
    listed_.emplace();
    for (const LogLine& line : read_run_log(folder_ / "log.jsonl"))
      if (line.kind == "unreadable" && line.lists.contains("files"))
        listed_->insert(line.lists.at("files").begin(), line.lists.at("files").end());
  }
  std::vector<std::string> found = options_.unreadable();
  const size_t all = found.size();
  std::erase_if(found, [&](const std::string& sample) { return !listed_->insert(sample).second; });
  if (found.empty()) return;
  progress_.say(
      fmt::format("Images that cannot be read, so that others stand in for them: {}, all listed in "
                  "log.jsonl; the last: {}",
                  all, found.back()));
  if (has_stepped_)
    log_.write("unreadable", numbers_.done - 1, {{"files", found}});
  else
    log_.write("unreadable", {{"files", found}});
}

void RunReporter::on_step(const StepReport& s) {
  if (has_stepped_ && s.epoch != epoch_) list_unreadable();
  has_stepped_ = true;
  epoch_ = s.epoch;
  log_.write("step", s.iteration,
             {{"loss", double{s.loss}},
              {"lr", double{s.lr}},
              {"epoch", s.epoch},
              {"images", s.images},
              {"seconds", s.seconds},
              {"waiting", s.waiting_seconds}});
  TensorBoard& to = board(s.iteration);
  to.scalar("loss", s.iteration, double{s.loss});
  to.scalar("lr", s.iteration, double{s.lr});
  to.scalar("images per second", s.iteration, static_cast<double>(s.images) / s.seconds);
  numbers_.done = s.iteration + 1;
  numbers_.total = s.iterations;
  numbers_.epoch = s.epoch + 1;
  numbers_.epochs = options_.epochs;
  numbers_.images = s.images;
  numbers_.loss = double{s.loss};
  progress_.step(numbers_);
}

void RunReporter::on_health(const HealthReading& reading) {
  std::vector<LogField> fields;
  for (const HealthMetric& m : reading.metrics) {
    fields.emplace_back(m.name, m.value);
    board(reading.iteration).scalar("health/" + m.name, reading.iteration, m.value);
  }
  log_.write("health", reading.iteration, fields);
}

void RunReporter::on_message(const HealthMessage& message) {
  progress_.say(message.text());
  log_.write("message", message.iteration,
             {{"band", std::string(name_of(message.band))}, {"trouble", message.trouble}, {"advice", message.advice}});
}

void RunReporter::on_evaluation(int64_t iteration, const std::vector<std::pair<std::string, double>>& numbers) {
  // A sitting without any step repeats the last evaluation: nothing before it is to be dropped from the log.
  const int64_t step = has_stepped_ ? iteration - 1 : iteration;
  std::vector<LogField> fields{{"iterations", iteration}};
  std::string text;
  for (const auto& [name, value] : numbers) {
    fields.emplace_back(name, value);
    board(step).scalar("evaluation/" + name, step, value);
    text += fmt::format("{}{} {:.2f} %", text.empty() ? "" : ", ", name, 100 * value);
    if (name == "kNN") numbers_.knn = value;
  }
  log_.write("evaluation", step, fields);
  progress_.say(fmt::format("After {} iterations: {}{}", iteration, text,
                            baselines_.empty() ? "" : fmt::format(" ({})", text_of(baselines_))));
}

void RunReporter::write_page() const {
  HtmlReport report = report_of_log(read_run_log(folder_ / "log.jsonl"), guides_);
  report.title = options_.title;
  report.subtitle = options_.subtitle;
  report.tables = tables_;
  report.galleries = galleries_;
  report.configuration = options_.configuration;
  write_html_report(page_, report);
}

}  // namespace saccade::ssl
