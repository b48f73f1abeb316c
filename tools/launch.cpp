/// Starts a program as several processes, and starts it again when one of them dies: the program goes on from its
/// newest checkpoint.
#include <saccade/core/dist/launched.h>
#include <sys/wait.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "program.h"

using namespace saccade;

struct Settings {
  int processes = 2, max_restarts = 3;
  std::string hosts;
  std::vector<std::string> command;  ///< what stands behind "--"

  void flags(CLI::App& app) {
    app.add_option("-n,--processes", processes, "How many")->check(CLI::Range(1, 1 << 20))->capture_default_str();
    app.add_option("--hosts", hosts,
                   "Where: names with the number of processes each, a:4,b:4 (reached by ssh, or what MPI knows); they "
                   "must all see the run's folder. Here, if none is named");
    app.add_option("--max-restarts", max_restarts, "How often a job that lost a process is started again")
        ->check(CLI::Range(0, 1 << 20))
        ->capture_default_str();
    app.footer("Example:\n  saccade-launch -n 4 -- saccade-pretrain --data photos --run runs/photos --batch 256");
  }
};

/// The first of the places of a program: beside this one, then those of PATH. Empty if there is none.
std::string find_program(const std::string& name) {
  namespace fs = std::filesystem;
  if (name.find('/') != std::string::npos) return name;
  std::error_code none;
  std::vector<fs::path> folders{fs::read_symlink("/proc/self/exe", none).parent_path()};
  const char* path = std::getenv("PATH");
  for (const std::string& folder : CLI::detail::split(path == nullptr ? "" : path, ':')) folders.emplace_back(folder);
  for (const fs::path& folder : folders)
    if (const fs::path file = folder / name; access(file.c_str(), X_OK) == 0 && fs::is_regular_file(file, none))
      return file.string();
  return "";
}

volatile std::sig_atomic_t g_job = 0, g_asked = 0;

/// The first signal asks the job to stop with a checkpoint (by one that mpirun hands on), the second ends it.
void hand_on(int) {
  const int before = g_asked;
  g_asked = before + 1;
  if (g_job > 0) kill(static_cast<pid_t>(g_job), before == 0 ? SIGUSR1 : SIGTERM);
}

/// Runs a command to its end; its status, or 128 and the number of the signal that ended it.
int run_job(std::vector<std::string> command) {
  std::vector<char*> raw;
  for (std::string& word : command) raw.push_back(word.data());
  raw.push_back(nullptr);
  const pid_t job = fork();
  if (job < 0) throw Error(fmt::format("no process could be started: {}", std::strerror(errno)));
  if (job == 0) {
    setpgid(0, 0);  // Ctrl-C is for the launcher, which hands it on
    execv(raw[0], raw.data());
    _exit(127);
  }
  g_job = job;
  int status = 0;
  while (waitpid(job, &status, 0) < 0 && errno == EINTR) {
  }
  g_job = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int launch(const Settings& s) {
  if (s.command.empty()) throw Error("what is to be started? saccade-launch -n 4 -- saccade-pretrain --data ...");
  if (dist::mpi_version().empty())
    throw Error("this build has no MPI to join processes by: install one (libopenmpi-dev) and build again");
  const std::string mpirun = find_program("mpirun"), program = find_program(s.command.front());
  if (mpirun.empty()) throw Error("mpirun is not installed (openmpi-bin)");
  if (program.empty()) throw Error(fmt::format("{}: there is no such program", s.command.front()));

  std::vector<std::string> job{mpirun, "-n", std::to_string(s.processes)};
  if (geteuid() == 0) job.emplace_back("--allow-run-as-root");
  if (!s.hosts.empty())
    job.insert(job.end(), {"--host", s.hosts});
  else if (s.processes > sysconf(_SC_NPROCESSORS_ONLN))
    job.emplace_back("--oversubscribe");
  job.push_back(program);
  job.insert(job.end(), s.command.begin() + 1, s.command.end());

  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) std::signal(signal, hand_on);
  for (int restarts = 0;; ++restarts) {
    const int status = run_job(job);
    // Below 128 the program has said what is wrong: it would say so again.
    if (status <= 128 || g_asked > 0 || status == 128 + SIGINT) return status;
    const std::string what =
        fmt::format("a process was ended by signal {} ({})", status - 128, strsignal(status - 128));
    if (restarts == s.max_restarts)
      throw Error(fmt::format("{}, after {} restart{}", what, restarts, restarts == 1 ? "" : "s"));
    fmt::print("saccade-launch: {}: starting again from the newest checkpoint (restart {} of {})\n", what, restarts + 1,
               s.max_restarts);
    std::fflush(stdout);
    std::erase(job, "--fresh");  // the first start has begun anew
  }
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  Settings settings;
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (const auto end = std::ranges::find(arguments, "--"); end != arguments.end()) {
    settings.command.assign(end + 1, arguments.end());
    arguments.erase(end, arguments.end());
  }
  CLI::App app("Starts a program as several processes, and again when one of them dies.", "saccade-launch");
  settings.flags(app);
  return program::run(app, std::move(arguments), [&] { return launch(settings); });
}
