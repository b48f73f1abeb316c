/// One SwAV training step, timed, with its memory; and, where PyTorch is at hand, the same step there, in turn in the
/// same run.
///
///   ./dev bench step                                   this library alone
///   bench/peers/setup && ./dev bench step --peer build/peers-venv/bin/python
///
/// It prints, per model: the median step of each contender, the ratio of images/s to the fastest peer mode (above 1:
/// faster), the peak bytes by tag, and whether the meta device's rehearsal gave the same bytes.
#include <fcntl.h>
#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/kernels/backend.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "training_step.h"

namespace saccade {
namespace {

struct Options {
  std::string model, crops = "2x96+4x48", peer;
  int64_t batch = 0;
  int rounds = 5, steps = 3;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// bench/peers/step.py as a child process; its protocol is described there.
class Peer {
 public:
  Peer(const Options& o, const std::string& model, const std::string& mode, int64_t batch) : mode_(mode) {
    int to[2], from[2];
    // Closed at exec: a peer that held the other's pipe open would keep it from ending.
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0) throw Error("bench: no pipe to the peer");
    pid_ = fork();
    if (pid_ == 0) {
      dup2(to[0], STDIN_FILENO);
      dup2(from[1], STDOUT_FILENO);
      std::string crops = o.crops;
      std::replace(crops.begin(), crops.end(), '+', ',');
      const std::string batch_text = std::to_string(batch), threads = std::to_string(kernels::cpu_threads());
      execl(o.peer.c_str(), o.peer.c_str(), "bench/peers/step.py", "--model", model.c_str(), "--mode", mode.c_str(),
            "--batch", batch_text.c_str(), "--crops", crops.c_str(), "--threads", threads.c_str(), nullptr);
      std::perror(o.peer.c_str());
      _exit(127);
    }
    close(to[0]);
    close(from[1]);
    in_ = fdopen(to[1], "w");
    out_ = fdopen(from[0], "r");
    ready_ = read_line().find("\"ready\"") != std::string::npos;
  }
  ~Peer() {
    std::fclose(in_);
    std::fclose(out_);
    waitpid(pid_, nullptr, 0);
  }
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  bool ready() const { return ready_; }
  const std::string& mode() const { return mode_; }
  void run(int steps) {
    fmt::print(in_, "{}\n", steps);
    std::fflush(in_);
    for (int i = 0; i < steps; ++i) {
      const std::string line = read_line();
      const size_t at = line.find("\"ms\": ");
      if (at == std::string::npos) throw Error("bench: the peer said no time: " + line);
      ms.push_back(std::strtod(line.c_str() + at + 6, nullptr));
    }
  }
  std::vector<double> ms;

