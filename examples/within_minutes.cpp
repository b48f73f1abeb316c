// Learns features from a folder of images, photographs or small ones, within so
// many minutes: network, crops, schedule and all else are chosen.
//
//   within_minutes IMAGES MINUTES RUN
//
// It prints what it chose and why, then a line of progress; RUN is as that of
// pretrain_folder, and the last line is the same:
//   The network is in RUN/trunk.safetensors
#include <saccade/saccade.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

using namespace saccade;

int main(int argc, char** argv) try {
  if (argc != 4) return std::puts("usage: within_minutes IMAGES MINUTES RUN"), 2;

  data::Source images = data::open_images(argv[1]);
  vision::Training training;
  const auto choices = vision::choose_within({.minutes = std::atof(argv[2])}, training, images, Device::cpu);

  data::Loader loader(images, training.multi_crop(), {.batch = training.batch});
  const auto model = training.make_objective(nn::trunk(training.trunk, training.seed));
  const ssl::TrunkInfo info{.trunk = training.trunk, .size = training.shown_size()};
  training.options.carried = info.metadata();
  ssl::Trainer trainer(*model, training.recipe(), training.options);

  const ssl::RunFolder folder(argv[3]);
  ssl::RunReporter reporter(folder, {.title = "Features of " + images.name});
  for (const vision::Choice& c : choices) reporter.say(c.setting + ": " + c.value + " (" + c.reason + ")");
  if (reporter.run(trainer, loader).interrupted) return 130;
  ssl::save_trunk(folder.trunk(), model->result(), nn::Names::torchvision, info);
  reporter.say("The network is in " + folder.trunk().string());
} catch (const std::exception& error) {
  std::fprintf(stderr, "within_minutes: %s\n", error.what());
  return 1;
}
