/// The whole way on Fashion-MNIST's 60,000 photos: pre-training with SwAV, labels unused, then what the features are
/// worth on the 10,000 test photos, beside raw pixels, an untrained network, and one that has only the few labels.
///
/// Run it with `./dev demo`. It ends with a table of accuracies and the path of the run's report.
#include <saccade/saccade.h>

#include "flag_checks.h"
#include "run_data.h"
#include "run_settings.h"

using namespace saccade;

/// What the run is made of. The flags are those one would want to try; the rest is the recipe.
struct Recipe {
  std::string data = "/usr/share/datasets/fashion-mnist", run = "runs/fashion-mnist";
  std::string trunk = "y:d=3,w0=24,wa=50,wm=2.8,g=8,stem=cifar,stem_width=16,in=1", crops = "2x28@0.4-1+2x16@0.2-0.5";
  std::string precision = "f32";
  uint64_t seed = 0;
  int batch = 128;
  int64_t few = 600, grid = 2;
  bool fresh = false;
  data::MultiCrop views = {.crops = {}, .brightness = 0.4f, .contrast = 0.4f, .blur_p = 0.f};
  ssl::SwAVOptions swav = {.prototypes = 256, .hidden = 512, .dim = 64};
  ssl::TrainerOptions train = {.epochs = 10, .lr = 1.5e-3f, .warmup_iterations = 100, .evaluate_every = 936};
  ssl::FineTuneOptions tune = {.iterations = 400};
  ssl::KnnOptions knn = {.neighbours = 20, .temperature = 0.07f};
  program::RunData run_data;
  program::Machine machine;

  void flags(CLI::App& app) {
    const auto add = [&](const char* flag, auto& value, const char* help) {
      return app.add_option(flag, value, help)->capture_default_str();
    };
    add("--data", data, "Folder of the IDX files");
    add("--run", run, "Run folder; training goes on from its checkpoint");
    app.add_flag("--fresh", fresh, "Start over in that folder")->configurable(false);
    run_data.flags(app);
    add("--trunk", trunk, "RegNet: depth, first width, slope, ratio, group width, stem");
    add("--crops", crops, "Crops, with their ranges of area");
    add("--epochs", train.epochs, "Passes over the photos")->check(program::between(1, 1e6));
    add("--batch", batch, "Photos a step")->check(program::between(1, 1e6));
    program::type_name(add("--precision", precision, "Of activations and products: f32, bf16 or f16"));
    add("--lr", train.lr, "AdamW's learning rate at the top of its cosine")->check(program::above_zero());
    add("--prototypes", swav.prototypes, "K")->check(program::between(2, 1e9));
    add("--temperature", swav.temperature, "Of predictions")->check(program::above_zero());
    add("--eps", swav.eps, "Of assignments")->check(program::above_zero());
    add("--jitter", views.brightness, "Strength of brightness and contrast jitter")->check(program::between(0, 10));
    add("--grid", grid, "Features are means over a grid x grid partition of the last map")
        ->check(program::between(1, 7));
    add("--few", few, "Labels of the low-shot columns")->check(program::between(1, 60000));
    add("--seed", seed, "Of first weights, crops and the choice of labels")->check(program::not_negative());
    add("--evaluate-every", train.evaluate_every, "Iterations between kNN tests")->check(program::at_least(0));
    machine.flags(app);
  }
};

/// All photos of a source as rows of pixels, and as images for a network.
struct Photos {
  data::Rows all;
  explicit Photos(const data::Source& source, const data::EvalView& view)
      : all(data::compute_rows(source, view, [](const Tensor& x) {
          return x.reshape({-1, 28 * 28});
        })) {}
  const Tensor& pixels() const { return all.rows; }
  const std::vector<int>& labels() const { return all.labels; }
  int64_t count() const { return pixels().dim(0); }
  Tensor images(int64_t first, int64_t last) const {
    return pixels().slice(first, last).reshape({-1, 1}).with_segments({{last - first, 28, 28}});
  }
};

