/// The whole way on Fashion-MNIST's 60,000 photos: pre-training with SwAV, labels unused, then what the features are
/// worth on the 10,000 test photos, beside raw pixels, an untrained network, and one that has only the few labels.
///
/// Run it with `./dev demo`. It ends with a table of accuracies and the path of the run's report.
#include <saccade/saccade.h>

#include "pictures.h"
#include "run_settings.h"

using namespace saccade;

struct Recipe {
  std::string data = "/usr/share/datasets/fashion-mnist", run = "runs/fashion-mnist", optimizer = "adamw";
  std::string trunk = "y:d=5,w0=24,wa=24,wm=2.5,g=8,stem=cifar,stem_width=24,in=1";
  std::string crops = "2x28@0.2-1+2x16@0.05-0.3";
  uint64_t seed = 0;
  int batch = 256;
  int64_t few = 600, grid = 2;
  float weight_decay = 1e-6f, tune_area = 0.4f;
  bool fresh = false, only_knn = false;
  data::MultiCrop views = {.crops = {}, .brightness = 0.4f, .contrast = 0.4f, .blur_p = 0.f, .blur_sigma = {0.1f, 1.f}};
  ssl::SwAVOptions swav = {.prototypes = 256, .hidden = 512, .dim = 64};
  ssl::TrainerOptions train = {.epochs = 12, .lr = 2e-3f, .warmup_iterations = 50, .evaluate_every = 702};
  ssl::KnnOptions knn = {.neighbours = 20, .temperature = 0.07f, .center = true};
  ssl::FineTuneOptions tune = {.iterations = 300};
  program::Machine machine;

