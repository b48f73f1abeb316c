#pragma once

#include <saccade/core/batch_upload.h>
#include <saccade/core/dist/communicator.h>
#include <saccade/nn/optim/optimizer.h>
#include <saccade/ssl/train/health.h>
#include <saccade/ssl/train/objective.h>
#include <saccade/ssl/train/step.h>

#include <concepts>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace saccade::ssl {

/// Where a trainer's batches come from: data::Loader, or anything with the same three functions. Batch number i must be
/// a function of i and, where the source has one, of its state: that makes resuming exact.
struct BatchSource {
  std::function<Batch()> next;                  ///< the next batch, endlessly
  std::function<void(int64_t iteration)> seek;  ///< makes that batch the next
  int64_t batches_per_epoch = 0;
  /// What the source found out on the way that its batches depend on, as UTF-8 text for a checkpoint, and its way back,
  /// before seek(). Empty where there is nothing of the kind.
  std::function<std::string()> state = {};
  std::function<void(const std::string& state)> restore = {};
  /// Takes what the sources of all processes found out, as state() said there, into its own.
  std::function<void(const std::vector<std::string>& states)> merge = {};

  BatchSource(std::function<Batch()> next, std::function<void(int64_t)> seek, int64_t batches_per_epoch)
      : next(std::move(next)), seek(std::move(seek)), batches_per_epoch(batches_per_epoch) {}
  template <class Loader>
  requires requires(Loader& l) {
    { l.next() } -> std::same_as<Batch>;
    l.seek(int64_t{});
    l.batches_per_epoch();
  }
  BatchSource(Loader& loader)  // NOLINT(google-explicit-constructor): a loader is a source
      : BatchSource([&loader] { return loader.next(); }, [&loader](int64_t i) { loader.seek(i); },
                    loader.batches_per_epoch()) {
    if constexpr (requires { loader.restore(loader.state()); }) {
      state = [&loader] { return loader.state(); };
      restore = [&loader](const std::string& text) { loader.restore(text); };
    }
    if constexpr (requires { loader.merge({loader.state()}); })
      merge = [&loader](const std::vector<std::string>& texts) { loader.merge(texts); };
  }
};

struct TrainerOptions {
  int64_t epochs = 0;      ///< length of the run in passes over the source, or
  int64_t iterations = 0;  ///< its length in iterations, which wins

  /// A run that goes on keeps the length in iterations that it was started with, whatever its epochs come to by now.
  bool keep_length = false;

  float lr = 0.6f;               ///< at the top of the schedule
  float final_lr_ratio = 1e-3f;  ///< the end of the cosine, as a share of lr
  float warmup_start_ratio = 0.f;
  int64_t warmup_iterations = 0;

  /// @name Memory and speed; see StepOptions
  /// @{
  DType precision = DType::f32;
  bool fuse_optimizer = false;
  int64_t accumulate = 1;  ///< iteration i takes the source's batches from i * accumulate on
  float clip_norm = 0.f;
  optim::LossScaleOptions loss_scale = {};  ///< of f16
  /// @}

  /// The processes that train together; null: this one alone. Each is given its share of the source's batches (see
  /// dist::share_of), and the same of everything else; a run's folder is one that all of them see, and number 0 alone
  /// writes to it and evaluates. What a process says to observers is of all of them.
  std::shared_ptr<dist::Communicator> ranks = {};
  /// Successive processes whose batch norms take their statistics together: 0: all; 1: each its own. (SEER: 64.)
  int statistics_ranks = 0;

  int64_t checkpoint_every = 0;  ///< iterations; 0: each epoch. The end and an interruption write one in any case
  int64_t keep_checkpoints = 2;
  /// What a checkpoint carries beside the training, for whoever has nothing but it: see TrunkInfo::metadata().
  std::map<std::string, std::string> carried = {};
  bool monitor = true;
  HealthOptions health = {};  ///< for a long run: fit() takes what suits its length

