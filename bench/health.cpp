/// What the health monitor costs: training steps with and without it, in turn in the same run.
///
///   ./dev bench health
///
/// It prints, per setting, the median step without a reading and with one, the reading alone, and the reading's share
/// of the steps when one is taken every 20 (the default). It ends with 1 when a share is a hundredth or more.
#include <fmt/format.h>
#include <saccade/core/random.h>
#include <saccade/data/multi_crop.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/methods/swav.h>
#include <saccade/ssl/train/health.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

namespace saccade {
namespace {

struct Setting {
  std::string trunk, crops;
  int64_t batch, prototypes, dim;
  int rounds;
};

double median(std::vector<double> values) {
  std::ranges::nth_element(values, values.begin() + static_cast<long>(values.size() / 2));
  return values[values.size() / 2];
}

/// The reading's share of the steps.
double share(const Setting& s) {
  ssl::SwAV model(nn::trunk(s.trunk), {.prototypes = s.prototypes, .hidden = 512, .dim = s.dim});
  const auto optimizer = optim::larc_sgd().build(model.named_parameters());
  // The spectrum is taken at every fourth reading, no less often than by default: its price is among those measured.
  const ssl::HealthOptions options{.spectrum_embeddings = 4 * std::min<int64_t>(2 * s.batch, 512)};
  ssl::HealthMonitor monitor(model.health(), options);
  Batch batch;
  batch.images = Tensor::images(data::multi_crop(data::parse_crops(s.crops)).segments(s.batch), 3);
  batch.indices.resize(static_cast<size_t>(s.batch));
  Philox random(1);
  for (float& x : batch.images.data<float>()) x = random.uniform(-1.7f, 1.7f);

  using Clock = std::chrono::steady_clock;
  const auto ms = [](Clock::duration d) { return std::chrono::duration<double, std::milli>(d).count(); };
  std::vector<double> without, with, readings;
  for (int i = -1; i < 2 * s.rounds; ++i) {  // the first is not counted
    const auto start = Clock::now();
    ssl::StepTensors seen;
    const Tensor loss = model.loss(batch, i + 1, &seen);
    Clock::duration reading{};
    if (i % 2 != 0) {
      const std::vector<NamedTensor> named{
          {"embeddings", seen.embeddings}, {"scores", seen.scores}, {"assignments", seen.assignments}};
      const auto before = Clock::now();
      monitor.observe(int64_t{20} * (i + 1), loss.item(), s.batch, named);
      reading = Clock::now() - before;
    }
    seen = {};
    loss.backward();
    optimizer->step(0.01f);
    optimizer->zero_grad();
    if (i < 0) continue;
    (i % 2 != 0 ? with : without).push_back(ms(Clock::now() - start));
    if (i % 2 != 0) readings.push_back(ms(reading));
  }
  double mean = 0;  // not the median: only some readings take the spectrum
  for (const double r : readings) mean += r / static_cast<double>(readings.size());
  const double part = mean / (static_cast<double>(options.every) * median(without));
  fmt::print("{:12} batch {:3}, K {:4}: step {:8.2f} ms, with a reading {:8.2f} ms; the reading {:6.2f} ms, {:.2f} %\n",
             s.trunk.substr(0, 12), s.batch, s.prototypes, median(without), median(with), mean, 100 * part);
  return part;
}

}  // namespace
}  // namespace saccade

int main() {
  using saccade::share;
  double most = 0;
  // Few pixels and many prototypes are the dearest for the monitor; the last is a usual small run.
  most = std::max(most, share({"y:d=2,w0=8,wa=8,wm=2,g=8,in=3,stem=simple,stem_width=8", "2x16+2x8", 32, 64, 16, 160}));
  most = std::max(most, share({"y_200mf:stem=cifar", "2x28+2x16", 64, 3000, 128, 8}));
  most = std::max(most, share({"y_400mf", "2x96+4x48", 32, 300, 128, 4}));
  return most < 0.01 ? 0 : 1;
}