int run(CLI::App& app, Recipe& r) {
  const Device device = r.machine.apply();
  program::check_run_folder(r.run, r.data);
  const data::Source source = data::fashion_mnist(r.data), test_source = data::fashion_mnist(r.data, false);
  const vision::RunImages run_images = r.run_data.compare(r.run, r.fresh, source, r.data);
  r.train.keep_length = run_images.now.was_changed;
  r.views.crops =
      program::of_flag("--crops", r.crops, [&] { return data::multi_crop(data::parse_crops(r.crops)).crops; });
  r.views.contrast = r.views.brightness;
  r.views.mean = {0.f, 0.f, 0.f};  // the photos' black ground is zero, as the padding of convolutions is
  r.views.std = {0.353f, 0.353f, 0.353f};
  const data::EvalView whole{.resize = 28, .size = 28, .mean = r.views.mean, .std = r.views.std};
  const Photos training(source, whole), test(test_source, whole);
  const std::vector<int64_t> few = ssl::choose_per_class(training.labels(), r.few, r.seed);
  std::vector<int> few_labels;
  few_labels.reserve(few.size());
  for (const int64_t i : few) few_labels.push_back(training.labels()[static_cast<size_t>(i)]);

  const auto embed = [&](nn::Trunk& trunk, const Photos& photos) {
    return ssl::features(
        trunk, [&](int64_t first, int64_t last) { return photos.images(first, last); }, photos.count(), 500, r.grid);
  };
  const auto right = [&](const std::vector<int>& predicted) { return ssl::accuracy(predicted, test.labels()); };
  const auto percent = [](double share) { return fmt::format("{:.1f}", 100 * share); };

  const auto network = [&] { return program::on(device, [&] { return nn::regnet(r.trunk, r.seed); }); };
  const auto trunk = network(), untrained = network();
  const auto made = program::on(device, [&] { return std::make_unique<ssl::SwAV>(trunk, r.swav, r.seed); });
  ssl::SwAV& model = *made;
  const bool bytes = device == Device::cuda;  // a quarter travels to the GPU
  data::Loader loader(source, r.views,
                      {.batch = r.batch, .workers = r.machine.workers, .seed = r.seed, .bytes = bytes});
  r.train.precision = program::type_of(r.precision);
  r.train.evaluate = [&](int64_t) {
    const auto found = ssl::knn_classify(embed(*trunk, training), training.labels(), embed(*trunk, test), r.knn);
    return std::vector<std::pair<std::string, double>>{{"kNN", right(found)}};
  };
  r.train.health.names = program::flag_names(app);
  const ssl::TrunkInfo info{.trunk = r.trunk,
                            .size = 28,
                            .mean = {whole.mean.begin(), whole.mean.end()},
                            .std = {whole.std.begin(), whole.std.end()},
                            .view = "whole"};
  r.train.carried = info.metadata();
  ssl::Trainer trainer(model, optim::adamw({.weight_decay = 1e-6f}), r.train);
  ssl::RunFolder folder(r.run);
  program::prepare(app, folder, r.fresh, {"run", "data", "evaluate-every", "threads", "workers"});
  run_images.store(folder);
  const auto settings = program::settings_of(app);
  ssl::RunReporter reporter(folder, {.title = "SwAV on Fashion-MNIST",
                                     .subtitle = fmt::format("{} parameters, {} photos without their labels",
                                                             trunk->parameter_count(), source.size()),
                                     .epochs = r.train.epochs,
                                     .configuration = {settings.begin(), settings.end()}});
  if (!run_images.notice.empty()) reporter.say(run_images.notice);
  if (reporter.run(trainer, loader).interrupted) return 130;

  const std::string labels = fmt::format("{} labels", few.size());
  ssl::ReportTable table{.title = "Test accuracy, %",
                         .header = {"", "kNN", "linear", labels + ", linear", labels + ", whole network"},
                         .rows = {},
                         .best_row = 2};
  const auto line = [&](const std::vector<std::string>& row) {
    fmt::print("{:<20}{:>8}{:>10}{:>22}{:>28}\n", row[0], row[1], row[2], row[3], row[4]);
    std::fflush(stdout);
  };
  const auto fine_tuned = [&](const nn::Trunk& start) {
    const auto copy = network();
    ssl::copy_weights(start, *copy);
    const auto tuned = vision::fine_tune(copy, data::subset(source, few), vision::mild_crops(info), r.tune,
                                         {.batch = 100, .seed = r.seed});
    return percent(right(tuned.classify([&](int64_t a, int64_t b) { return test.images(a, b); }, test.count())));
  };
  const auto row = [&](const char* name, const Tensor& bank, const Tensor& queries, const std::string& whole_network) {
    const auto linear = ssl::fit_linear_probe(bank, training.labels());
    const auto low_shot = ssl::fit_linear_probe(ssl::gather_rows(bank, few), few_labels);
    table.rows.push_back({name, percent(right(ssl::knn_classify(bank, training.labels(), queries, r.knn))),
                          percent(right(linear.classify(queries))), percent(right(low_shot.classify(queries))),
                          whole_network});
    line(table.rows.back());
  };
  fmt::print(
      "\nAccuracy on {} test photos, %: kNN (cosines of features less their mean, k = 20, T = 0.07) and a linear "
      "classifier, both with {} "
      "labels; the same with {} labels, and the whole network trained on those.\n",
      test.count(), training.count(), few.size());
  line(table.header);
  row("raw pixels", training.pixels(), test.pixels(), "");
  row("untrained network", embed(*untrained, training), embed(*untrained, test), fine_tuned(*untrained));
  row("pre-trained network", embed(*trunk, training), embed(*trunk, test), fine_tuned(*trunk));

  reporter.add(std::move(table));
  reporter.add(vision::prototype_gallery(
      model, [&](const Tensor& images) { return model(images); }, model.prototypes(), source, whole));
  reporter.write_page();
  fmt::print("\nReport: {}\n", folder.report().string());
  return 0;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  CLI::App app("SwAV pre-training on Fashion-MNIST, and what the features are worth", "saccade-demo");
  Recipe recipe;
  recipe.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return run(app, recipe); });
}
