/// Learns features from images that nobody labelled: a folder of photos. Everything of a run lies in its
/// folder; the same command goes on with a run that was stopped.
#include <saccade/core/bytes.h>
#include <saccade/saccade.h>

#include <csignal>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "flag_checks.h"
#include "images.h"
#include "method_flags.h"
#include "run_data.h"
#include "run_settings.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string data, run, trunk = "y_400mf", crops, optimizer;
  std::string names = "torchvision", knn_data, precision = "f32", momentum = "f32", memory_budget = "none";
  std::string init, view = "middle";
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};
  int batch = 128;
  int64_t checkpoint_every = 0, knn_every = 5;
  uint64_t seed = 0;
  float weight_decay = 0.f;
  double max_unreadable = data::LoaderOptions{}.max_unreadable;
  bool fresh = false, allow_partial = false;
  data::MultiCrop views;
  ssl::Method method;
  ssl::TrainerOptions train = {.epochs = 100};
  ssl::KnnOptions knn;
  program::ImageFlags images;
  program::RunData run_data;
  program::Machine machine;

  void flags(CLI::App& app) {
    crops = method.crops;
    optimizer = method.optimizer;
    weight_decay = method.weight_decay;
    const auto add = [&](const char* group, const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->group(group)->capture_default_str();
    };
    const char* group = "Method";
    program::add_method_flag(app, method, group);
    for (const ssl::Setting& setting : method.settings) program::add_setting(app, setting, group);
    group = "Run";
    add(group, "--run", run, "Folder of the run: settings, log, checkpoints, trunk.safetensors, report.html")
        ->required();
    app.add_flag("--fresh", fresh, "Start over: remove what an earlier run left in the folder")
        ->configurable(false)
        ->group(group);
    run_data.flags(app);
    add(group, "--checkpoint-every", checkpoint_every, "Iterations between checkpoints; 0: each epoch")
        ->check(program::at_least(0));
    add(group, "--keep", train.keep_checkpoints, "Checkpoints that are kept")->check(program::at_least(1));
    add(group, "--seed", seed, "Of first weights, order and crops")->check(program::not_negative());
    add(group, "--names", names, "Whose names trunk.safetensors has: torchvision, timm, vissl, classy, pycls, swav");
    group = "Images";
    add(group, "--data", data,
        "Folder of images, all below it count (labels are not used); or IDX files, or a CSV of paths")
        ->required();
    images.flags(app);
    add(group, "--max-unreadable", max_unreadable,
        "Share of the images that may be unreadable: the run stops at more, once 100 were tried")
        ->check(program::between(0, 1));
    add(group, "--crops", crops,
        "COUNTxPIXELS[@AREA-AREA][,SETTING=VALUE...] joined by +; the first two crops are those that teach; settings "
        "are flip, jitter, brightness, contrast, saturation, hue, gray, blur, solarize, sigma, threshold");
    add(group, "--flip", views.flip_p, "Probability of a mirror image")->check(program::between(0, 1));
    add(group, "--jitter", views.jitter_p, "Probability of colour jitter")->check(program::between(0, 1));
    add(group, "--brightness", views.brightness, "Strength of colour jitter; half of it for small images")
        ->check(program::between(0, 10));
    add(group, "--contrast", views.contrast, "Likewise")->check(program::between(0, 10));
    add(group, "--saturation", views.saturation, "Likewise")->check(program::between(0, 10));
    add(group, "--hue", views.hue, "Largest turn of the colour circle, up to 0.5")->check(program::between(0, 0.5));
    add(group, "--gray", views.grayscale_p, "Probability of grayscale")->check(program::between(0, 1));
    add(group, "--blur", views.blur_p, "Probability of blur; 0 for images below about 64 pixels")
        ->check(program::between(0, 1));
    add(group, "--mean", mean, "Of red, green and blue in [0, 1]")->expected(3)->check(program::colour_mean());
    add(group, "--std", std, "Their standard deviations")->expected(3)->check(program::colour_deviation());
    add(group, "--view", view, "How a whole image is shown where the network is used: see saccade-embed --help")
        ->check(CLI::IsMember({"middle", "whole"}))
        ->default_str("whole if the images have the size of the first crops, else middle");
    group = "Model";
    add(group, "--trunk", trunk, "y_200mf ... y_128gf, x_..., resnet50; y_400mf:stem=cifar for 32-pixel images");
    add(group, "--init", init,
        "Weights to start from, as --weights of saccade-embed takes them: the trunk, and what the method has behind it "
        "where it is there and fits; without --trunk, --mean and --std those of the weights are taken");
    app.add_flag("--allow-partial", allow_partial, "Start from weights that do not fit the trunk in all places")
        ->group(group);
    group = "Training";
    add(group, "--epochs", train.epochs, "Passes over the images")->check(program::between(1, 1e6));
    add(group, "--batch", batch, "Images an iteration")->check(program::between(1, 1e6));
    add(group, "--optimizer", optimizer, "larc (SGD) or adamw")->check(CLI::IsMember({"larc", "adamw"}));
    add(group, "--lr", train.lr, "Learning rate at its top")->default_str(method.lr.text)->check(program::above_zero());
    add(group, "--warmup", train.warmup_iterations, "Iterations")
        ->default_str(method.warmup.text)
        ->check(program::at_least(0));
    add(group, "--weight-decay", weight_decay, "Of all parameters")->check(program::between(0, 1));
    group = "Memory";
    add(group, "--memory-budget", memory_budget,
        "Of the whole process, or of the GPU's memory, e.g. 14GiB: the step is planned to fit (what does not is "
        "computed twice), the optimizer "
        "runs within backward where it can, and the budget is kept");
    program::type_name(add(group, "--precision", precision, "f32, bf16 or f16: of activations and products"));
    add(group, "--momentum", momentum, "f32, or bf16 for half the memory of larc's momentum")
        ->check(CLI::IsMember({"f32", "bf16"}));
    add(group, "--accumulate", train.accumulate, "Batches an iteration, taken together: more than memory holds")
        ->check(program::between(1, 1e6));
    group = "Watching";
    add(group, "--knn-data", knn_data,
        "Labelled images (a folder a class, perhaps in train/ and test/; or a CSV of path and label): kNN accuracy on "
        "the way");
    add(group, "--knn-every", knn_every, "Epochs between kNN tests")->check(program::between(1, 1e6));
    add(group, "--knn-neighbours", knn.neighbours, "That vote")->check(program::at_least(1));
    add(group, "--knn-temperature", knn.temperature, "Of their votes")->check(program::above_zero());
    machine.flags(app);
    app.set_config("--config", "", "Read flags from this TOML file; those given here win")->group("Run");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.footer(
        "Example:\n  saccade-pretrain --data photos/ --run runs/photos --trunk y_400mf --epochs 100\n"
        "Stop it with Ctrl-C, a scheduler's SIGTERM, SIGUSR1 or SIGUSR2, or by closing the terminal: it writes a "
        "checkpoint and "
        "ends with status 130; `saccade-pretrain --run runs/photos` goes on. docs/training.md tells how to choose.");
  }
};

