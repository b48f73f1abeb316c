#pragma once

/// @file
/// What the programs share around their work: parsing, complaints, and the configuration of a run.

#include <fmt/format.h>
#include <omp.h>
#include <saccade/core/allocator.h>
#include <saccade/core/dist/launched.h>
#include <saccade/core/tensor.h>
#include <saccade/data/printable.h>
#include <saccade/data/unreadable.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/rehearsal.h>
#include <saccade/kernels/version.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "config_file.h"

namespace saccade::program {

/// Says one sentence on stderr, whatever the lines of `what`. Of several processes that were started together the first
/// speaks first: what went wrong for all is then said once, for its end is the end of the others.
inline void complain(const CLI::App& app, std::string what) {
  int rank = 0;
  try {
    rank = dist::launched().rank;
  } catch (const Error&) {
    // it is what is complained of
  }
  if (rank > 0) {
    std::this_thread::sleep_for(std::chrono::seconds(3));
    what = fmt::format("process {}: {}", rank, what);
  }
  std::replace(what.begin(), what.end(), '\n', ' ');
  fmt::print(stderr, "{}: {}\n", app.get_name(), data::printable(what));
}

/// A whole program: parses the arguments, then does the work. Wrong flags end with 2, errors with 1, each with a
/// sentence on stderr; where memory ran out, what fills it is listed below, and where images cannot be read, why.
/// @param arguments  without the program's name
/// @param complete   adds arguments that follow from those given
inline int run(CLI::App& app, std::vector<std::string> arguments, const std::function<int()>& work,
               const std::function<void(std::vector<std::string>& arguments)>& complete = {}) {
  try {
    try {
      app.config_formatter(std::make_shared<ConfigFile>(app));
      app.set_version_flag("--version",
                           [&app] { return fmt::format("{} {}\n{}", app.get_name(), version(), build_and_machine()); });
      if (complete) complete(arguments);
      std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
      app.parse(arguments);
    } catch (const CLI::ParseError& error) {
      if (error.get_exit_code() == 0) return app.exit(error);  // --help
      complain(app, std::string(error.what()) + " (--help lists the flags)");
      return 2;
    }
    return work();
  } catch (const OutOfMemory& error) {
    complain(app, error.what());
    fmt::print(stderr, "{}", error.report());
  } catch (const data::TooManyUnreadable& error) {
    complain(app, error.what());
    fmt::print(stderr, "{}", error.report());
  } catch (const std::bad_alloc&) {
    complain(app, "there is not enough memory");
  } catch (const std::exception& error) {
    complain(app, error.what());
  }
  return 1;
}

/// Makes an option the name of a floating type: f32, bf16 or f16 (fp32 and fp16 are understood).
inline CLI::Option* type_name(CLI::Option* option) {
  return option->transform(CLI::Transformer(std::map<std::string, std::string>{{"fp32", "f32"}, {"fp16", "f16"}}))
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
}
inline DType type_of(const std::string& name) {
  return name == "bf16" ? DType::bf16 : name == "f16" ? DType::f16 : DType::f32;
}

/// Where to compute, and with how many threads.
struct Machine {
  std::string device = "auto";
  int threads = 0, workers = 0;
  bool several = false;  ///< the program can be one of several processes

  void flags(CLI::App& app) {
    app.add_option("--device", device, "Where to compute: cpu, cuda or cuda:1 (a GPU), or auto: a GPU if there is one")
        ->capture_default_str()
        ->group("Machine");
    app.add_option("--threads", threads, "Threads to compute with; 0: all cores")
        ->check(CLI::Range(0, 4096))
        ->capture_default_str()
        ->group("Machine");
    app.add_option("--workers", workers,
                   "Threads that read images ahead; 0: the computing threads do it between steps, best on one machine "
                   "without an accelerator")
        ->check(CLI::Range(0, 1024))
        ->capture_default_str()
        ->group("Machine");
  }
  /// Takes the threads and the device; returns which.
  Device apply() const {
    if (const int processes = dist::launched().size; processes > 1 && !several)
      throw Error(fmt::format("this program is one process, and was started as {}: start it without mpirun or the like",
                              processes));
    if (threads > 0)
      omp_set_num_threads(threads);
    else if (const int beside = dist::launched().local_size;
             beside > 1 && omp_get_num_procs() >= sysconf(_SC_NPROCESSORS_ONLN))
      omp_set_num_threads(std::max(1, omp_get_num_procs() / beside));  // nobody gave each process cores of its own
    if (device == "cpu" || (device == "auto" && kernels::cuda_status().devices == 0)) return Device::cpu;
    int index = 0;
    if (device.starts_with("cuda:") && !CLI::detail::lexical_cast(device.substr(5), index)) index = -1;
    if (index < 0 || (device != "auto" && device != "cuda" && !device.starts_with("cuda:")))
      throw Error(fmt::format("--device {}: expected auto, cpu, cuda or cuda:0, cuda:1, ...", device));
    kernels::select_cuda_device(index);
    kernels::rehearse(Device::cuda);
    return Device::cuda;
  }
};

/// What `make` returns, made on a device.
template <class Make>
auto on(Device device, Make make) {
  const DeviceScope scope(device);
  return make();
}

}  // namespace saccade::program
