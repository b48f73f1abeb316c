// An augmentation of your own: a view is a function from an image and random
// numbers to crops.
//
//   own_augmentation FOLDER EPOCHS
//
// Trains on FOLDER with two crops an image, turned by a random number of
// quarters each, as suits images that have no upright: from the air, of tissue,
// of cells. It prints a loss a step, and the epochs' mean:
//   epoch 1: mean loss 3.912
#include <saccade/saccade.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

using namespace saccade;

constexpr int kSide = 64, kBatch = 16;

/// A square image turned by 90 degrees, `quarters` times, every channel.
data::Planes turned(const data::Planes& from, int64_t quarters) {
  data::Planes to = from;
  const int last = from.width - 1;
  for (; quarters > 0; --quarters) {
    const data::Planes before = to;
    for (int c = 0; c < to.channels; ++c)
      for (int y = 0; y <= last; ++y)
        for (int x = 0; x <= last; ++x) to.plane(c)[y * to.width + x] = before.plane(c)[(last - x) * to.width + y];
  }
  return to;
}

/// Two crops of a quarter of the image or more, each turned. All chance comes
/// from `random`, which is the image's own: so batches are the same for any
/// number of workers.
data::View turned_crops() {
  return {.crops = {{2, kSide, kSide}},
          .make = [](const data::Image& image, Philox& random, const data::View::Put& put) {
            for (int crop = 0; crop < 2; ++crop) {
              const int shorter = std::min(image.width, image.height);
              const int side = shorter / 2 + static_cast<int>(random.below(static_cast<uint32_t>(shorter / 2 + 1)));
              const int top = static_cast<int>(random.below(static_cast<uint32_t>(image.height - side + 1)));
              const int left = static_cast<int>(random.below(static_cast<uint32_t>(image.width - side + 1)));
              data::Planes planes;
              data::resized_crop(image, {top, left, side, side}, kSide, kSide, false, planes);
              put(turned(planes, random.below(4)));
            }
          }};
}

int main(int argc, char** argv) try {
  if (argc != 3) return std::puts("usage: own_augmentation FOLDER EPOCHS"), 2;

  ssl::SwAV model(nn::regnet("y_200mf"), {.prototypes = 32, .hidden = 256, .dim = 64});
  data::Loader loader(data::folder(argv[1]), turned_crops(), {.batch = kBatch});
  ssl::Trainer trainer(model, optim::larc_sgd(), {.epochs = std::atoi(argv[2]), .lr = 0.05f});
  double sum = 0;
  trainer.observe({.on_step = [&](const ssl::StepReport& step) {
    std::printf("%ld: %.3f\n", step.iteration, static_cast<double>(step.loss));
    sum += static_cast<double>(step.loss);
    const int64_t per_epoch = loader.batches_per_epoch();
    if ((step.iteration + 1) % per_epoch != 0) return;
    std::printf("epoch %ld: mean loss %.3f\n", step.epoch + 1, sum / static_cast<double>(per_epoch));
    sum = 0;
  }});
  trainer.fit(loader);
} catch (const std::exception& error) {
  std::fprintf(stderr, "own_augmentation: %s\n", error.what());
  return 1;
}
