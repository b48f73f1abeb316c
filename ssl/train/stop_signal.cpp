#include <saccade/ssl/train/stop_signal.h>

#include <array>
#include <csignal>

namespace saccade::ssl {

namespace {

constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};

volatile std::sig_atomic_t stop_requested = 0;
std::array<struct sigaction, kSignals.size()> previous;

void request_stop(int) { stop_requested = 1; }

struct sigaction action_for(int signal) {
  struct sigaction action = {};
  action.sa_handler = request_stop;
  // The second finds the default action. Reads and writes that the others meet go on.
  action.sa_flags = signal == SIGINT || signal == SIGTERM ? SA_RESETHAND : SA_RESTART;
  sigemptyset(&action.sa_mask);
  return action;
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested = 0;
  for (size_t i = 0; i < kSignals.size(); ++i) {
    const struct sigaction action = action_for(kSignals[i]);
    sigaction(kSignals[i], &action, &previous[i]);
    if (previous[i].sa_handler == SIG_IGN) sigaction(kSignals[i], &previous[i], nullptr);
  }
}

StopSignal::~StopSignal() {
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
}

bool StopSignal::requested() { return stop_requested != 0; }

}  // namespace saccade::ssl
