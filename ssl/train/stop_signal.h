#pragma once

namespace saccade::ssl {

/// While it lives, the signals that ask a program to end are requests, to be asked for with requested(), instead of the
/// end of the process: SIGINT (Ctrl-C), SIGTERM, SIGHUP (the terminal is gone), and SIGUSR1 and SIGUSR2, by which
/// schedulers such as Slurm warn before they end a job (sbatch --signal=USR1@120). A second SIGINT or SIGTERM ends it
/// at once; the others may come as often as they like, for terminals and schedulers repeat them. What the caller of the
/// program had ignored (SIGHUP under nohup) stays ignored. One at a time; the old handlers come back
/// afterwards.
class StopSignal {
 public:
  StopSignal();
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  static bool requested();
};

}  // namespace saccade::ssl
