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
#include "method_flags.h"
#include "pretrain/settings.h"
#include "run_settings.h"
#include "weights.h"

using namespace saccade;

using Settings = program::PretrainSettings;

/// What may differ when a run goes on: nothing of it changes what is learned.
const std::set<std::string> kMayDiffer{
    "run",       "data",           "checkpoint-every", "keep",           "names",     "knn-data",
    "knn-every", "knn-neighbours", "knn-temperature",  "knn-center",     "baselines", "device",
    "threads",   "workers",        "memory-budget",    "max-unreadable", "size",      "view",
    "timeout"};

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
  if (app.get_option("--trunk")->count() == 0) program::change(app, "--trunk", s.train.trunk, ssl::trunk_of(weights));
  return weights;
}

std::string line_of(const vision::Choice& choice) {
  return fmt::format("Chosen: --{} {} ({})", choice.setting, choice.value, choice.reason);
}

bool is_given(const CLI::App& app, const std::string& setting) {
  const CLI::Option* option = app.get_option_no_throw("--" + setting);
  return option != nullptr && option->count() > 0;
}

/// Chooses the method where the time is given and neither a method nor a setting of one; true if it is
/// another one than the program has the flags of.
bool other_method(const CLI::App& app, Settings& s) {
  const auto given = [&](const ssl::Setting& setting) { return is_given(app, setting.name); };
  if (s.minutes <= 0 || is_given(app, "method") || std::ranges::any_of(s.train.method.settings, given)) return false;
  s.method = vision::choose_method();
  return s.method.value != s.train.method.name;
}

/// Fills in what nobody gave, by the images and the time; returns a line for each choice.
std::vector<std::string> choose_settings(CLI::App& app, Settings& s, data::Source& source, Device device,
                                         int64_t budget) {
  // The method is known: other ones have other flags.
  const auto given = [&](const std::string& setting) { return setting == "method" || is_given(app, setting); };
  const std::vector<vision::Choice> choices =
      s.minutes > 0 ? vision::choose_within({s.minutes, budget}, s.train, source, device, given)
                    : vision::choose(s.train, vision::look_at(source), given);
  std::vector<std::string> lines;
  for (const vision::Choice& choice : choices) {
    CLI::Option* option = app.get_option("--" + choice.setting);
    option->add_result(choice.value);
    option->run_callback();
    lines.push_back(line_of(choice));
  }
  if (s.minutes > 0 && std::ranges::find(choices, "iterations", &vision::Choice::setting) == choices.end())
    lines.push_back("The length of the run was given: --minutes does not decide it.");
  return lines;
}