  void flags(CLI::App& app) {
    const auto add = [&](const char* flag, auto& value, const char* help = "") {
      return app.add_option(flag, value, help)->capture_default_str();
    };
    add("--data", data, "Folder of the IDX files");
    add("--run", run, "Run folder; training goes on from its checkpoint");
    app.add_flag("--fresh", fresh, "Start over in that folder")->configurable(false);
    add("--trunk", trunk, "RegNet: depth, first width, slope, ratio, group width, stem");
    add("--crops", crops, "Crops, with their ranges of area");
    add("--epochs", train.epochs, "Passes over the photos");
    add("--iterations", train.iterations, "Length in iterations; 0: by epochs");
    add("--batch", batch);
    add("--seed", seed);
    add("--optimizer", optimizer)->check(CLI::IsMember({"adamw", "larc"}));
    add("--lr", train.lr);
    add("--final-lr-ratio", train.final_lr_ratio);
    add("--warmup", train.warmup_iterations, "Iterations");
    add("--weight-decay", weight_decay);
    add("--prototypes", swav.prototypes);
    add("--hidden", swav.hidden, "Width of the head's hidden layer");
    add("--dim", swav.dim, "Of embeddings");
    add("--head-bn", swav.head_bn);
    add("--temperature", swav.temperature);
    add("--eps", swav.eps);
    add("--sinkhorn", swav.sinkhorn_iterations, "Iterations");
    add("--assigning", swav.assigning, "Crops that are assigned");
    add("--queue", swav.queue_length, "Rows");
    add("--queue-start", swav.queue_start_iteration);
    add("--freeze", swav.freeze_prototypes_iterations, "Iterations of frozen prototypes");
    add("--hard", swav.hard_assignment_iterations, "Iterations of hard assignments");
    add("--flip-p", views.flip_p);
    add("--jitter-p", views.jitter_p);
    add("--brightness", views.brightness);
    add("--contrast", views.contrast);
    add("--blur-p", views.blur_p);
    add("--blur-min", views.blur_sigma.low);
    add("--blur-max", views.blur_sigma.high);
    add("--aspect-min", views.aspect.low);
    add("--aspect-max", views.aspect.high);
    add("--grid", grid, "Features are of a grid x grid partition of the last map");
    add("--knn-center", knn.center, "Take the mean feature off before cosines: for all rows of the table alike");
    add("--few", few, "Labels of the low-shot column");
    add("--tune-iterations", tune.iterations, "Fine-tuning");
    add("--tune-trunk-lr", tune.trunk_lr);
    add("--tune-head-lr", tune.head_lr);
    add("--tune-weight-decay", tune.weight_decay);
    add("--tune-area", tune_area, "Least area of its crops");
    add("--evaluate-every", train.evaluate_every, "Iterations between kNN tests");
    app.add_flag("--only-knn", only_knn, "Leave out the comparison at the end")->configurable(false);
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
  r.machine.apply();
  const data::Source source = data::fashion_mnist(r.data), test_source = data::fashion_mnist(r.data, false);
  r.views.crops = data::parse_crops(r.crops);
  r.views.mean = {0.f, 0.f, 0.f};  // the photos' black ground is zero, as the padding of convolutions is
  r.views.std = {0.353f, 0.353f, 0.353f};
  const data::EvalView whole{.resize = 28, .size = 28, .mean = r.views.mean, .std = r.views.std};
  const Photos training(source, whole), test(test_source, whole);
  const std::vector<int64_t> few = ssl::choose_per_class(training.labels(), r.few, r.seed);
  std::vector<int> few_labels;
  for (const int64_t i : few) few_labels.push_back(training.labels()[static_cast<size_t>(i)]);

  const auto embed = [&](nn::Trunk& trunk, const Photos& photos) {
    return ssl::features(
        trunk, [&](int64_t first, int64_t last) { return photos.images(first, last); }, photos.count(), 500, r.grid);
  };
  const auto right = [&](const std::vector<int>& predicted) { return ssl::accuracy(predicted, test.labels()); };
  const auto percent = [](double share) { return fmt::format("{:.1f}", 100 * share); };

  const auto trunk = nn::regnet(r.trunk, r.seed), untrained = nn::regnet(r.trunk, r.seed);
  ssl::SwAV model(trunk, r.swav, r.seed);
  data::Loader loader(source, r.views, {.batch = r.batch, .workers = r.machine.workers, .seed = r.seed});
  r.train.evaluate = [&](int64_t) {
    const auto found = ssl::knn_classify(embed(*trunk, training), training.labels(), embed(*trunk, test), r.knn);
    return std::vector<std::pair<std::string, double>>{{"kNN", right(found)}};
  };
  ssl::Trainer trainer(model,
                       r.optimizer == "adamw" ? optim::adamw({.weight_decay = r.weight_decay})
                                              : optim::larc_sgd({.weight_decay = r.weight_decay}),
                       r.train);
  ssl::RunFolder folder(r.run);
  if (r.fresh) folder.clear();
  if (ssl::RunFolder::holds_checkpoint(r.run))
    program::check_same_settings(app, folder.config(), {"run", "data", "evaluate-every", "threads", "workers"});
  io::write_file_atomically(folder.config(), app.config_to_str(true, true));
  const auto settings = program::settings_of(app);
  ssl::RunReporter reporter(folder, {.title = "SwAV on Fashion-MNIST",
                                     .subtitle = fmt::format("{} parameters, {} photos without their labels",
                                                             trunk->parameter_count(), source.size()),
                                     .epochs = r.train.epochs,
                                     .configuration = {settings.begin(), settings.end()}});
  if (reporter.run(trainer, loader).interrupted) return 130;
  if (r.only_knn) return 0;

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
    const auto copy = nn::regnet(r.trunk, r.seed);
    ssl::copy_weights(start, *copy);
    data::MultiCrop mild = r.views;
    mild.crops = {{1, 28, {r.tune_area, 1.f}}};
    mild.blur_p = mild.jitter_p = 0.f;
    data::Loader labelled(data::subset(source, few), mild, {.batch = 100, .seed = r.seed});
    const auto tuned = ssl::fine_tune(
        copy, [&](int64_t) { return labelled.next(); }, r.tune);
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
      "\nAccuracy on {} test photos, %: kNN (cosines, k = 20, T = 0.07) and a linear classifier, both with {} "
      "labels; the same with {} labels, and the whole network trained on those.\n",
      test.count(), training.count(), few.size());
  line(table.header);
  row("raw pixels", training.pixels(), test.pixels(), "");
  row("untrained network", embed(*untrained, training), embed(*untrained, test), fine_tuned(*untrained));
  row("pre-trained network", embed(*trunk, training), embed(*trunk, test), fine_tuned(*trunk));

  reporter.add(std::move(table));
  reporter.add(program::prototype_gallery(model, source, whole));
  reporter.write_page();
  fmt::print("\nReport: {}\n", folder.report().string());
  return 0;
}

int main(int argc, char** argv) {
  CLI::App app("SwAV pre-training on Fashion-MNIST, and what the features are worth", "saccade-demo");
  Recipe recipe;
  recipe.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return run(app, recipe); });
}
