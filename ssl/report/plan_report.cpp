#include <fmt/format.h>
#include <saccade/core/bytes.h>
#include <saccade/ssl/report/plan_report.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace saccade::ssl {
namespace {

int64_t total(const Moment& moment) { return std::accumulate(moment.live.begin(), moment.live.end(), int64_t{0}); }

/// At most so many moments, of each stretch of time the one that needs most: the peak is among them.
std::vector<Moment> thinned(const std::vector<Moment>& timeline, size_t most) {
  std::vector<Moment> kept;
  if (timeline.empty()) return kept;
  const double whole = std::max(timeline.back().seconds, 1e-12);
  size_t slot_of_last = 0;
  for (const Moment& moment : timeline) {
    const auto slot = static_cast<size_t>(moment.seconds / whole * static_cast<double>(most - 1));
    if (kept.empty() || slot != slot_of_last)
      kept.push_back(moment);
    else if (total(moment) > total(kept.back()))
      kept.back() = moment;
    slot_of_last = slot;
  }
  return kept;
}

std::string with_percent(double part, double whole) {
  return whole > 0 ? fmt::format("{:+.1f} %", 100 * part / whole) : "";
}

}  // namespace

std::string seconds_text(double seconds) {
  return seconds >= 1 ? fmt::format("{:.2f} s", seconds) : fmt::format("{:.1f} ms", 1e3 * seconds);
}

ReportTable memory_table(const Rehearsal& rehearsal, int64_t elsewhere) {
  ReportTable table{"Memory at the peak of the step", {"", "bytes", ""}, {}};
  for (size_t i = 0; i < kTags; ++i)
    table.rows.push_back({std::string(name_of(static_cast<Tag>(i))), bytes_text(rehearsal.at_peak[i]),
                          fmt::format("{}", rehearsal.at_peak[i])});
  const auto add = [&table](const char* name, int64_t bytes) {
    table.rows.push_back({name, bytes_text(bytes), fmt::format("{}", bytes)});
  };
  add("gaps between them", rehearsal.arena - rehearsal.peak);
  add("arena", rehearsal.arena);
  add("outside of it", elsewhere);
  add("all", rehearsal.arena + elsewhere);
  table.best_row = static_cast<int>(table.rows.size()) - 1;
  return table;
}

ReportTable ways_table(std::span<const StepPlan> ways) {
  ReportTable table{"Ways to run the step", {"", "arena", "step", "against the fastest", "fits"}, {}};
  double fastest = ways.empty() ? 0 : ways[0].rehearsal.seconds;
  for (const StepPlan& way : ways) fastest = std::min(fastest, way.rehearsal.seconds);
  for (const StepPlan& way : ways)
    table.rows.push_back({way.name, bytes_text(way.rehearsal.arena), seconds_text(way.rehearsal.seconds),
                          with_percent(way.rehearsal.seconds - fastest, fastest), way.fits ? "yes" : "no"});
  table.best_row = 0;
  table.note =
      "eager: all that backward reads is kept; lean: what can be made again elementwise is not; each block, each "
      "stage: only their inputs are kept, and they are computed twice.";
  return table;
}

ReportTable layer_table(const Planner& planner, const StepPlan& plan) {
  const std::vector<plan::ChainLayer>& chain = planner.chain();
  const plan::Plan steps{.steps = plan.steps};
  const std::vector<plan::LayerUse> uses = plan::by_layer(chain, steps);
  ReportTable table{"Layer by layer", {"", "kept", "forwards", "forward", "backward", "saved", "output"}, {}};
  size_t first = 0;  // of the layers in the last row
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    const plan::ChainLayer& layer = chain[i];
    const plan::SaveMode& mode = layer.modes[uses[i].mode];
    std::vector<std::string> row{fmt::format("{} {}", i, layer.name),
                                 mode.name,
                                 fmt::format("{}", uses[i].forwards),
                                 seconds_text(layer.forward_seconds),
                                 seconds_text(layer.backward_seconds + mode.extra_seconds),
                                 bytes_text(mode.saved),
                                 bytes_text(layer.output_bytes)};
    if (!table.rows.empty() && std::equal(row.begin() + 1, row.end(), table.rows.back().begin() + 1)) {
      table.rows.back()[0] = fmt::format("{}-{} {} to {}", first, i, chain[first].name, layer.name);
    } else {
      first = i;
      table.rows.push_back(std::move(row));
    }
  }
  table.note =
      "A layer whose forward runs once keeps what its backward needs from then on; one that runs again keeps it "
      "only from its last forward to its backward. Times and bytes are of one layer, each way once.";
  return table;
}