int pretrain(CLI::App& app, Settings& s) {
  s.machine.several = true;
  const Device device = s.machine.apply();
  const nn::Names names = program::of_flag("--names", s.names, [&] { return nn::names_of(s.names); });
  const int64_t budget = s.memory_budget == "none" ? 0 : program::of_flag("--memory-budget", s.memory_budget, [&] {
    return parse_bytes(s.memory_budget);
  });
  vision::Training& train = s.train;
  ssl::TrainerOptions& options = train.options;
  options.ranks = dist::world(device, std::chrono::duration<double>(60 * s.timeout));
  const int ranks = options.ranks->size();
  const bool first = options.ranks->rank() == 0;  // who writes, and speaks
  if (ranks > 1 && s.minutes > 0)
    throw Error("--minutes measures what one process does: take one, or give --trunk, --crops and --iterations");
  program::of_flag("--crops", train.crops, [&] { return data::parse_crops(train.crops); });
  program::check_run_folder(s.run, s.data);
  program::check_data_is_there(app, s.run, s.data);
  options.precision = program::type_of(s.precision);
  train.momentum = program::type_of(s.momentum);
  train.workers = s.machine.workers;
  std::copy_n(s.mean.begin(), 3, train.views.mean.begin());
  std::copy_n(s.std.begin(), 3, train.views.std.begin());
  const bool begins = s.fresh || !ssl::RunFolder::holds_checkpoint(s.run);  // else its settings are compared
  if (begins && other_method(app, s)) return 0;
  const std::optional<ssl::Weights> start = weights_to_start_from(app, s);
  // Earlier versions gave gray images to ResNets of three channels: such a run goes on as it began.
  const bool as_stored =
      !begins && train.trunk.starts_with("resnet") &&
      program::settings_of_file(std::filesystem::path(s.run) / "config.toml")["trunk"] == train.trunk;
  const bool plain_name = s.init.empty() && !as_stored && train.trunk.find("in=") == std::string::npos;
  data::Source source = data::open_images(s.data, s.images.options(plain_name ? 0 : program::channels_of(train.trunk)));
  const vision::RunImages run_images = s.run_data.compare(s.run, s.fresh, source, s.data);
  program::change(app, "--data", s.data, run_images.now.path);
  options.keep_length = run_images.now.was_changed;
  if (plain_name && source.channels == 1 && app.get_option("--trunk")->count() > 0)  // gray images: one channel
    program::change(app, "--trunk", train.trunk, nn::for_gray(train.trunk));
  std::vector<std::string> chosen;
  if (begins) chosen = choose_settings(app, s, source, device, budget);
  if (!s.method.reason.empty()) chosen.insert(chosen.begin(), line_of(s.method));
  if (source.channels != program::channels_of(train.trunk))  // gray images stored in colour
    source = data::with_channels(source, program::channels_of(train.trunk));
  train.views.crops = train.multi_crop().crops;
  int64_t crops = 0;
  for (const data::CropSpec& spec : train.views.crops) crops += spec.count;
  if (crops < 2) throw Error(fmt::format("--crops {}: expected two crops at least, to compare", train.crops));
  if (const int64_t each = train.method.crops_of_each; begins && each > 0 && crops != each)
    throw Error(fmt::format("--crops {}: {} takes {} crops of each image, not {}", train.crops, train.method.title,
                            each, crops));
  program::check_settings(train.method, train.facts(source.size(), 0));
  const auto trunk = program::on(device, [&] { return nn::trunk(train.trunk, train.seed); });
  if (train.batch < ranks)
    throw Error(fmt::format("--batch {}: it is divided among the {} processes", train.batch, ranks));
  if (source.size() < train.batch)
    throw Error(fmt::format("--batch {}: more than the {} images of {}", train.batch, source.size(), source.name));
  data::Loader loader(source, train.views,
                      {.batch = train.batch,
                       .workers = train.workers,
                       .seed = train.seed,
                       .bytes = device == Device::cuda,  // a quarter travels to the GPU
                       .max_unreadable = s.max_unreadable,
                       .rank = options.ranks->rank(),
                       .ranks = ranks});

  const int64_t per_epoch = train.per_epoch(source.size()), iterations = train.iterations(source.size());
  if (iterations < 1)
    throw Error(fmt::format("--accumulate {}: the {} batches of all epochs make no iteration", options.accumulate,
                            options.epochs * loader.batches_per_epoch()));
  const ssl::RunFacts facts = train.facts(source.size(), trunk->out_channels());
  program::settle(app, train.method, facts);
  program::settle(app, "--lr", options.lr, static_cast<float>(train.method.lr.find(facts)));
  program::settle(app, "--warmup", options.warmup_iterations, static_cast<int64_t>(train.method.warmup.find(facts)));

  const ssl::StepSpec step =
      train.step(source.channels, device);  // also for advice, if memory runs out without a budget
  options.health.untrained = !start;
  options.fuse_optimizer = budget > 0 && step.options.fuse_optimizer;
  std::string planned;
  if (budget > 0) planned = ssl::keep_budget(step, *trunk, budget);

  const std::shared_ptr<ssl::Objective> made = program::on(device, [&] { return train.make_objective(trunk); });
  ssl::Objective& model = *made;
  ssl::InitReport started;
  if (start) started = ssl::init_from(model, *start, s.allow_partial);
  program::settle(app, "--size", train.size, train.shown_size());
  if (app.get_option("--view")->count() == 0)
    program::settle(app, "--view", s.view, std::string(data::name_of(data::choose_view_rule(source, train.size))));
  const ssl::TrunkInfo info{train.trunk, train.size, s.mean, s.std, s.view, train.seed};
  options.carried = info.metadata();
  std::string judged_by, judged;  // by what: in words, and what makes it the same
  std::function<ssl::Baselines()> baselines;
  ssl::RunReporter* reports = nullptr;  // once everything holds
  if (!s.knn_data.empty()) {
    program::change(app, "--knn-data", s.knn_data, data::absolute_path(s.knn_data));
    data::LabelledPair labelled = data::labelled_pair(s.knn_data, "", s.images.options(source.channels));
    judged_by = labelled.summary;
    judged = fmt::format("{}: {} and {} images; k = {}, T = {}, center {}; {} of seed {}, {} pixels, view {}",
                         data::printable(s.knn_data), labelled.train.size(), labelled.test.size(), s.knn.neighbours,
                         s.knn.temperature, s.knn.center, train.trunk, train.seed, train.size, s.view);
    options.evaluate_every = s.knn_every * per_epoch;
    if (s.baselines)
      baselines = [&, labelled] {  // before the first step the network is the untrained one, but for --init
        const auto untrained =
            start ? program::on(device, [&] { return nn::trunk(train.trunk, train.seed); }) : nullptr;
        return vision::knn_baselines(untrained ? *untrained : model.result(), info, labelled, s.knn, train.workers);
      };
    options.evaluate = vision::knn_test({made, &made->result()}, info, std::move(labelled), s.knn,
                                        [&](const std::string& reason) { reports->say("kNN: left out: " + reason); });
  }
  options.health.names = program::flag_names(app);
  ssl::Trainer trainer(model, train.recipe(), options);

  if (!first) {
    options.ranks->barrier();  // the first has made the folder ready
    options.ranks->barrier();  // and has measured what features are compared with
    ssl::BatchSource batches = loader;
    if (run_images.has_changed) batches.restore = {};
    return trainer.fit(batches, s.run).interrupted ? 130 : 0;
  }
  ssl::RunFolder folder(s.run);
  program::prepare(app, folder, s.fresh, kMayDiffer);
  run_images.store(folder);
  options.ranks->barrier();
  const auto settings = program::settings_of(app);
  ssl::RunReporter reporter(folder,
                            {.title = fmt::format("{} on {}", train.method.title, source.name),
                             .subtitle = fmt::format("{} ({} parameters, {} features), {} images", train.trunk,
                                                     trunk->parameter_count(), trunk->out_channels(), source.size()),
                             .epochs = (iterations + per_epoch - 1) / per_epoch,
                             .configuration = {settings.begin(), settings.end()},
                             .unreadable = [&] {
                               std::vector<std::string> reasons;
                               for (const data::Failure& f : loader.failures()) reasons.push_back(f.reason);
                               return reasons;
                             }});
  reports = &reporter;
  reporter.say(source.summary);
  if (!run_images.notice.empty()) reporter.say(run_images.notice);
  for (const std::string& line : chosen) reporter.say(line);
  reporter.say(fmt::format("{} images, {} iterations an epoch; {}: {} parameters, {} features; {}lr {:.3g}",
                           source.size(), per_epoch, train.trunk, trunk->parameter_count(), trunk->out_channels(),
                           train.method.summary ? train.method.summary() + ", " : "", options.lr));
  if (ranks > 1)
    reporter.say(fmt::format("{} processes, each with {} of the {} images of a batch, {} thread{}", ranks,
                             train.batch % ranks == 0
                                 ? fmt::format("{}", train.batch / ranks)
                                 : fmt::format("{} or {}", train.batch / ranks, train.batch / ranks + 1),
                             train.batch, omp_get_max_threads(), omp_get_max_threads() == 1 ? "" : "s"));
  for (const std::string& line : started.lines) reporter.say(line);
  if (!judged_by.empty()) reporter.say("kNN: " + judged_by);
  if (baselines) try {
      reporter.compare_with(judged, baselines);
    } catch (const OutOfMemory&) {
      reporter.say("There is not enough memory to measure what raw pixels and the untrained network are worth.");
    }
  options.ranks->barrier();
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

/// @param method  what was chosen by an earlier look at the images; then what is chosen now: with another one than the
///                program has the flags of, nothing was done
int run(std::vector<std::string> arguments, vision::Choice& method) {
  Settings settings;
  CLI::App app("Learns features from a folder of images without labels.", "saccade-pretrain");
  if (!method.value.empty()) arguments.insert(arguments.end(), {"--method", method.value});
  settings.method = method;
  const auto complete = [&](std::vector<std::string>& all) {
    program::take_stored_settings(all);
    settings.train.method = program::choose_method(all);
    settings.flags(app);
    program::refuse_settings_of_others(app, settings.train.method, all);
  };
  const int status = program::run(
      app, std::move(arguments), [&] { return pretrain(app, settings); }, complete);
  if (const auto& ranks = settings.train.options.ranks; ranks && ranks->size() > 1 && status != 0 && status != 130)
    ranks->abort(status);  // the others wait for this process
  method = settings.method;
  if (method.value == settings.train.method.name) method = {};
  return status;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  std::signal(SIGPIPE, SIG_IGN);   // a run is not lost because nobody reads its words any longer
  vision::Choice method;
  const int status = run({argv + 1, argv + argc}, method);
  return status == 0 && !method.value.empty() ? run({argv + 1, argv + argc}, method) : status;
}
