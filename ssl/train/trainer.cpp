#include <fmt/format.h>
#include <saccade/core/batch_upload.h>
#include <saccade/core/dist/ranks.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/core/layer.h>
#include <saccade/nn/schedule.h>
#include <saccade/ssl/train/stop_signal.h>
#include <saccade/ssl/train/trainer.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

namespace saccade::ssl {

namespace {

/// A loss scaled by less is scaled for no reason of size: some gradient is infinite whatever the scale.
constexpr float kLeastLossScale = 1.f / 1024;

/// The names of tensors at the beginning of a sentence: "Embeddings, scores and assignments".
std::string in_words(const std::vector<NamedTensor>& tensors) {
  std::string words;
  for (size_t i = 0; i < tensors.size(); ++i)
    words += (i == 0 ? "" : i + 1 < tensors.size() ? ", " : " and ") + tensors[i].name;
  words[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(words[0])));
  return words;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

Trainer::Trainer(Objective& objective, const optim::Recipe& recipe, TrainerOptions options)
    : objective_(objective),
      options_(std::move(options)),
      optimizer_(recipe.build(objective.trained_parameters())),
      upload_(objective.device()) {
  if (options_.epochs < 1 && options_.iterations < 1) fail("Trainer: neither epochs nor iterations to train for");
  if (several() && options_.statistics_ranks != 1) {
    const int together = options_.statistics_ranks > 0 ? options_.statistics_ranks : options_.ranks->size();
    statistics_ = options_.ranks->split(rank() / together);
  }
  check(step_options());
  if (options_.precision == DType::f16) loss_scale_.emplace(options_.loss_scale);
  optimizer_->reserve();  // in the arena right behind the parameters, where nothing comes and goes
}

StepOptions Trainer::step_options() const {
  return {.precision = options_.precision,
          .fuse_optimizer = options_.fuse_optimizer,
          .accumulate = options_.accumulate,
          .clip_norm = options_.clip_norm,
          .ranks = options_.ranks.get(),
          .statistics = statistics_.get()};
}

bool Trainer::stop_requested() const {
  if (!several()) return StopSignal::requested();
  int64_t asked = 0;
  for (const auto& of_rank : dist::numbers_of_all(*options_.ranks, {StopSignal::requested() ? 1 : 0}))
    asked += of_rank.front();
  return asked > 0;
}

void Trainer::share_state(const BatchSource& source) const {
  if (!several() || !source.state || !source.merge) return;
  const std::vector<std::string> states = dist::texts_of_all(*options_.ranks, source.state());
  if (std::ranges::any_of(states, [&](const std::string& s) { return s != states.front(); })) source.merge(states);
}

float Trainer::learning_rate(int64_t iteration, int64_t iterations) const {
  const double base = double{options_.lr};
  return optim::WarmupCosine{.base = base,
                             .start = base * double{options_.warmup_start_ratio},
                             .final = base * double{options_.final_lr_ratio},
                             .warmup = options_.warmup_iterations,
                             .total = iterations}(iteration);
}

FitResult Trainer::fit(BatchSource source, const std::filesystem::path& folder) {
  // The model's work is done where the model lies; what files and monitor are told lies here, whatever scope the caller
  // is in.
  const DeviceScope here(Device::cpu);
  const int64_t batches = source.batches_per_epoch, accumulate = options_.accumulate;
  if (batches < 1) fail("Trainer: the source has no whole batch");
  const int64_t per_epoch = std::max<int64_t>(batches / accumulate, 1);
  int64_t iterations = options_.iterations > 0 ? options_.iterations : options_.epochs * batches / accumulate;
  if (iterations < 1)
    fail(fmt::format("Trainer: {} batches are fewer than the {} of one iteration", options_.epochs * batches,
                     accumulate));
  const int64_t checkpoint_every = options_.checkpoint_every > 0 ? options_.checkpoint_every : per_epoch;
  const StopSignal stop;

  if (options_.monitor)
    monitor_ = std::make_unique<HealthMonitor>(objective_.health(), options_.health.for_run(iterations, per_epoch));
  const int64_t first = resume(source, folder, iterations);
  if (several()) {
    for (const auto& there = dist::numbers_of_all(*options_.ranks, {first}); const auto& of_rank : there)
      if (of_rank.front() != there.front().front())
        fail(fmt::format(
            "one process goes on from iteration {}, another from {}: the run's folder ({}) must be one that "
            "all processes see",
            there.front().front(), of_rank.front(), folder.string()));
    for (const NamedTensor& t : objective_.named_tensors()) options_.ranks->broadcast(t.tensor);
  }
  source.seek(first * accumulate);
  objective_.train();
  int64_t saved = first;
  for (int64_t iteration = first; iteration < iterations; ++iteration) {
    if (stop_requested()) {
      save(source, folder, iteration, iterations);
      notice(fmt::format(
          "Stopped after {} of {} iterations. {}", iteration, iterations,
          folder.empty() ? "Nothing was kept: the run has no folder." : "The same command goes on from here."));
      return {.iterations = iteration, .interrupted = true};
    }
    const auto start = std::chrono::steady_clock::now();
    std::vector<Batch> batches;
    try {
      for (int64_t i = 0; i < accumulate; ++i) {
        if ((iteration * accumulate + i) % source.batches_per_epoch == 0) share_state(source);
        batches.push_back(upload_(source.next()));
      }
    } catch (const OutOfMemory&) {
      throw;
    } catch (const Error&) {  // of the images: the network is as good as it was
      if (iteration > saved && !several()) save(source, folder, iteration, iterations);
      throw;
    }
    step(batches, seconds_since(start), folder,
         {.iteration = iteration, .iterations = iterations, .per_epoch = per_epoch});
    const int64_t done = iteration + 1;
    if (options_.evaluate_every > 0 && done % options_.evaluate_every == 0 && done < iterations) evaluate(done);
    if (done % checkpoint_every == 0 || done == iterations) {
      save(source, folder, done, iterations);
      saved = done;
    }
  }
  evaluate(iterations);
  return {.iterations = iterations, .interrupted = false};
}

void Trainer::look_at(int64_t iteration, float loss, int64_t images, const std::filesystem::path& folder) {
  if ((!monitor_ || !monitor_->due(iteration)) && std::isfinite(loss)) return;
  if (const dist::Ranks* ranks = dist::current_ranks()) images = ranks->images;
  std::vector<NamedTensor> seen = seen_by_all(objective_);
  for (NamedTensor& t : seen) t.tensor = t.tensor.to(Device::cpu);
  std::vector<HealthMessage> messages;
  if (monitor_) messages = monitor_->observe(iteration, loss, images, seen);
  for (const Observer& o : observers_) {
    if (o.on_health && monitor_) o.on_health(monitor_->last());
    if (o.on_message)
      for (const HealthMessage& m : messages) o.on_message(m);
  }
  if (std::isfinite(loss)) return;
  std::string where;
  if (!folder.empty() && !seen.empty()) {
    const auto path = folder / "not-finite.safetensors";
    if (rank() == 0) io::save_safetensors(path, seen, {{"iteration", std::to_string(iteration)}});
    where = fmt::format(" {} of that batch are in {}.", in_words(seen), path.string());
  }
  const SettingNames& names = options_.health.names;
  fail(fmt::format("the loss is {} at iteration {}: training has diverged{}. Halve the learning rate ({}).{}", loss,
                   iteration,
                   options_.precision == DType::f16
                       ? fmt::format(", or a layer's result is too large for f16 ({} bf16 holds it)", names.precision)
                       : "",
                   names.lr, where));
}

void Trainer::step(std::span<const Batch> batches, double waited_seconds, const std::filesystem::path& folder,
                   const Progress& progress) {
  const int64_t iteration = progress.iteration, iterations = progress.iterations;
  const auto start = std::chrono::steady_clock::now();
  int64_t images = 0;
  for (const Batch& batch : batches) images += batch.size();
  const float lr = learning_rate(iteration, iterations);
  const StepResult result =
      train_step(objective_, *optimizer_, batches, progress, lr, step_options(), loss_scale_ ? &*loss_scale_ : nullptr,
                 [&](float loss) { look_at(progress.iteration, loss, images, folder); });
  if (result.skipped) {
    notice(fmt::format("A gradient overflowed at iteration {}: nothing was updated, and the loss scale is now {:g}.",
                       iteration, loss_scale_->value()));
    if (loss_scale_->value() < kLeastLossScale)
      fail(
          fmt::format("gradients overflow even with losses scaled by {:g} (iteration {}): f16 cannot hold them. Take a "
                      "smaller learning rate ({}), or bf16 ({}), whose range is that of f32.",
                      2 * loss_scale_->value(), iteration, options_.health.names.lr, options_.health.names.precision));
  }

  const StepReport report{.iteration = iteration,
                          .iterations = iterations,
                          .epoch = batches.front().epoch,
                          .images = result.images,
                          .loss = result.loss,
                          .lr = lr,
                          .seconds = waited_seconds + seconds_since(start),
                          .waiting_seconds = waited_seconds};
  for (const Observer& o : observers_)
    if (o.on_step) o.on_step(report);
}

void Trainer::evaluate(int64_t iteration) {
  if (!options_.evaluate) return;
  std::vector<std::pair<std::string, double>> numbers;
  if (rank() == 0) numbers = options_.evaluate(iteration);
  if (several()) options_.ranks->barrier();
  if (rank() != 0) return;
  objective_.train();
  for (const Observer& o : observers_)
    if (o.on_evaluation) o.on_evaluation(iteration, numbers);
}

void Trainer::notice(const std::string& sentence) const {
  for (const Observer& o : observers_)
    if (o.on_notice) o.on_notice(sentence);
}

void Trainer::save(const BatchSource& source, const std::filesystem::path& folder, int64_t iteration,
                   int64_t iterations) const {
  share_state(source);
  if (folder.empty() || rank() != 0) return;
  std::vector<NamedTensor> tensors;
  const auto take = [&](const char* part, const std::vector<NamedTensor>& from) {
    for (const NamedTensor& t : from) tensors.push_back({part + t.name, t.tensor});
  };
  take("model.", objective_.named_tensors());
  take("optimizer.", optimizer_->state());
  nlohmann::json state = {{"iteration", iteration}, {"iterations", iterations}, {"accumulate", options_.accumulate}};
  if (source.state) state["source"] = source.state();
  if (!options_.carried.empty()) state["carried"] = options_.carried;
  if (loss_scale_) state["loss_scale"] = {loss_scale_->value(), loss_scale_->good_steps()};
  if (monitor_) {
    take("monitor.", monitor_->state_tensors());
    state["monitor"] = monitor_->state();
  }
  const io::SavedCheckpoint saved = io::save_checkpoint(folder / "checkpoints", iteration, tensors, state.dump(),
                                                        static_cast<int>(options_.keep_checkpoints));
  for (const std::string& warning : saved.warnings) notice(warning);
}

int64_t Trainer::resume(const BatchSource& source, const std::filesystem::path& folder, int64_t& iterations) {
  if (folder.empty()) return 0;
  std::vector<std::string> problems;
  const auto checkpoint = io::latest_checkpoint(folder / "checkpoints", problems);
  for (const std::string& problem : problems) notice(problem);
  if (!checkpoint) return 0;
  const auto state = nlohmann::json::parse(checkpoint->state);
  const std::string where = checkpoint->path.string();
  if (options_.keep_length) iterations = state.at("iterations").get<int64_t>();
  if (state.at("iterations") != iterations)
    fail(
        fmt::format("{} is of a run of {} iterations, and this one has {}: its schedule would be another. Give the "
                    "same length ({}), or another folder.",
                    where, state.at("iterations").get<int64_t>(), iterations, options_.health.names.epochs));

  if (const auto before = state.value("accumulate", int64_t{1}); before != options_.accumulate)
    fail(
        fmt::format("{} is of a run of {} batches an iteration, and this one has {}. Give the same number ({}), or "
                    "another folder.",
                    where, before, options_.accumulate, options_.health.names.accumulate));

  // Everything is checked before anything is changed.
  std::map<std::string, std::vector<NamedTensor>> parts;
  for (const NamedTensor& t : checkpoint->tensors) {
    const size_t dot = t.name.find('.');
    parts[t.name.substr(0, dot)].push_back({t.name.substr(dot + 1), t.tensor});
  }
  const std::vector<NamedTensor> own = objective_.named_tensors();
  std::map<std::string, Tensor> given;
  for (const NamedTensor& t : parts["model"]) given[t.name] = t.tensor;
  for (const NamedTensor& t : own)
    if (!given.contains(t.name) || given[t.name].shape() != t.tensor.shape() || given.size() != own.size())
      fail(fmt::format("{} is of another model: {} {} does not match. Give the same options, or another folder.", where,
                       t.name, to_string(t.tensor.shape())));
  if (source.restore && state.contains("source")) source.restore(state.at("source").get<std::string>());
  optimizer_->load_state(parts["optimizer"]);
  for (const NamedTensor& t : own) t.tensor.copy_from(given[t.name]);
  if (monitor_ && state.contains("monitor"))
    monitor_->load_state(state.at("monitor").get<std::string>(), parts["monitor"]);
  if (loss_scale_ && state.contains("loss_scale"))
    loss_scale_->restore(state.at("loss_scale").at(0).get<float>(), state.at("loss_scale").at(1).get<int64_t>());
  const auto iteration = state.at("iteration").get<int64_t>();
  notice(fmt::format("Going on from {} of {} iterations, from {}.", iteration, iterations, where));
  return iteration;
}

}  // namespace saccade::ssl
