#pragma once

#include <saccade/ssl/train/trainer.h>

#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "tiny.h"

/// Short trainings on tiny batches, and what the health monitor reads and says of them.
namespace saccade::testing {

struct Watched {
  std::vector<ssl::HealthMessage> said;
  ssl::HealthReading last;
  std::string words() const {
    std::string all;
    for (const auto& m : said) all += m.text() + "\n";
    return all;
  }
};

inline Watched watched(ssl::Objective& objective, const std::function<Batch(int64_t iteration)>& batch, float lr,
                       int64_t iterations) {
  ssl::Trainer trainer(objective, optim::adamw({.weight_decay = 1e-6f}),
                       {.iterations = iterations, .lr = lr, .final_lr_ratio = 1.f});
  Watched run;
  trainer.observe({.on_health = [&](const ssl::HealthReading& reading) { run.last = reading; },
                   .on_message = [&](const ssl::HealthMessage& m) { run.said.push_back(m); }});
  int64_t at = 0;
  trainer.fit({[&] { return batch(at++); }, [&](int64_t i) { at = i; }, 8});
  return run;
}

inline double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// What readings cost of the time of training, every 20 iterations, of steps far smaller than any real one.
inline double share_of_readings(ssl::Objective& objective, const std::function<Batch(int64_t iteration)>& batch) {
  const auto optimizer = optim::adamw().build(objective.trained_parameters());
  ssl::HealthMonitor monitor(objective.health(), {});
  double steps = 0, readings = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const std::vector<Batch> batches{batch(i)};
    const double start = processor_seconds();
    double reading = 0;
    ssl::train_step(objective, *optimizer, batches, {.iteration = i, .iterations = 200}, 1e-3f, {}, nullptr,
                    [&](float loss) {
                      if (!monitor.due(i)) return;
                      const double before = processor_seconds();
                      monitor.observe(i, loss, batches[0].size(), objective.seen());
                      reading = processor_seconds() - before;
                    });
    steps += processor_seconds() - start - reading;
    readings += reading;
  }
  return readings / steps;
}

}  // namespace saccade::testing
