#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/ssl/report/html_report.h>

#include <algorithm>
#include <string_view>

namespace saccade::ssl {
namespace {

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --text: #1b2430; --soft: #5d6b7c; --rule: #e1e5ea; --grid: #e9ecf0;
  --s0: #2563c9; --s1: #d9730d; --s2: #15803d; --s3: #8b3fc7; --s4: #b91c4b; --s5: #0e7c86;
  --healthy: #15803d; --warn: #b45309; --alarm: #b91c1c; --warn-fill: #f59e0b24; --alarm-fill: #ef444426; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2029; --text: #e3e8ee; --soft: #94a1b2; --rule: #2b3441; --grid: #262e3a;
  --s0: #6ea8ff; --s1: #f5a35c; --s2: #5bc980; --s3: #c194f0; --s4: #f2809f; --s5: #4fc3cc;
  --healthy: #5bc980; --warn: #f0b04f; --alarm: #f58b8b; --warn-fill: #f59e0b2b; --alarm-fill: #ef444433; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 18px; margin: 40px 0 12px; }
h3 { font-size: 14px; font-weight: 600; margin: 0 0 2px; display: flex; gap: 12px; justify-content: space-between; align-items: baseline; }
p { margin: 0; } .soft, figcaption { color: var(--soft); } figcaption, .note { font-size: 13px; color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 16px 18px; margin: 0; min-width: 0; }
.figures, .curves, .health { display: grid; gap: 14px; }
.figures { grid-template-columns: repeat(auto-fit, minmax(175px, 1fr)); margin-top: 22px; }
.figures dt { color: var(--soft); font-size: 13px; } .figures dd { margin: 2px 0 0; font-size: 21px; white-space: nowrap; font-weight: 600; line-height: 1.25; }
.curves { grid-template-columns: repeat(auto-fit, minmax(min(460px, 100%), 1fr)); }
.health { grid-template-columns: repeat(auto-fill, minmax(min(330px, 100%), 1fr)); }
.chart { width: 100%; height: auto; display: block; overflow: visible; font: 11px system-ui, sans-serif; }
.chart text { fill: var(--soft); font-variant-numeric: tabular-nums; } .end { text-anchor: end; } .middle, .empty { text-anchor: middle; }
.grid { stroke: var(--grid); } .axis { stroke: var(--soft); stroke-opacity: .6; }
.line { fill: none; stroke: var(--c); stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.range { fill: var(--c); fill-opacity: .16; stroke: none; } .dot { fill: var(--c); }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); } .s4 { --c: var(--s4); } .s5 { --c: var(--s5); }
.area { fill: var(--c); stroke: none; } .stretch { fill: var(--soft); fill-opacity: .3; } .stretch.dark { fill-opacity: .9; } .stretch.marked { fill: var(--warn); fill-opacity: 1; } .limit { stroke: var(--text); stroke-width: 1.5; stroke-dasharray: 6 4; }
rect.warn { fill: var(--warn-fill); } rect.alarm { fill: var(--alarm-fill); }
.key { display: inline-block; width: 14px; height: 3px; border-radius: 2px; background: var(--c); vertical-align: 3px; margin: 0 5px 0 12px; }
.last { font-weight: 500; color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 14px 7px 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; font-size: 13px; color: var(--soft); } tbody tr:last-child > * { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; } th[scope=row] { color: var(--text); font-weight: 400; font-size: inherit; }
tr.best > * { font-weight: 650 !important; } .card + .card { margin-top: 14px; } .grid-cards > .card { margin-top: 0; }
.message { border-left: 4px solid var(--c); } .message.warn { --c: var(--warn); } .message.alarm { --c: var(--alarm); } .message.healthy { --c: var(--healthy); }
.message b { color: var(--c); } .message ol { margin: 8px 0 0; padding-left: 20px; }
.gallery { display: grid; grid-template-columns: max-content 1fr; gap: 10px 18px; align-items: center; }
.pictures { display: flex; flex-wrap: wrap; gap: 5px; }
.pictures img { width: 52px; height: 52px; object-fit: contain; border-radius: 4px; background: #0002; display: block; }
.pictures img.small { image-rendering: pixelated; }
.settings { columns: 2 380px; column-gap: 40px; margin: 0; font-size: 14px; }
.settings div { display: flex; justify-content: space-between; gap: 20px; padding: 4px 0; border-bottom: 1px solid var(--rule); break-inside: avoid; }
.settings dt { color: var(--soft); } .settings dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
footer { margin-top: 40px; font-size: 13px; color: var(--soft); }
@media print { body { background: #fff; } .card { break-inside: avoid; } }
)css";

std::string base64(std::string_view bytes) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t left = std::min<size_t>(3, bytes.size() - i);
    uint32_t group = 0;
    for (size_t k = 0; k < 3; ++k) group = group << 8 | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) text += k <= left ? digits[group >> (18 - 6 * k) & 63] : '=';
  }
  return text;
}