  /// Numbers measured on the way, e.g. {"kNN", 0.861}: called every `evaluate_every` iterations and at the end.
  /// Of several processes, each of which must be given something here, the first does so while the others wait.
  std::function<std::vector<std::pair<std::string, double>>(int64_t iteration)> evaluate = {};
  int64_t evaluate_every = 0;  ///< iterations; 0: never on the way
};

/// One iteration, as reports see it.
struct StepReport {
  int64_t iteration = 0, iterations = 0, epoch = 0;
  int64_t images = 0;  ///< of all batches of the iteration
  float loss = 0, lr = 0;
  double seconds = 0, waiting_seconds = 0;  ///< of the whole iteration; for its images
};

/// What reports hang on to: any of these may be empty.
struct Observer {
  std::function<void(const StepReport&)> on_step = {};
  std::function<void(const HealthReading&)> on_health = {};
  std::function<void(const HealthMessage&)> on_message = {};
  std::function<void(int64_t iteration, const std::vector<std::pair<std::string, double>>&)> on_evaluation = {};
  std::function<void(const std::string& sentence)> on_notice = {};  ///< resumed, checkpoint written, stopped
};

struct FitResult {
  int64_t iterations = 0;    ///< done, over all sittings
  bool interrupted = false;  ///< by a signal (see StopSignal), before the end
};

/// The training loop. A run is resumed when its folder holds a checkpoint, and gives the bits that it would have given
/// without the interruption.
///
/// In f16 losses are scaled (see optim::LossScale): an iteration in which a gradient overflows is counted, told of as a
/// notice, and updates nothing.
class Trainer {
 public:
  /// @param objective  must outlive the trainer
  Trainer(Objective& objective, const optim::Recipe& recipe, TrainerOptions options);

  /// Reports to be told; the observer is copied.
  void observe(Observer observer) { observers_.push_back(std::move(observer)); }

  /// Trains to the end, or until a signal asks to stop; then a checkpoint is written first.
  /// @param folder  of the run; checkpoints go to folder/checkpoints. Empty: nothing is written
  /// Throws Error when the loss is no longer finite, leaving folder/not-finite.safetensors to look at; before that
  /// step's update, so that the model is still finite. (When the optimiser is fused or several batches make one
  /// iteration: before the update as well, for the losses are looked at before the backward that leads to it.) Throws
  /// also when a loss scale falls so low that f16 cannot hold the gradients; and whatever the source throws, after a
  /// checkpoint of all that was done before.
  FitResult fit(BatchSource source, const std::filesystem::path& folder = {});

  /// How the metrics of its health monitor are judged and read.
  std::vector<MetricGuide> metric_guides() const { return HealthMonitor(objective_.health(), {}).guides(); }

  /// The learning rate of an iteration of a run of that length.
  float learning_rate(int64_t iteration, int64_t iterations) const;

 private:
  StepOptions step_options() const;
  int rank() const { return options_.ranks ? options_.ranks->rank() : 0; }
  bool several() const { return options_.ranks && options_.ranks->size() > 1; }
  /// Whether any process was asked to stop.
  bool stop_requested() const;
  /// Lets all sources know what each has found out.
  void share_state(const BatchSource& source) const;
  /// Tells the observers what the monitor sees; throws when the loss is not finite.
  void look_at(int64_t iteration, float loss, int64_t images, const std::filesystem::path& folder);
  void step(std::span<const Batch> batches, double waited_seconds, const std::filesystem::path& folder,
            const Progress& progress);
  void evaluate(int64_t iteration);
  void save(const BatchSource& source, const std::filesystem::path& folder, int64_t iteration,
            int64_t iterations) const;
  int64_t resume(const BatchSource& source, const std::filesystem::path& folder, int64_t& iterations);
  void notice(const std::string& sentence) const;

  Objective& objective_;
  TrainerOptions options_;
  std::unique_ptr<dist::Communicator> statistics_;
  std::unique_ptr<optim::Optimizer> optimizer_;
  BatchUpload upload_;
  std::optional<optim::LossScale> loss_scale_;
  std::unique_ptr<HealthMonitor> monitor_;
  std::vector<Observer> observers_;
};

}  // namespace saccade::ssl
