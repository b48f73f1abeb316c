#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <saccade/core/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/temporary_folder.h"

/// @file
/// The real programs, run as a person would, on small images made on the spot.
namespace saccade::test {

/// A running program; its words go to files.
class Process {
 public:
  /// @param program  "pretrain" for saccade-pretrain, or the path of another
  /// @param words    folder for what it says
  Process(const std::string& program, std::vector<std::string> arguments, const std::filesystem::path& words)
      : words_(words) {
    const bool is_path = program.find('/') != std::string::npos;
    arguments.insert(arguments.begin(), is_path ? program : std::string(SACCADE_BIN) + "/saccade-" + program);
    std::vector<char*> raw;
    for (std::string& argument : arguments) raw.push_back(argument.data());
    raw.push_back(nullptr);
    const std::string out = (words / "stdout").string(), err = (words / "stderr").string();
    pid_ = fork();
    if (pid_ != 0) return;
    setenv("OMP_NUM_THREADS", "1", 1);
    const int to = open(out.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    const int complaints = open(err.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
    if (dup2(to, 1) < 0 || dup2(complaints, 2) < 0) _exit(126);
    execv(raw[0], raw.data());
    _exit(127);
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      wait();
    }
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// Nothing if it has ended: the process number -1 would mean every process there is.
  void signal(int number) const {
    if (pid_ > 0) kill(pid_, number);
  }
  bool is_running() {
    if (pid_ <= 0) return false;
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) != pid_) return true;
    pid_ = -1;
    status_ = status;
    return false;
  }
  /// Its exit status; minus the signal's number if one ended it.
  int wait() {
    if (pid_ > 0) waitpid(pid_, &status_, 0);
    pid_ = -1;
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }
  std::string out() const { return content_of(words_ / "stdout"); }
  std::string err() const { return content_of(words_ / "stderr"); }

 private:
  std::filesystem::path words_;
  pid_t pid_ = -1;
  int status_ = 0;
};

struct Outcome {
  int status;
  std::string out, err;
};

/// Runs a program to its end.
inline Outcome run(const std::string& program, const std::vector<std::string>& arguments) {
  const TemporaryFolder words;
  Process process(program, arguments, words.path());
  const int status = process.wait();
  return {status, process.out(), process.err()};
}

/// Does `condition` come true while the process runs?
inline bool wait_until(Process& process, const std::function<bool()>& condition) {
  while (process.is_running()) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

/// Three classes of striped colour images, `each` of them in a folder of its own.
inline void make_photos(const std::filesystem::path& folder, int each = 16) {
  constexpr int width = 40, height = 36;
  for (int kind = 0; kind < 3; ++kind) {
    const auto of_class = folder / std::string(1, static_cast<char>('a' + kind));
    std::filesystem::create_directories(of_class);
    for (int i = 0; i < each; ++i) {
      Philox random(1, static_cast<uint64_t>(100 * kind + i));
      std::string pixels = "P6 40 36 255\n";
      for (int y = 0; y < height; ++y)
        for (int x = 0; x < width; ++x)
          for (int c = 0; c < 3; ++c) {
            const int wave = kind == 0 ? 6 * x : kind == 1 ? 7 * y : x * y;
            pixels += static_cast<char>((wave + 30 * c + static_cast<int>(random.below(40))) % 256);
          }
      put(of_class / (std::string(1, static_cast<char>('a' + i)) + ".ppm"), pixels);
    }
  }
}

/// The flags of a training that takes moments: six iterations an epoch on make_photos().
inline std::vector<std::string> tiny_training(const std::filesystem::path& photos, const std::filesystem::path& run,
                                              int epochs, const std::vector<std::string>& more = {}) {
  std::vector<std::string> arguments{"--data",   photos.string(),
                                     "--run",    run.string(),
                                     "--trunk",  "y:d=4,w0=8,wa=8,wm=2,g=8,stem_width=8",
                                     "--crops",  "2x24+2x16",
                                     "--batch",  "8",
                                     "--epochs", std::to_string(epochs),
                                     "--hidden", "32",
                                     "--dim",    "16"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

/// A folder with photos/, as make_photos() has them, and run/, a training on them that is finished.
inline std::unique_ptr<TemporaryFolder> folder_with_run() {
  auto folder = std::make_unique<TemporaryFolder>();
  make_photos(*folder / "photos");
  const Outcome trained = run("pretrain", tiny_training(*folder / "photos", *folder / "run", 1));
  EXPECT_EQ(trained.status, 0) << trained.err;
  return folder;
}

}  // namespace saccade::test
