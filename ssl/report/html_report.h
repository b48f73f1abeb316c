#pragma once

#include <saccade/ssl/report/chart.h>
#include <saccade/ssl/report/png.h>
#include <saccade/ssl/report/verdict.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace saccade::ssl {

struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  ///< the first column names the row
  int best_row = -1;                           ///< shown in bold
  std::string note = {};
};

/// Pictures in rows, as the images nearest to each of some points among the embeddings.
struct Gallery {
  struct Row {
    std::string name;
    std::vector<Thumbnail> pictures;
  };
  std::string title, note;
  std::vector<Row> rows;
};

/// All that the page of a run shows; what is empty is left out.
struct HtmlReport {
  std::string title, subtitle;
  std::vector<std::pair<std::string, std::string>> key_figures;  ///< name and value, in large type on top
  std::vector<ReportTable> tables;                               ///< results
  std::string curves_title = "Training";
  std::vector<Chart> curves;            ///< loss, kNN, learning rate
  std::vector<ReportTable> details;     ///< below the curves
  std::vector<Chart> health;            ///< small multiples
  std::vector<HealthMessage> messages;  ///< what the monitor said
  Verdict verdict;                      ///< over all of it
  std::vector<Gallery> galleries;
  std::vector<std::pair<std::string, std::string>> configuration;
};

/// The page: one file with all in it (style, charts as SVG, pictures as PNG), that needs no script and no network,
/// follows the reader's light or dark theme, and prints.
std::string render_html(const HtmlReport& report);
/// Writes it atomically (see io::AtomicFile).
void write_html_report(const std::filesystem::path& path, const HtmlReport& report);

}  // namespace saccade::ssl
