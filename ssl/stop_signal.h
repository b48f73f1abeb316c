#pragma once

namespace saccade::ssl {

/// While it lives, SIGINT (Ctrl-C) and SIGTERM are requests, to be asked for with requested(), instead of the end of
/// the process. A second one ends it at once. One at a time; the old handlers come back afterwards.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool requested();
};

}  // namespace saccade::ssl