/// What may differ when a run goes on: nothing of it changes what is learned.
const std::set<std::string> kMayDiffer{"run",           "data",           "checkpoint-every",
                                       "keep",          "names",          "knn-data",
                                       "knn-every",     "knn-neighbours", "knn-temperature",
                                       "device",        "threads",        "workers",
                                       "memory-budget", "max-unreadable", "view"};

/// The weights to start from, if the run is at its start: the settings follow them.
std::optional<ssl::Weights> weights_to_start_from(CLI::App& app, Settings& s) {
  if (s.init.empty()) return std::nullopt;
  program::change(app, "--init", s.init, std::filesystem::absolute(s.init).lexically_normal().string());
  if (!s.fresh && ssl::RunFolder::holds_checkpoint(s.run)) return std::nullopt;
  ssl::Weights weights = program::read_weights(app, s.init);
  ssl::TrunkInfo info;
  info.take(weights.metadata, weights.file);
  for (const auto& [flag, value, found] : {std::tuple{"--mean", &s.mean, &info.mean}, {"--std", &s.std, &info.std}}) {
    if (app.get_option(flag)->count() > 0) continue;
    *value = *found;
    app.get_option(flag)->default_str(fmt::format("[{}]", fmt::join(*found, ",")));
  }
  if (app.get_option("--trunk")->count() == 0) program::change(app, "--trunk", s.trunk, ssl::trunk_of(weights));
  return weights;
}

