#pragma once

#include <saccade/data/multi_crop.h>
#include <saccade/data/source.h>
#include <saccade/ssl/methods/methods.h>
#include <saccade/ssl/train/planner.h>
#include <saccade/ssl/train/trainer.h>

#include <cstdint>
#include <memory>
#include <string>

namespace saccade::vision {

/// All that a training on images is made of, by the names that the flags of saccade-pretrain have. A value: choose()
/// fills in what nobody gave.
struct Training {
  ssl::Method method = ssl::methods().front();  ///< copies share its settings: see ssl::Method
  std::string trunk = "y_400mf";                ///< see nn::trunk()
  std::string crops = method.crops;             ///< see data::parse_crops()
  data::MultiCrop views = {};                   ///< how they are changed; its own `crops` are not looked at
  int size = 0;                                 ///< pixels a side of whole images, later; 0: that of the first crops
  int batch = 128;                              ///< images, of all processes together
  std::string optimizer = method.optimizer;     ///< "larc" or "adamw"
  float weight_decay = method.weight_decay;
  DType momentum = DType::f32;  ///< what LARC remembers: f32 or bf16
  uint64_t seed = 0;
  int workers = 0;
  ssl::TrainerOptions options = {.epochs = 100};  ///< length, learning rate, precision, batches an iteration

  /// `views` with `crops`. Throws Error when they are none.
  data::MultiCrop multi_crop() const;
  /// Pixels a side at which the network is shown whole images: ssl::TrunkInfo::size.
  int shown_size() const;
  optim::Recipe recipe() const;
  /// One step of it on images of so many channels, for a Planner: of several processes, that of one.
  ssl::StepSpec step(int channels, Device device) const;
  /// On the current device.
  std::unique_ptr<ssl::Objective> make_objective(std::shared_ptr<nn::Trunk> trunk) const;
  /// Length of an epoch, and of all of it, iterations.
  int64_t per_epoch(int64_t images) const;
  int64_t iterations(int64_t images) const;
  /// What the method's defaults follow from.
  /// @param features  nn::Trunk::out_channels()
  ssl::RunFacts facts(int64_t images, int64_t features) const;
};

}  // namespace saccade::vision
