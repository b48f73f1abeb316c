#include <fmt/format.h>
#include <saccade/ssl/report/chart.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace saccade::ssl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// From data to the page, along one axis.
struct Axis {
  double from, to;    // data
  double start, end;  // page
  double step = 1;    // between ticks
  double at(double value) const { return start + (value - from) / (to - from) * (end - start); }
};

/// The largest of 1, 2, 5 x 10^n that gives at most so many steps.
double tick_step(double range, int at_most) {
  const double rough = range / at_most, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1., 2., 5.})
    if (factor * power >= rough) return factor * power;
  return 10 * power;
}

std::string tick_text(double value, double step) {
  if (std::abs(value) < step * 1e-6) return "0";
  if (std::abs(value) >= 1e6 && step >= 1e4) return fmt::format("{:g}M", std::round(value / 1e4) / 100);
  if (std::abs(value) >= 1e4 && step >= 10) return fmt::format("{:g}k", std::round(value / 10) / 100);
  if (std::abs(value) < 1e-3) return fmt::format("{:.3g}", value);
  return fmt::format("{:.{}f}", value, std::clamp(static_cast<int>(-std::floor(std::log10(step) + 1e-9)), 0, 6));
}

/// A point of a drawn line: the mean of the values that fall on it, and their range.
struct Point {
  double x, y, low, high;
};

/// Runs of points without a gap, at most `most` points in all.
std::vector<std::vector<Point>> reduce(const Series& series, size_t most) {
  const size_t n = std::min(series.x.size(), series.y.size()), stride = std::max<size_t>(1, (n + most - 1) / most);
  std::vector<std::vector<Point>> runs(1);
  for (size_t first = 0; first < n; first += stride) {
    Point p{0, 0, kInfinity, -kInfinity};
    double count = 0;
    for (size_t i = first; i < std::min(n, first + stride); ++i) {
      if (!std::isfinite(series.y[i]) || !std::isfinite(series.x[i])) continue;
      p.x += series.x[i];
      p.y += series.y[i];
      p.low = std::min(p.low, series.y[i]);
      p.high = std::max(p.high, series.y[i]);
      ++count;
    }
    if (count > 0) {
      p.x /= count;
      p.y /= count;
      runs.back().push_back(p);
    } else if (!runs.back().empty()) {
      runs.emplace_back();
    }
  }
  if (runs.back().empty()) runs.pop_back();
  return runs;
}

std::string draw_series(const std::vector<std::vector<Point>>& runs, const Axis& x, const Axis& y, size_t number,
                        bool range) {
  std::string svg;
  for (const std::vector<Point>& run : runs) {
    std::string line, above, below;
    for (const Point& p : run) {
      line += fmt::format("{}{:.1f} {:.1f}", line.empty() ? "M" : "L", x.at(p.x), y.at(p.y));
      above += fmt::format("{}{:.1f} {:.1f}", above.empty() ? "M" : "L", x.at(p.x), y.at(p.high));
    }
    for (auto p = run.rbegin(); p != run.rend(); ++p) below += fmt::format("L{:.1f} {:.1f}", x.at(p->x), y.at(p->low));
    if (range) svg += fmt::format("<path class=\"range s{}\" d=\"{}{}Z\"/>", number, above, below);
    svg += fmt::format("<path class=\"line s{}\" d=\"{}\"/>", number, line);
    if (run.size() <= 40)
      for (const Point& p : run)
        svg += fmt::format("<circle class=\"dot s{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.5\"/>", number, x.at(p.x),
                           y.at(p.y));
  }
  return svg;
}

/// The series of a stacked chart, each on top of those before it.
std::vector<Series> stacked_up(std::vector<Series> series) {
  for (size_t i = 1; i < series.size(); ++i)
    for (size_t k = 0; k < std::min(series[i].y.size(), series[i - 1].y.size()); ++k)
      series[i].y[k] += series[i - 1].y[k];
  return series;
}

std::string draw_area(const std::vector<std::vector<Point>>& runs, const Axis& x, const Axis& y, size_t number) {
  std::string svg;
  for (const std::vector<Point>& run : runs) {
    std::string top = fmt::format("M{:.1f} {:.1f}", x.at(run.front().x), y.start);
    for (const Point& p : run) top += fmt::format("L{:.1f} {:.1f}", x.at(p.x), y.at(p.y));
    svg += fmt::format("<path class=\"area s{}\" d=\"{}L{:.1f} {:.1f}Z\"/>", number, top, x.at(run.back().x), y.start);
  }
  return svg;
}

std::string draw_stretches(const std::vector<Stretch>& stretches, const Axis& x) {
  constexpr std::string_view shades[] = {"light", "dark", "marked"};
  std::string svg;
  for (const Stretch& s : stretches) {
    const double from = x.at(s.from), width = x.at(s.to) - from;
    svg +=
        fmt::format(R"(<rect class="stretch {}" x="{:.1f}" y="1" width="{:.1f}" height="5"><title>{}</title></rect>)",
                    shades[static_cast<size_t>(s.shade)], from, std::max(width, 0.5), html_text(s.name));
    if (width > 8. * static_cast<double>(s.name.size()))
      svg +=
          fmt::format(R"(<text class="tick middle" x="{:.1f}" y="17">{}</text>)", from + width / 2, html_text(s.name));
  }
  return svg;
}

}  // namespace

