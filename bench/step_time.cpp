/// How well the time of a training step is foretold: calls measured one by one by plan::Calibration, added up over a
/// rehearsal on the meta device, against real steps, in turn.
///
///   ./dev bench step-time
#include <fmt/format.h>
#include <saccade/core/plan/calibration.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "training_step.h"

namespace saccade {
namespace {

struct Case {
  std::string model;
  int64_t batch;
  DType precision;
};

struct Running {
  Case c;
  std::unique_ptr<bench::TrainingStep> step;
  plan::Clock clock;
  std::vector<double> ms = {};
};

int run() {
  plan::Calibration calibration;
  std::vector<Running> all;
  for (const Case& c : {Case{"y_400mf", 16, DType::f32}, Case{"y_400mf", 16, DType::bf16}, Case{"y_8gf", 2, DType::f32},
                        Case{"y_8gf", 2, DType::bf16}}) {
    const int64_t calls = calibration.measurements();
    const double spent = calibration.measuring_seconds();
    ssl::StepSpec spec = bench::small_head_step(c.model, "2x96+4x48", c.batch);
    spec.options.precision = c.precision;
    Running& r = all.emplace_back(Running{c, std::make_unique<bench::TrainingStep>(spec), plan::Clock(calibration)});
    {
      const DeviceScope meta(Device::meta);
      bench::TrainingStep rehearsal(spec);
      const kernels::MetaListenScope listen(r.clock);
      rehearsal.run();
    }
    r.step->run();
    fmt::print("{}, {}: {} calls measured in {:.1f} s\n", c.model, name_of(c.precision),
               calibration.measurements() - calls, calibration.measuring_seconds() - spent);
  }
  calibration.release();
  for (int round = 0; round < 5; ++round)
    for (Running& r : all)
      for (int i = 0; i < 2; ++i) {
        const auto start = std::chrono::steady_clock::now();
        r.step->run();
        r.ms.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
      }
  double worst = 0;
  for (Running& r : all) {
    std::sort(r.ms.begin(), r.ms.end());
    const double real = r.ms[r.ms.size() / 2], foretold = r.clock.seconds() * 1e3;
    worst = std::max(worst, std::abs(foretold / real - 1));
    fmt::print("{}, batch {}, {}: {:.1f} ms foretold, {:.1f} ms measured ({:.1f} at best): {:+.1f} %\n ", r.c.model,
               r.c.batch, name_of(r.c.precision), foretold, real, r.ms.front(), 100 * (foretold / real - 1));
    for (const auto& [name, seconds] : r.clock.by_name())
      if (1e3 * seconds > foretold / 200) fmt::print(" {} {:.1f}", name, 1e3 * seconds);
    fmt::print("\n");
  }
  fmt::print("worst: {:.1f} %\n", 100 * worst);
  return 0;
}

}  // namespace
}  // namespace saccade

int main() {
  try {
    return saccade::run();
  } catch (const std::exception& e) {
    fmt::print(stderr, "bench: {}\n", e.what());
    return 1;
  }
}
