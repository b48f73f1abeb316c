// Learns features from a folder of photographs without labels, within 4 GiB of
// memory.
//
//   pretrain_folder PHOTOS RUN EPOCHS
//
// A line of progress goes on while it trains; RUN then holds the log,
// checkpoints, report.html and trunk.safetensors, which saccade-eval,
// saccade-embed and embed_and_search take. Stopped with Ctrl-C, the same
// command goes on. It ends with
//   The network is in RUN/trunk.safetensors
#include <saccade/saccade.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

using namespace saccade;

int main(int argc, char** argv) try {
  if (argc != 4) return std::puts("usage: pretrain_folder PHOTOS RUN EPOCHS"), 2;

  const ssl::TrunkInfo info{.trunk = "y_200mf", .size = 64};
  const int batch = 32;
  const auto make = [&] {
    return std::make_unique<ssl::SwAV>(nn::trunk(info.trunk),
                                       ssl::SwAVOptions{.prototypes = 128, .hidden = 512, .dim = 64});
  };
  const data::Source photos = data::folder(argv[1]);
  const data::MultiCrop crops = data::multi_crop({{2, 64, {.14f, 1}}, {4, 32, {.05f, .14f}}});
  data::Loader loader(photos, crops, {.batch = batch});
  const auto model = make();
  const optim::Recipe recipe = optim::larc_sgd();

  const std::string planned =
      ssl::keep_budget({.objective = make, .crops = crops.segments(batch), .batch = batch, .recipe = recipe},
                       model->trunk(), int64_t{4} << 30);

  const ssl::RunFolder folder(argv[2]);
  ssl::RunReporter reporter(folder, {.title = "SwAV on " + photos.name, .epochs = std::atoi(argv[3])});
  reporter.say(photos.summary);
  reporter.say(planned);
  ssl::Trainer trainer(*model, recipe, {.epochs = std::atoi(argv[3]), .lr = 0.075f, .carried = info.metadata()});
  if (reporter.run(trainer, loader).interrupted) return 130;
  ssl::save_trunk(folder.trunk(), model->trunk(), nn::Names::torchvision, info);
  reporter.say("The network is in " + folder.trunk().string());
} catch (const std::exception& error) {
  std::fprintf(stderr, "pretrain_folder: %s\n", error.what());
  return 1;
}
