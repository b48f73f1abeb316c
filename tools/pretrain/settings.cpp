#include "settings.h"

#include "../flag_checks.h"
#include "../method_flags.h"

namespace saccade::program {

void PretrainSettings::flags(CLI::App& app) {
  ssl::TrainerOptions& options = train.options;
  data::MultiCrop& views = train.views;
  train.crops = train.method.crops;
  train.optimizer = train.method.optimizer;
  train.weight_decay = train.method.weight_decay;
  const auto add = [&](const char* group, const char* flag, auto& value, const char* help) {
    return app.add_option(flag, value, help)->group(group)->capture_default_str();
  };
  const char* group = "Method";
  add_method_flag(app, train.method, group);
  for (const ssl::Setting& setting : train.method.settings) add_setting(app, setting, group);
  group = "Run";
  add(group, "--run", run, "Folder of the run: settings, log, checkpoints, trunk.safetensors, report.html")->required();
  app.add_flag("--fresh", fresh, "Start over: remove what an earlier run left in the folder")
      ->configurable(false)
      ->group(group);
  run_data.flags(app);
  add(group, "--checkpoint-every", options.checkpoint_every, "Iterations between checkpoints; 0: each epoch")
      ->check(at_least(0));
  add(group, "--keep", options.keep_checkpoints, "Checkpoints that are kept")->check(at_least(1));
  add(group, "--seed", train.seed, "Of first weights, order and crops")->check(not_negative());
  add(group, "--names", names, "Whose names trunk.safetensors has: torchvision, timm, vissl, classy, pycls, swav");
  group = "Images";
  add(group, "--data", data,
      "Folder of images, all below it count (labels are not used); or IDX files, or a CSV of paths")
      ->required();
  images.flags(app);
  add(group, "--max-unreadable", max_unreadable,
      "Share of the images that may be unreadable: the run stops at more, once 100 were tried")
      ->check(between(0, 1));
  add(group, "--crops", train.crops,
      "COUNTxPIXELS[@AREA-AREA][,SETTING=VALUE...] joined by +; the first two crops are those that teach; settings "
      "are flip, jitter, brightness, contrast, saturation, hue, gray, blur, solarize, sigma, threshold")
      ->default_str("by the images");
  add(group, "--flip", views.flip_p, "Probability of a mirror image")->check(between(0, 1));
  add(group, "--jitter", views.jitter_p, "Probability of colour jitter")->check(between(0, 1));
  add(group, "--brightness", views.brightness, "Strength of colour jitter; half of it for small images")
      ->check(between(0, 10));
  add(group, "--contrast", views.contrast, "Likewise")->check(between(0, 10));
  add(group, "--saturation", views.saturation, "Likewise")->check(between(0, 10));
  add(group, "--hue", views.hue, "Largest turn of the colour circle, up to 0.5")->check(between(0, 0.5));
  add(group, "--gray", views.grayscale_p, "Probability of grayscale")->check(between(0, 1));
  add(group, "--blur", views.blur_p, "Probability of blur; 0 for images below about 64 pixels")->check(between(0, 1));
  add(group, "--mean", mean, "Of red, green and blue in [0, 1]")->expected(3)->check(colour_mean());
  add(group, "--std", std, "Their standard deviations")->expected(3)->check(colour_deviation());
  add(group, "--size", train.size, "Pixels a side at which whole images are shown where the network is used")
      ->check(between(1, 16384))
      ->default_str("by the images; with --crops that of the first");
  add(group, "--view", view, "How a whole image is shown where the network is used: see saccade-embed --help")
      ->check(CLI::IsMember({"middle", "whole"}))
      ->default_str("whole if the images have the size of the first crops, else middle");
  group = "Model";
  add(group, "--trunk", train.trunk,
      "y_200mf ... y_128gf, x_..., resnet9, 18, 34, 50, ...; y_400mf:stem=cifar for 32-pixel images")
      ->default_str("by the images");
  add(group, "--init", init,
      "Weights to start from, as --weights of saccade-embed takes them: the trunk, and what the method has behind it "
      "where it is there and fits; without --trunk, --mean and --std those of the weights are taken");
  app.add_flag("--allow-partial", allow_partial, "Start from weights that do not fit the trunk in all places")
      ->group(group);
  group = "Training";
  add(group, "--minutes", minutes,
      "All that is not given is chosen so that the training ends by then, each choice with its reason; 0: as "
      "--epochs "
      "or --iterations say")
      ->check(between(0, 1e6));
  add(group, "--epochs", options.epochs, "Passes over the images")->check(between(1, 1e6));
  add(group, "--iterations", options.iterations, "Length in iterations; 0: as --epochs says")->check(between(0, 1e15));
  add(group, "--batch", train.batch, "Images an iteration; by default fewer for few images")->check(between(1, 1e6));
  add(group, "--optimizer", train.optimizer, "larc (SGD) or adamw")->check(CLI::IsMember({"larc", "adamw"}));
  add(group, "--lr", options.lr, "Learning rate at its top")->default_str(train.method.lr.text)->check(above_zero());
  add(group, "--warmup", options.warmup_iterations, "Iterations")
      ->default_str(train.method.warmup.text)
      ->check(at_least(0));
  add(group, "--weight-decay", train.weight_decay, "Of all parameters")->check(between(0, 1));
  group = "Memory";
  add(group, "--memory-budget", memory_budget,
      "Of the whole process, or of the GPU's memory, e.g. 14GiB: the step is planned to fit (what does not is "
      "computed twice), the optimizer "
      "runs within backward where it can, and the budget is kept");
  type_name(add(group, "--precision", precision, "f32, bf16 or f16: of activations and products"));
  add(group, "--momentum", momentum, "f32, or bf16 for half the memory of larc's momentum")
      ->check(CLI::IsMember({"f32", "bf16"}));
  add(group, "--accumulate", options.accumulate, "Batches an iteration, taken together: more than memory holds")
      ->check(between(1, 1e6));
  group = "Watching";
  add(group, "--knn-data", knn_data,
      "Labelled images (a folder a class, perhaps in train/ and test/; or a CSV of path and label): kNN accuracy on "
      "the way");
  add(group, "--knn-every", knn_every, "Epochs between kNN tests")->check(between(1, 1e6));
  add(group, "--baselines", baselines,
      "kNN accuracy also of raw pixels and of the untrained network, measured once, at the start");
  add(group, "--knn-neighbours", knn.neighbours, "That vote")->check(at_least(1));
  add(group, "--knn-temperature", knn.temperature, "Of their votes")->check(above_zero());
  add(group, "--knn-center", knn.center, "By cosines of features less their mean; false: of features as they are");
  add("Machine", "--timeout", timeout,
      "Of several processes: minutes that one may keep the others waiting, before all end with a word on which; 0: any")
      ->check(between(0, 1e6));
  machine.flags(app);
  app.set_config("--config", "", "Read flags from this TOML file; those given here win")->group("Run");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.footer(
      "Example:\n  saccade-pretrain --data photos/ --run runs/photos --trunk y_400mf --epochs 100\n"
      "Stop it with Ctrl-C, a scheduler's SIGTERM, SIGUSR1 or SIGUSR2, or by closing the terminal: it writes a "
      "checkpoint and "
      "ends with status 130; `saccade-pretrain --run runs/photos` goes on. docs/training.md tells how to choose.");
}

}  // namespace saccade::program