Chart memory_chart(const Rehearsal& rehearsal, int64_t limit) {
  constexpr double kGib = 1 << 30, kMib = 1 << 20;
  const bool large = rehearsal.peak >= (int64_t{1} << 30);
  const double unit = large ? kGib : kMib;
  const bool slow = !rehearsal.timeline.empty() && rehearsal.timeline.back().seconds >= 2;
  const double per_second = slow ? 1 : 1e3;
  Chart chart{fmt::format("{} over the {} of one step", large ? "GiB" : "MiB", slow ? "seconds" : "milliseconds"),
              slow ? "seconds" : "milliseconds",
              "",
              {}};
  chart.stacked = true;
  for (const Tag tag : {Tag::parameters, Tag::optimizer, Tag::gradients, Tag::batch, Tag::activations, Tag::workspace})
    chart.series.push_back({std::string(name_of(tag)), {}, {}});
  for (const Moment& moment : thinned(rehearsal.timeline, 500)) {
    size_t i = 0;
    for (const Tag tag :
         {Tag::parameters, Tag::optimizer, Tag::gradients, Tag::batch, Tag::activations, Tag::workspace}) {
      chart.series[i].x.push_back(moment.seconds * per_second);
      chart.series[i++].y.push_back(static_cast<double>(moment.live[static_cast<size_t>(tag)]) / unit);
    }
  }
  for (const Moment& moment : rehearsal.timeline) {
    const double at = moment.seconds * per_second;
    const std::string name(name_of(moment.phase));
    if (!chart.stretches.empty() && chart.stretches.back().name == name)
      chart.stretches.back().to = at;
    else
      chart.stretches.push_back({name, chart.stretches.empty() ? at : chart.stretches.back().to, at,
                                 moment.phase == Phase::backward    ? Stretch::Shade::dark
                                 : moment.phase == Phase::recompute ? Stretch::Shade::marked
                                                                    : Stretch::Shade::light});
  }
  // A limit far above the curve would only press it flat.
  if (limit > 0 && limit < 2 * rehearsal.peak) chart.limit = static_cast<double>(limit) / unit;
  chart.note = fmt::format(
      "Live bytes at each kernel; at most {} at once.{} The strip: forward (light), backward (dark), recomputation in "
      "it (amber).",
      bytes_text(rehearsal.peak),
      limit > 0
          ? fmt::format(" The budget leaves {}{}.", bytes_text(limit), std::isfinite(chart.limit) ? " (dashed)" : "")
          : "");
  return chart;
}

std::string table_text(const ReportTable& table) {
  std::vector<size_t> widths(table.header.size());
  const auto widen = [&widths](const std::vector<std::string>& row) {
    for (size_t c = 0; c < std::min(row.size(), widths.size()); ++c) widths[c] = std::max(widths[c], row[c].size());
  };
  widen(table.header);
  for (const std::vector<std::string>& row : table.rows) widen(row);
  const auto line = [&widths](const std::vector<std::string>& row, bool best) {
    std::string text = best ? "* " : "  ";
    for (size_t c = 0; c < row.size(); ++c)
      text += c == 0 ? fmt::format("{:<{}}", row[c], widths[c]) : fmt::format("  {:>{}}", row[c], widths[c]);
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  std::string text = table.title + "\n";
  if (std::any_of(table.header.begin(), table.header.end(), [](const std::string& cell) { return !cell.empty(); }))
    text += line(table.header, false);
  for (size_t r = 0; r < table.rows.size(); ++r) text += line(table.rows[r], static_cast<int>(r) == table.best_row);
  return text;
}

}  // namespace saccade::ssl
