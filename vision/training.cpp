#include <saccade/core/dist/ranks.h>
#include <saccade/data/loader.h>
#include <saccade/vision/training.h>

#include <algorithm>

namespace saccade::vision {

data::MultiCrop Training::multi_crop() const {
  data::MultiCrop made = views;
  made.crops = data::multi_crop(data::parse_crops(crops)).crops;
  return made;
}

int Training::shown_size() const { return size > 0 ? size : multi_crop().crops.front().size; }

optim::Recipe Training::recipe() const {
  return optimizer == "larc" ? optim::larc_sgd({.weight_decay = weight_decay, .momentum_dtype = momentum})
                             : optim::adamw({.weight_decay = weight_decay});
}

ssl::StepSpec Training::step(int channels, Device device) const {
  const int64_t accumulate = options.accumulate;
  dist::Communicator* ranks = options.ranks.get();
  const int64_t own = ranks == nullptr ? batch : dist::share_of(batch, 0, ranks->size()).images();
  return {.objective = method.dearest(trunk),
          .crops = multi_crop().segments(own),
          .batch = own,
          .channels = channels,
          .recipe = recipe(),
          .options = {.precision = options.precision,
                      .fuse_optimizer = accumulate == 1 && options.precision != DType::f16,
                      .accumulate = accumulate,
                      .ranks = ranks,
                      .statistics = options.statistics_ranks == 1 ? nullptr : ranks},
          // On a GPU: the numbers of an iteration, and the bytes of one batch more.
          .loader_batches =
              device == Device::cpu ? data::batches_in_memory({.batch = batch, .workers = workers}) : accumulate + 1};
}

std::unique_ptr<ssl::Objective> Training::make_objective(std::shared_ptr<nn::Trunk> network) const {
  return method.make(
      std::move(network), [this] { return nn::trunk(trunk, seed); }, seed);
}

int64_t Training::per_epoch(int64_t images) const { return std::max<int64_t>(1, images / batch / options.accumulate); }

int64_t Training::iterations(int64_t images) const {
  return options.iterations > 0 ? options.iterations : options.epochs * (images / batch) / options.accumulate;
}

ssl::RunFacts Training::facts(int64_t images, int64_t features) const {
  return {.images = batch * options.accumulate,
          .features = features,
          .data = images,
          .per_epoch = per_epoch(images),
          .iterations = iterations(images),
          .optimizer = optimizer};
}

}  // namespace saccade::vision