void add_tables(std::string& page, const std::vector<ReportTable>& tables) {
  for (const ReportTable& table : tables) {
    page += fmt::format("<h2>{}</h2><div class=\"card scroll\"><table><thead><tr>", html_text(table.title));
    for (const std::string& cell : table.header) page += fmt::format("<th scope=\"col\">{}</th>", html_text(cell));
    page += "</tr></thead><tbody>";
    for (size_t r = 0; r < table.rows.size(); ++r) {
      page += static_cast<int>(r) == table.best_row ? "<tr class=\"best\">" : "<tr>";
      for (size_t c = 0; c < table.rows[r].size(); ++c)
        page += (c == 0 ? "<th scope=\"row\">" : "<td>") + html_text(table.rows[r][c]);  // HTML closes cells itself
      page += "</tr>";
    }
    page += "</tbody></table>";
    if (!table.note.empty()) page += fmt::format("<p class=\"note\">{}</p>", html_text(table.note));
    page += "</div>\n";
  }
}

void add_chart(std::string& page, const Chart& chart, int width, int height) {
  page += fmt::format("<figure class=\"card\"><h3><span>{}</span>", html_text(chart.title));
  if (chart.series.size() == 1) {
    if (!chart.series[0].y.empty()) page += fmt::format("<span class=\"last\">{:.4g}</span>", chart.series[0].y.back());
  } else {
    page += "<span class=\"last\">";
    for (size_t i = 0; i < chart.series.size(); ++i)
      page += fmt::format("<span class=\"key s{}\"></span>{}", i % kSeriesColours, html_text(chart.series[i].name));
    page += "</span>";
  }
  page += "</h3>" + render_chart(chart, width, height);
  if (!chart.note.empty()) page += fmt::format("<figcaption>{}</figcaption>", html_text(chart.note));
  page += "</figure>\n";
}

void add_messages(std::string& page, const std::vector<HealthMessage>& messages, const Verdict& verdict) {
  if (!verdict.text.empty())
    page += fmt::format("<p class=\"card message {}\">{}</p>\n", name_of(verdict.band), html_text(verdict.text));
  else if (messages.empty())
    page += "<p class=\"card message\">The run was too short for its health to be judged.</p>\n";
  for (const HealthMessage& m : messages) {
    page += fmt::format("<div class=\"card message {}\"><p><b>{} at iteration {}.</b> {}</p>", name_of(m.band),
                        m.band == Band::alarm ? "Alarm" : "Warning", m.iteration, html_text(m.trouble));
    if (!m.advice.empty()) {
      page += "<ol>";
      for (const std::string& each : m.advice) page += fmt::format("<li>{}</li>", html_text(each));
      page += "</ol>";
    }
    page += "</div>\n";
  }
}

void add_galleries(std::string& page, const std::vector<Gallery>& galleries) {
  for (const Gallery& gallery : galleries) {
    page += fmt::format("<h2>{}</h2>", html_text(gallery.title));
    if (!gallery.note.empty())
      page += fmt::format("<p class=\"note\" style=\"margin:-6px 0 10px\">{}</p>", html_text(gallery.note));
    page += "<div class=\"card gallery\">";
    for (const Gallery::Row& row : gallery.rows) {
      page += fmt::format("<div class=\"soft\">{}</div><div class=\"pictures\">", html_text(row.name));
      for (const Thumbnail& picture : row.pictures) {
        const std::string label = html_text(picture.label.empty() ? row.name : picture.label);
        page += fmt::format(R"(<img{} src="data:image/png;base64,{}" alt="{}" title="{}" width="{}" height="{}">)",
                            picture.width < 52 ? " class=\"small\"" : "", base64(encode_png(picture)), label, label,
                            picture.width, picture.height);
      }
      page += "</div>";
    }
    page += "</div>\n";
  }
}

}  // namespace

std::string render_html(const HtmlReport& report) {
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style></head>\n<body><main>\n<header><h1>{0}</h1><p "
      "class=\"soft\">{2}</p></header>\n",
      html_text(report.title), kStyle, html_text(report.subtitle));
  if (!report.key_figures.empty()) {
    page += "<dl class=\"figures grid-cards\">";
    for (const auto& [name, value] : report.key_figures)
      page += fmt::format("<div class=\"card\"><dt>{}</dt><dd>{}</dd></div>", html_text(name), html_text(value));
    page += "</dl>\n";
  }
  add_tables(page, report.tables);
  if (!report.curves.empty()) {
    page += fmt::format("<h2>{}</h2><div class=\"curves grid-cards\">\n", html_text(report.curves_title));
    const bool alone = report.curves.size() == 1;  // it has the whole width
    for (const Chart& chart : report.curves) add_chart(page, chart, alone ? 1040 : 520, alone ? 380 : 240);
    page += "</div>\n";
  }
  add_tables(page, report.details);
  if (!report.health.empty() || !report.messages.empty()) {
    page += "<h2>Health</h2>\n";
    add_messages(page, report.messages, report.verdict);
    if (!report.health.empty()) {
      page +=
          "<p class=\"note\" style=\"margin:14px 0 10px\">Shaded: where a run should be looked at (amber) and where it "
          "has failed (red).</p>";
      page += "<div class=\"health grid-cards\">\n";
      for (const Chart& chart : report.health) add_chart(page, chart, 360, 160);
      page += "</div>\n";
    }
  }
  add_galleries(page, report.galleries);
  if (!report.configuration.empty()) {
    page += "<h2>Configuration</h2><dl class=\"card settings\">";
    for (const auto& [name, value] : report.configuration)
      page += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", html_text(name), html_text(value));
    page += "</dl>\n";
  }
  return page + "<footer>Written by Saccade.</footer>\n</main></body></html>\n";
}

void write_html_report(const std::filesystem::path& path, const HtmlReport& report) {
  io::write_file_atomically(path, render_html(report));
}

}  // namespace saccade::ssl
