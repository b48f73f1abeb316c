// What could each described device train, and how fast? Rehearsals on the meta
// device: no such device is needed.
//
//   plan_before_you_buy [TRUNK]          default: y_16gf
//
// For SwAV with 2 crops of 224 and 6 of 96 pixels in f16 it prints, for each
// device, the largest batch that fits (up to 1024) with recomputation, the time
// of a step and how much of that recomputation costs:
//   v100-32gb     batch   230   1.31 s a step   176 images/s   18 % of the time
//   for memory
#include <saccade/core/bytes.h>
#include <saccade/saccade.h>

#include <cstdio>

using namespace saccade;

int main(int argc, char** argv) try {
  const std::string trunk = argc > 1 ? argv[1] : "y_16gf";
  const data::MultiCrop crops = data::multi_crop({{2, 224, {.14f, 1}}, {6, 96, {.05f, .14f}}});
  const ssl::StepSpec spec{.objective = ssl::dearest_swav(trunk, {.prototypes = 3000}),
                           .crops = crops.segments(1),
                           .batch = 1,
                           .recipe = optim::larc_sgd(),
                           .options = {.precision = DType::f16}};
  for (const std::string& name : plan::device_names()) {
    const plan::DeviceDescription device = plan::device_description(name);
    plan::DescribedDevice time(device);
    const auto [batch, plan] = ssl::largest_batch(spec, time, device.memory_bytes - device.reserved_bytes, 1024);
    if (batch == 0) {
      std::printf("%-12s  does not hold one image: %s\n", name.c_str(), bytes_text(device.memory_bytes).c_str());
      continue;
    }
    const double seconds = plan.rehearsal.seconds;
    std::printf(
        "%-12s  batch %5ld   %.3g s a step   %.0f images/s   %.0f %% "
        "of the time for memory\n",
        name.c_str(), batch, seconds, static_cast<double>(batch) / seconds, 100 * plan.extra_seconds / seconds);
  }
} catch (const std::exception& error) {
  std::fprintf(stderr, "plan_before_you_buy: %s\n", error.what());
  return 1;
}
