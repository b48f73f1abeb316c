#pragma once

#include <saccade/ssl/train/health.h>

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace saccade::ssl {

/// A line of a chart. Points that are not finite break the line.
struct Series {
  std::string name;
  std::vector<double> x, y;
};

/// A range of y values and what it means for the health of a run.
struct BandRange {
  Band band;
  double from, to;  ///< infinite where it has no end
};

/// A stretch of x, shown as part of a strip above the curves, with its name where it fits.
struct Stretch {
  enum class Shade { light, dark, marked };
  std::string name;
  double from, to;
  Shade shade = Shade::light;
};

struct Chart {
  std::string title;
  std::string x_label = "iteration", y_label;
  std::vector<Series> series;
  std::vector<BandRange> bands = {};                             ///< what lies in none is healthy
  std::string note = {};                                         ///< a line below: how to read it
  double bands_from = -std::numeric_limits<double>::infinity();  ///< x: what lies before is not judged
  bool stacked = false;  ///< series as areas upon one another, the first lowest; they share the x of the first
  double limit = std::numeric_limits<double>::quiet_NaN();  ///< a y not to be passed, as a dashed line
  std::vector<Stretch> stretches = {};
};

inline constexpr size_t kSeriesColours = 6;  ///< of the page's style: s0 ... s5, then again

/// The chart as an inline SVG element of that size in CSS pixels (it scales with its box), with a title and a
/// description for screen readers. Colours are the page's CSS variables. Long series are drawn as the mean of each
/// pixel or two and its range.
std::string render_chart(const Chart& chart, int width, int height);

/// The warn and alarm ranges of a metric, empty where it has none or is judged by its history.
std::vector<BandRange> health_bands(const MetricGuide& guide);

/// Text made safe inside HTML and its attributes.
std::string html_text(std::string_view text);

}  // namespace saccade::ssl