 private:
  std::string read_line() {
    std::string line;
    for (int c; (c = std::fgetc(out_)) != EOF && c != '\n';) line += static_cast<char>(c);
    return line;
  }
  std::string mode_;
  pid_t pid_ = -1;
  std::FILE *in_ = nullptr, *out_ = nullptr;
  bool ready_ = false;
};

void print_memory(const MemoryStats& real, const MemoryStats& meta) {
  fmt::print("  memory at the peak, MiB:");
  for (size_t i = 0; i < kTags; ++i)
    fmt::print(" {} {:.1f},", name_of(static_cast<Tag>(i)), static_cast<double>(real.by_tag[i].peak) / (1 << 20));
  fmt::print(" all {:.1f} of {:.1f} reserved; rehearsed on the meta device: {}\n",
             static_cast<double>(real.total.peak) / (1 << 20), static_cast<double>(real.reserved) / (1 << 20),
             real.total.peak == meta.total.peak
                 ? "the same to the byte"
                 : fmt::format("{} bytes instead of {}", meta.total.peak, real.total.peak));
}

void measure(Options o, const std::string& peer_model, int64_t batch) {
  if (o.batch > 0) batch = o.batch;
  ssl::StepSpec spec = bench::small_head_step(o.model, o.crops, batch);
  spec.recipe = optim::sgd({.momentum = 0.9f, .weight_decay = 1e-6f});
  const auto rehearsal = [&] {
    const DeviceScope scope(Device::meta);
    allocator(Device::meta).reset_peaks();
    bench::TrainingStep step(spec);
    kernels::meta_cost() = {};
    step.run();
    const double flops = kernels::meta_cost().flops;
    step.run();
    return std::pair(allocator(Device::meta).stats(), flops);
  };
  const auto [meta, flops] = rehearsal();
  allocator(Device::cpu).reset_peaks();
  bench::TrainingStep step(spec);
  step.run();
  step.run();
  const MemoryStats real = allocator(Device::cpu).stats();

  std::vector<std::unique_ptr<Peer>> peers;
  if (!o.peer.empty())
    for (const char* mode : {"channels_last", "contiguous"}) {
      peers.push_back(std::make_unique<Peer>(o, peer_model, mode, batch));
      if (!peers.back()->ready()) {
        fmt::print(stderr, "bench: the peer ({} bench/peers/step.py) did not start\n", o.peer);
        std::exit(1);
      }
    }
  std::vector<double> ours;
  for (int round = 0; round < o.rounds; ++round) {
    for (int i = 0; i < o.steps; ++i) {
      const auto start = std::chrono::steady_clock::now();
      step.run();
      ours.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    }
    for (const auto& peer : peers) peer->run(o.steps);
  }
  const double ms = median(ours);
  fmt::print("{}, {}, batch {}, f32, {} threads, {}: {:.1f} ms a step, {:.1f} images/s, {:.0f} GFLOP/s\n", o.model,
             o.crops, batch, kernels::cpu_threads(), name_of(kernels::cpu_isa()), ms,
             1e3 * static_cast<double>(batch) / ms, flops / ms * 1e-6);
  double best = 0;
  for (const auto& peer : peers) {
    const double theirs = median(peer->ms);
    fmt::print("  PyTorch {:13} {:.1f} ms: {:.2f}x\n", peer->mode(), theirs, theirs / ms);
    best = best == 0 ? theirs : std::min(best, theirs);
  }
  if (best > 0) fmt::print("  images/s against PyTorch's fastest fp32 mode: {:.2f}x\n", best / ms);
  print_memory(real, meta);
  std::fflush(stdout);
}

}  // namespace
}  // namespace saccade

int main(int argc, char** argv) {
  using namespace saccade;
  std::signal(SIGPIPE, SIG_IGN);
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) {
        fmt::print(stderr, "bench: {} needs a value\n", flag);
        std::exit(2);
      }
      return argv[++i];
    };
    if (flag == "--model")
      options.model = value();
    else if (flag == "--batch")
      options.batch = std::atoll(value().c_str());
    else if (flag == "--crops")
      options.crops = value();
    else if (flag == "--rounds")
      options.rounds = std::max(1, std::atoi(value().c_str()));
    else if (flag == "--steps")
      options.steps = std::max(1, std::atoi(value().c_str()));
    else if (flag == "--peer")
      options.peer = value();
    else {
      fmt::print(stderr,
                 "bench: unknown flag {}; known: --model y_400mf|resnet50, --batch N, --crops 2x96+4x48, --rounds N, "
                 "--steps N, --peer PYTHON\n",
                 flag);
      return 2;
    }
  }
  try {
    struct Case {
      const char *ours, *theirs;
      int64_t batch;
    };
    for (const Case& c : {Case{"y_400mf", "regnet_y_400mf", 32}, Case{"resnet50", "resnet50", 16}}) {
      if (!options.model.empty() && options.model != c.ours) continue;
      Options o = options;
      o.model = c.ours;
      measure(o, c.theirs, c.batch);
    }
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench: {}\n", e.what());
    return 1;
  }
}
