#include <fmt/format.h>
#include <saccade/ssl/report/progress_line.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace saccade::ssl {
namespace {

constexpr double kTerminalInterval = 0.2, kPlainInterval = 10, kSmoothing = 10;  // seconds

int width_of(std::FILE* to) {
  winsize size{};
  return ioctl(fileno(to), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 100;
}

std::string thousands(double value) {
  std::string text = fmt::format("{:.0f}", value);
  for (auto i = static_cast<std::ptrdiff_t>(text.size()) - 3; i > 0; i -= 3)
    text.insert(static_cast<size_t>(i), 1, ',');
  return text;
}

}  // namespace

std::string duration_text(double seconds) {
  const auto s = static_cast<int64_t>(std::max(seconds, 0.) + 0.5);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min {:02} s", s / 60, s % 60);
  if (s < 86400) return fmt::format("{} h {:02} min", s / 3600, s / 60 % 60);
  return fmt::format("{} d {:02} h", s / 86400, s / 3600 % 24);
}

ProgressLine::ProgressLine(std::FILE* to) : ProgressLine(to, isatty(fileno(to)) != 0, width_of(to)) {}
ProgressLine::ProgressLine(std::FILE* to, bool terminal, int width) : to_(to), terminal_(terminal), width_(width) {}
ProgressLine::~ProgressLine() { finish(); }

void ProgressLine::step(const ProgressNumbers& numbers) {
  step(numbers, std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count());
}

void ProgressLine::step(const ProgressNumbers& numbers, double seconds) {
  if (started_ < 0) started_ = shown_ = seconds;
  if (last_ >= 0 && seconds > last_) {
    // Rates averaged over the last ten seconds or so; at the start, over what there is.
    const double elapsed = seconds - last_, fade = std::exp(-elapsed / kSmoothing);
    rate_images_ = rate_images_ * fade + static_cast<double>(numbers.images) / elapsed * (1 - fade);
    rate_iterations_ = rate_iterations_ * fade + 1 / elapsed * (1 - fade);
    weight_ = weight_ * fade + (1 - fade);
  }
  last_ = seconds;
  const bool end = numbers.total > 0 && numbers.done >= numbers.total;
  if (!end && seconds - shown_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  shown_ = seconds;
  show(line(numbers));
}

std::string ProgressLine::line(const ProgressNumbers& n) const {
  const double part = n.total > 0 ? static_cast<double>(n.done) / static_cast<double>(n.total) : 0;
  std::string text;
  if (terminal_) {
    constexpr int cells = 20;
    const int full = static_cast<int>(part * cells + 0.5);
    text +=
        '[' + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(cells - full), '.') + "] ";
  }
  text += fmt::format("{:3.0f} %  step {}/{}", std::floor(part * 100), n.done, n.total);
  if (n.epochs > 0) text += fmt::format("  epoch {}/{}", n.epoch, n.epochs);
  if (weight_ > 0) text += fmt::format("  {} images/s", thousands(rate_images_ / weight_));
  if (n.done >= n.total)
    text += "  in " + duration_text(last_ - started_);
  else if (rate_iterations_ > 0)
    text += "  ETA " + duration_text(static_cast<double>(n.total - n.done) / (rate_iterations_ / weight_));
  text += fmt::format("  loss {:.4f}", n.loss);
  if (n.knn >= 0) text += fmt::format("  kNN {:.1f} %", n.knn * 100);
  return text;
}

void ProgressLine::show(const std::string& line) {
  last_line_ = line;
  if (terminal_) {
    // Cut to the width, or the terminal would wrap and \r no longer reach the line's start. \033[K clears the rest.
    put(fmt::format("\r{}\033[K", line.substr(0, static_cast<size_t>(std::max(width_ - 1, 1)))));
    open_ = true;
  } else {
    put(line + '\n');
  }
}

/// A terminal that was closed, or a full disk behind a redirection, is no reason to lose a training: errors are passed
/// over.
void ProgressLine::put(const std::string& text) {
  std::fputs(text.c_str(), to_);
  std::fflush(to_);
  std::clearerr(to_);
}

void ProgressLine::say(std::string_view text) {
  put(fmt::format("{}{}\n", open_ ? "\r\033[K" : "", text));
  if (open_) show(last_line_);
}

void ProgressLine::finish() {
  if (std::exchange(open_, false)) put("\n");
}

}  // namespace saccade::ssl
