#include <saccade/ssl/stop_signal.h>

#include <csignal>

namespace saccade::ssl {

namespace {

volatile std::sig_atomic_t stop_requested = 0;
struct sigaction previous_interrupt, previous_terminate;

void request_stop(int) { stop_requested = 1; }

}  // namespace

StopSignal::StopSignal() {
  stop_requested = 0;
  struct sigaction action = {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESETHAND;  // the second signal finds the default action
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_interrupt);
  sigaction(SIGTERM, &action, &previous_terminate);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &previous_interrupt, nullptr);
  sigaction(SIGTERM, &previous_terminate, nullptr);
}

bool StopSignal::requested() { return stop_requested != 0; }

}  // namespace saccade::ssl