int pretrain(CLI::App& app, Settings& s) {
  const Device device = s.machine.apply();
  const nn::Names names = program::of_flag("--names", s.names, [&] { return nn::names_of(s.names); });
  s.views.crops =
      program::of_flag("--crops", s.crops, [&] { return data::multi_crop(data::parse_crops(s.crops)).crops; });
  int64_t crops = 0;
  for (const data::CropSpec& spec : s.views.crops) crops += spec.count;
  if (crops < 2) throw Error(fmt::format("--crops {}: expected two crops at least, to compare", s.crops));
  const bool begins = s.fresh || !ssl::RunFolder::holds_checkpoint(s.run);  // else its settings are compared
  if (const int64_t each = s.method.crops_of_each; begins && each > 0 && crops != each)
    throw Error(
        fmt::format("--crops {}: {} takes {} crops of each image, not {}", s.crops, s.method.title, each, crops));
  const int64_t images = s.batch * s.train.accumulate;  // an iteration
  ssl::RunFacts facts{.images = images, .optimizer = s.optimizer};
  program::check_settings(s.method, facts);
  const int64_t budget = s.memory_budget == "none" ? 0 : program::of_flag("--memory-budget", s.memory_budget, [&] {
    return parse_bytes(s.memory_budget);
  });
  program::check_run_folder(s.run, s.data);
  program::check_data_is_there(app, s.run, s.data);
  const std::optional<ssl::Weights> start = weights_to_start_from(app, s);
  const bool plain_name = s.init.empty() && !s.trunk.starts_with("resnet") && s.trunk.find("in=") == std::string::npos;
  const data::Source source =
      data::open_images(s.data, s.images.options(plain_name ? 0 : program::channels_of(s.trunk)));
  const vision::RunImages run_images = s.run_data.compare(s.run, s.fresh, source, s.data);
  program::change(app, "--data", s.data, run_images.now.path);
  s.train.keep_length = run_images.now.was_changed;
  const int channels = source.channels;
  if (plain_name && channels == 1)  // gray images: a network with one channel
    program::change(app, "--trunk", s.trunk, s.trunk + (s.trunk.find(':') == std::string::npos ? ":in=1" : ",in=1"));
  const auto trunk = program::on(device, [&] { return nn::trunk(s.trunk, s.seed); });
  std::copy_n(s.mean.begin(), 3, s.views.mean.begin());
  std::copy_n(s.std.begin(), 3, s.views.std.begin());
  if (source.size() < s.batch)
    throw Error(fmt::format("--batch {}: more than the {} images of {}", s.batch, source.size(), source.name));
  const bool bytes = device == Device::cuda;  // a quarter travels to the GPU
  data::Loader loader(source, s.views,
                      {.batch = s.batch,
                       .workers = s.machine.workers,
                       .seed = s.seed,
                       .bytes = bytes,
                       .max_unreadable = s.max_unreadable});

  const int64_t per_epoch = std::max<int64_t>(1, loader.batches_per_epoch() / s.train.accumulate);
  const int64_t iterations = s.train.epochs * loader.batches_per_epoch() / s.train.accumulate;
  if (iterations < 1)
    throw Error(fmt::format("--accumulate {}: the {} batches of all epochs make no iteration", s.train.accumulate,
                            s.train.epochs * loader.batches_per_epoch()));
  facts.features = trunk->out_channels();
  facts.data = source.size();
  facts.per_epoch = per_epoch;
  facts.iterations = iterations;
  program::settle(app, s.method, facts);
  program::settle(app, "--lr", s.train.lr, static_cast<float>(s.method.lr.find(facts)));
  program::settle(app, "--warmup", s.train.warmup_iterations, static_cast<int64_t>(s.method.warmup.find(facts)));

  s.train.precision = program::type_of(s.precision);
  const bool fusible = s.train.accumulate == 1 && s.train.precision != DType::f16;
  s.train.fuse_optimizer = budget > 0 && fusible;
  const optim::Recipe recipe =
      s.optimizer == "larc"
          ? optim::larc_sgd({.weight_decay = s.weight_decay, .momentum_dtype = program::type_of(s.momentum)})
          : optim::adamw({.weight_decay = s.weight_decay});
  // As it would run under a budget, for advice if there is none and memory runs out.
  const ssl::StepSpec step{
      .objective = s.method.dearest(s.trunk),
      .crops = s.views.segments(s.batch),
      .batch = s.batch,
      .channels = channels,
      .recipe = recipe,
      .options = {.precision = s.train.precision, .fuse_optimizer = fusible, .accumulate = s.train.accumulate},
      // On a GPU: the numbers of an iteration, and the bytes of one batch more.
      .loader_batches = device == Device::cpu ? data::batches_in_memory(loader.options()) : s.train.accumulate + 1};
  std::string planned;
  if (budget > 0) planned = ssl::keep_budget(step, *trunk, budget);

  const std::shared_ptr<ssl::Objective> made = program::on(device, [&] {
    return s.method.make(
        trunk, [&] { return nn::trunk(s.trunk, s.seed); }, s.seed);
  });
  ssl::Objective& model = *made;
  ssl::InitReport started;
  if (start) started = ssl::init_from(model, *start, s.allow_partial);
  s.train.checkpoint_every = s.checkpoint_every;
  const int size = s.views.crops[0].size;
  if (app.get_option("--view")->count() == 0)
    program::settle(app, "--view", s.view, std::string(data::name_of(data::choose_view_rule(source, size))));
  const ssl::TrunkInfo info{s.trunk, size, s.mean, s.std, s.view};
  s.train.carried = info.metadata();
  std::string judged_by;
  ssl::RunReporter* reports = nullptr;  // once everything holds
  if (!s.knn_data.empty()) {
    program::change(app, "--knn-data", s.knn_data, data::absolute_path(s.knn_data));
    data::LabelledPair labelled = data::labelled_pair(s.knn_data, "", s.images.options(channels));
    judged_by = labelled.summary;
    s.train.evaluate_every = s.knn_every * per_epoch;
    s.train.evaluate = vision::knn_test({made, &made->result()}, info, std::move(labelled), s.knn,
                                        [&](const std::string& reason) { reports->say("kNN: left out: " + reason); });
  }
  s.train.health.names = program::flag_names(app);
  ssl::Trainer trainer(model, recipe, s.train);

  ssl::RunFolder folder(s.run);
  program::prepare(app, folder, s.fresh, kMayDiffer);
  run_images.store(folder);
  const auto settings = program::settings_of(app);
  ssl::RunReporter reporter(
      folder, {.title = fmt::format("{} on {}", s.method.title, source.name),
               .subtitle = fmt::format("{} ({} parameters, {} features), {} images", s.trunk, trunk->parameter_count(),
                                       trunk->out_channels(), source.size()),
               .epochs = s.train.epochs,
               .configuration = {settings.begin(), settings.end()},
               .unreadable = [&] {
                 std::vector<std::string> reasons;
                 for (const data::Failure& f : loader.failures()) reasons.push_back(f.reason);
                 return reasons;
               }});
  reports = &reporter;
  reporter.say(source.summary);
  if (!run_images.notice.empty()) reporter.say(run_images.notice);
  reporter.say(fmt::format("{} images, {} iterations an epoch; {}: {} parameters, {} features; {}lr {:.3g}",
                           source.size(), per_epoch, s.trunk, trunk->parameter_count(), trunk->out_channels(),
                           s.method.summary ? s.method.summary() + ", " : "", s.train.lr));
  for (const std::string& line : started.lines) reporter.say(line);
  if (!judged_by.empty()) reporter.say("kNN: " + judged_by);
  if (!planned.empty()) reporter.say(planned);
  ssl::BatchSource batches = loader;
  if (run_images.has_changed) batches.restore = {};  // what could not be read may have been mended: all are tried again
  const ssl::FitResult result =
      ssl::with_budget_advice(step, device, budget, [&] { return reporter.run(trainer, batches); },
                              {.budget = "--memory-budget", .batch = "--batch"});
  if (result.interrupted) {
    reporter.say(fmt::format("To go on: saccade-pretrain --run {}", program::shell_quoted(s.run)));
  } else {
    ssl::save_trunk(folder.trunk(), model.result(), names, info);
    reporter.say(fmt::format("Trained. The network is in {}", folder.trunk().string()));
  }
  if (model.landmarks().defined())
    reporter.add(vision::prototype_gallery(
        model, [&](const Tensor& images) { return model(images); }, model.landmarks(), source, vision::view_of(info)));
  reporter.write_page();
  reporter.say(fmt::format("The report is {}", folder.report().string()));
  return result.interrupted ? 130 : 0;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  std::signal(SIGPIPE, SIG_IGN);   // a run is not lost because nobody reads its words any longer
  Settings settings;
  CLI::App app("Learns features from a folder of images without labels.", "saccade-pretrain");
  const auto complete = [&](std::vector<std::string>& arguments) {
    program::take_stored_settings(arguments);
    settings.method = program::choose_method(arguments);
    settings.flags(app);
    program::refuse_settings_of_others(app, settings.method, arguments);
  };
  return program::run(
      app, {argv + 1, argv + argc}, [&] { return pretrain(app, settings); }, complete);
}
