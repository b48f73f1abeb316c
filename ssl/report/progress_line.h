#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace saccade::ssl {

struct ProgressNumbers {
  int64_t done = 0, total = 0;  ///< iterations
  int64_t epoch = 0, epochs = 0;
  int64_t images = 0;  ///< of this iteration
  double loss = 0;
  double knn = -1;  ///< accuracy in [0, 1] of the last evaluation; below 0: none yet
};

/// One line that says how far a run is: images/s and the time left, the loss, the last kNN accuracy. On a terminal the
/// line is rewritten in place, a few times a second; elsewhere a plain line is written about every ten seconds.
class ProgressLine {
 public:
  /// @param to    where it goes; whether that is a terminal decides the style
  explicit ProgressLine(std::FILE* to = stdout);
  ProgressLine(std::FILE* to, bool terminal, int width = 100);
  /// Ends the line.
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  /// @param seconds  a clock that only runs forward; the default is the system's
  void step(const ProgressNumbers& numbers, double seconds);
  void step(const ProgressNumbers& numbers);
  /// A line of its own, above the progress line.
  void say(std::string_view text);
  /// Leaves the last line as it stands.
  void finish();

 private:
  std::string line(const ProgressNumbers& numbers) const;
  void show(const std::string& line);
  void put(const std::string& text);

  std::FILE* to_;
  bool terminal_;
  int width_;
  bool open_ = false;  ///< the cursor stands behind a progress line
  double started_ = -1, shown_ = -1, last_ = -1;
  double rate_images_ = 0, rate_iterations_ = 0;  ///< a second, smoothed
  double weight_ = 0;
  std::string last_line_;
};

/// "45 s", "3 min 20 s", "2 h 05 min", "3 d 04 h".
std::string duration_text(double seconds);

}  // namespace saccade::ssl