std::string html_text(std::string_view text) {
  std::string safe;
  for (const char c : text) switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      default:
        if (static_cast<unsigned char>(c) >= ' ' || c == '\n') safe += c;
    }
  return safe;
}

std::string render_chart(const Chart& chart, int width, int height) {
  std::vector<std::vector<std::vector<Point>>> lines;
  double x_low = kInfinity, x_high = -kInfinity, y_low = kInfinity, y_high = -kInfinity;
  std::string description;
  for (const Series& series : chart.stacked ? stacked_up(chart.series) : chart.series) {
    for (const double x : series.x)
      if (std::isfinite(x)) x_low = std::min(x_low, x), x_high = std::max(x_high, x);
    lines.push_back(reduce(series, static_cast<size_t>(width) / 2));
    for (const auto& run : lines.back())
      for (const Point& p : run) {
        y_low = std::min(y_low, p.low);
        y_high = std::max(y_high, p.high);
      }
    if (!lines.back().empty()) {
      const Point& last = lines.back().back().back();
      description += fmt::format("{}: {:.4g} at {} {:.0f}. ", series.name, last.y, chart.x_label, last.x);
    }
  }
  std::string svg =
      fmt::format(R"(<svg class="chart" viewBox="0 0 {} {}" role="img"><title>{}</title><desc>{}</desc>)", width,
                  height, html_text(chart.title), html_text(description.empty() ? "No values yet." : description));
  if (y_low > y_high)
    return svg + fmt::format(R"(<text class="empty" x="{}" y="{}">no values yet</text></svg>)", width / 2, height / 2);

  if (x_high <= x_low) x_low -= .5, x_high += .5;
  if (chart.stacked) y_low = 0;
  if (std::isfinite(chart.limit)) y_low = std::min(y_low, chart.limit), y_high = std::max(y_high, chart.limit);
  const double spare = y_high > y_low ? 0.06 * (y_high - y_low) : std::max(std::abs(y_high) * 0.05, 1e-3);
  if (!chart.stacked) y_low -= spare;
  y_high += spare;
  Axis y{y_low, y_high, static_cast<double>(height) - 26, chart.stretches.empty() ? 10. : 22.,
         tick_step(y_high - y_low, height / 40)};
  double widest = 0;
  for (double tick = std::ceil(y_low / y.step) * y.step; tick <= y_high; tick += y.step)
    widest = std::max(widest, static_cast<double>(tick_text(tick, y.step).size()));
  const double left = 12 + 6.4 * widest;
  Axis x{x_low, x_high, left, static_cast<double>(width) - 12, tick_step(x_high - x_low, width / 80)};

  for (const BandRange& band : chart.bands) {
    const double from = y.at(std::clamp(band.from, y_low, y_high)), to = y.at(std::clamp(band.to, y_low, y_high));
    const double left_edge = x.at(std::clamp(chart.bands_from, x_low, x_high));
    if (from > to && left_edge < x.end)
      svg += fmt::format(R"(<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>)",
                         name_of(band.band), left_edge, to, x.end - left_edge, from - to);
  }
  for (double tick = std::ceil(y_low / y.step) * y.step; tick <= y_high; tick += y.step)
    svg += fmt::format(R"(<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)"
                       R"(<text class="tick end" x="{:.1f}" y="{:.1f}">{}</text>)",
                       x.start, x.end, y.at(tick), y.at(tick), x.start - 6, y.at(tick) + 3.5, tick_text(tick, y.step));
  svg += fmt::format(R"(<line class="axis" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", x.start, x.end, y.start,
                     y.start);
  for (double tick = std::ceil(x_low / x.step) * x.step; tick <= x_high; tick += x.step)
    svg += fmt::format(R"(<text class="tick {}" x="{:.1f}" y="{:.1f}">{}</text>)",
                       x.at(tick) > x.end - 14 ? "end" : "middle", std::min(x.at(tick), x.end), y.start + 17,
                       tick_text(tick, x.step));
  if (chart.stacked) {
    for (size_t i = lines.size(); i-- > 0;) svg += draw_area(lines[i], x, y, i % kSeriesColours);
  } else {
    for (size_t i = 0; i < lines.size(); ++i)
      svg += draw_series(lines[i], x, y, i % kSeriesColours, chart.series[i].x.size() > static_cast<size_t>(width) / 2);
  }
  if (std::isfinite(chart.limit))
    svg += fmt::format(R"(<line class="limit" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>)", x.start, x.end,
                       y.at(chart.limit), y.at(chart.limit));
  svg += draw_stretches(chart.stretches, x);
  return svg + "</svg>";
}

std::vector<BandRange> health_bands(const MetricGuide& guide) {
  if (guide.bad == MetricGuide::Bad::neither) return {};
  const bool high = guide.bad == MetricGuide::Bad::high;
  std::vector<BandRange> ranges;
  const auto add = [&](Band band, double limit, double end) {
    if (std::isfinite(limit)) ranges.push_back({band, high ? limit : end, high ? end : limit});
  };
  add(Band::warn, guide.warn, guide.alarm);
  add(Band::alarm, guide.alarm, high ? kInfinity : -kInfinity);
  return ranges;
}

}  // namespace saccade::ssl
