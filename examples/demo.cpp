/// The whole way on Fashion-MNIST's 60,000 photos: pre-training with SwAV (no labels), then how good the features are
/// on the 10,000 test photos, beside raw pixels, an untrained network, and one trained on the few labels alone.
#include <fmt/format.h>
#include <saccade/core/random.h>
#include <saccade/data/loader.h>
#include <saccade/nn/regnet.h>
#include <saccade/ssl/eval/fine_tune.h>
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/linear_probe.h>
#include <saccade/ssl/trainer.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>

using namespace saccade;

struct Recipe {
  std::string data = "/usr/share/datasets/fashion-mnist", run, optimizer = "adamw", crops = "2x28@0.2-1+2x16@0.05-0.3",
              trunk = "y:d=5,w0=24,wa=24,wm=2.5,g=8,stem=simple,stem_width=24,in=1";
  uint64_t seed = 0;
  int batch = 256;
  float weight_decay = 1e-6f;
  data::MultiCrop views = {.crops = {}, .brightness = 0.4f, .contrast = 0.4f, .blur_p = 0.f, .blur_sigma = {0.1f, 1.f}};
  ssl::SwAVOptions swav = {.prototypes = 256, .hidden = 512, .dim = 64};
  ssl::TrainerOptions train = {.epochs = 12, .lr = 2e-3f, .warmup_iterations = 50, .evaluate_every = 500};
  ssl::FineTuneOptions tune = {.iterations = 300};
  float tune_scale = 0.4f;
  int64_t few = 600;
  bool only_knn = false;

  void flags(CLI::App& app) {
    app.add_option("--data", data, "Folder of the IDX files")->capture_default_str();
    app.add_option("--run", run, "Run folder; training goes on from its checkpoint")->capture_default_str();
    app.add_option("--trunk", trunk, "RegNet description")->capture_default_str();
    app.add_option("--crops", crops, "Crops, with their ranges of area")->capture_default_str();
    app.add_option("--epochs", train.epochs)->capture_default_str();
    app.add_option("--iterations", train.iterations, "Instead of epochs");
    app.add_option("--batch", batch)->capture_default_str();
    app.add_option("--seed", seed)->capture_default_str();
    app.add_option("--optimizer", optimizer)->check(CLI::IsMember({"adamw", "larc"}))->capture_default_str();
    app.add_option("--lr", train.lr)->capture_default_str();
    app.add_option("--final-lr-ratio", train.final_lr_ratio)->capture_default_str();
    app.add_option("--warmup", train.warmup_iterations, "Iterations")->capture_default_str();
    app.add_option("--weight-decay", weight_decay)->capture_default_str();
    app.add_option("--prototypes", swav.prototypes)->capture_default_str();
    app.add_option("--hidden", swav.hidden, "Width of the head's hidden layer")->capture_default_str();
    app.add_option("--dim", swav.dim, "Of embeddings")->capture_default_str();
    app.add_option("--head-bn", swav.head_bn)->capture_default_str();
    app.add_option("--temperature", swav.temperature)->capture_default_str();
    app.add_option("--eps", swav.eps)->capture_default_str();
    app.add_option("--sinkhorn", swav.sinkhorn_iterations, "Iterations")->capture_default_str();
    app.add_option("--assigning", swav.assigning, "Crops that are assigned")->capture_default_str();
    app.add_option("--queue", swav.queue_length, "Rows")->capture_default_str();
    app.add_option("--queue-start", swav.queue_start_iteration)->capture_default_str();
    app.add_option("--freeze", swav.freeze_prototypes_iterations, "Iterations of frozen prototypes")
        ->capture_default_str();
    app.add_option("--hard", swav.hard_assignment_iterations, "Iterations of hard assignments")->capture_default_str();
    app.add_option("--flip-p", views.flip_p)->capture_default_str();
    app.add_option("--jitter-p", views.jitter_p)->capture_default_str();
    app.add_option("--brightness", views.brightness)->capture_default_str();
    app.add_option("--contrast", views.contrast)->capture_default_str();
    app.add_option("--blur-p", views.blur_p)->capture_default_str();
    app.add_option("--blur-min", views.blur_sigma.low)->capture_default_str();
    app.add_option("--blur-max", views.blur_sigma.high)->capture_default_str();
    app.add_option("--aspect-min", views.aspect.low)->capture_default_str();
    app.add_option("--aspect-max", views.aspect.high)->capture_default_str();
    app.add_option("--few", few, "Labels of the low-shot rows")->capture_default_str();
    app.add_option("--tune-iterations", tune.iterations)->capture_default_str();
    app.add_option("--tune-trunk-lr", tune.trunk_lr)->capture_default_str();
    app.add_option("--tune-head-lr", tune.head_lr)->capture_default_str();
    app.add_option("--tune-weight-decay", tune.weight_decay)->capture_default_str();
    app.add_option("--tune-scale", tune_scale, "Least area of fine-tuning's crops")->capture_default_str();
    app.add_option("--evaluate-every", train.evaluate_every, "Iterations between kNN tests")->capture_default_str();
    app.add_flag("--only-knn", only_knn, "Leave out the comparison at the end");
  }
};

/// All photos of a source, normalised.
struct Photos {
  Tensor pixels;  ///< (count, 28 * 28)
  std::vector<int> labels;

  explicit Photos(const data::Source& source, const data::MultiCrop& views)
      : pixels(Tensor::empty({source.size(), 28 * 28})), labels(source.labels) {
    data::Loader loader(source, data::EvalView{.resize = 28, .size = 28, .mean = views.mean, .std = views.std},
                        {.batch = 500, .drop_last = false, .shuffle = false});
    for (int64_t at = 0; at < count();) {
      const Batch batch = loader.next();
      pixels.slice(at, at + batch.size()).copy_from(batch.images);
      at += batch.size();
    }
  }
  int64_t count() const { return pixels.dim(0); }
  ssl::ImageRange images() const {
    return [this](int64_t first, int64_t last) {
      return pixels.slice(first, last).reshape({-1, 1}).with_segments({{last - first, 28, 28}});
    };
  }
};

/// The first `count` samples of each class in an order drawn by the seed.
std::vector<int64_t> few_of_each_class(const std::vector<int>& labels, int64_t count, uint64_t seed) {
  std::vector<int64_t> order(labels.size()), chosen;
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  Philox random(seed);
  for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.below(static_cast<uint32_t>(i + 1))]);
  std::map<int, int64_t> taken;
  for (const int64_t i : order)
    if (taken[labels[static_cast<size_t>(i)]]++ < count) chosen.push_back(i);
  return chosen;
}

int run(Recipe recipe) {
  const data::Source source = data::fashion_mnist(recipe.data), test_source = data::fashion_mnist(recipe.data, false);
  recipe.views.crops = data::parse_crops(recipe.crops);
  recipe.views.mean = {0.286f, 0.286f, 0.286f};
  recipe.views.std = {0.353f, 0.353f, 0.353f};
  const Photos training(source, recipe.views), test(test_source, recipe.views);
  const auto few = few_of_each_class(source.labels, recipe.few / 10, recipe.seed);
  std::vector<int> few_labels;
  for (const int64_t i : few) few_labels.push_back(source.label(i));

  const auto knn = [&](const Tensor& bank, const Tensor& queries) {
    return 100 * ssl::accuracy(ssl::knn_classify(bank, training.labels, queries), test.labels);
  };
  const auto row = [&](const char* name, const Tensor& bank, const Tensor& queries) {
    const auto all = ssl::fit_linear_probe(bank, training.labels);
    const auto low = ssl::fit_linear_probe(ssl::gather_rows(bank, few), few_labels);
    fmt::print("{:<34}{:>8.1f}{:>14.1f}{:>14.1f}\n", name, knn(bank, queries),
               100 * ssl::accuracy(all.classify(queries), test.labels),
               100 * ssl::accuracy(low.classify(queries), test.labels));
    std::fflush(stdout);
  };
  const auto embed = [&](nn::Trunk& trunk, const Photos& photos) {
    return ssl::features(trunk, photos.images(), photos.count());
  };

  const auto trunk = nn::regnet(recipe.trunk, recipe.seed), untrained = nn::regnet(recipe.trunk, recipe.seed);
  ssl::SwAV model(trunk, recipe.swav, recipe.seed);
  data::Loader loader(source, recipe.views, {.batch = recipe.batch, .seed = recipe.seed});
  fmt::print("{} parameters in the trunk, {} features; {} iterations an epoch\n", trunk->parameter_count(),
             trunk->out_channels(), loader.batches_per_epoch());
  recipe.train.evaluate = [&](int64_t) {
    return std::vector<std::pair<std::string, double>>{{"kNN", knn(embed(*trunk, training), embed(*trunk, test))}};
  };
  ssl::Trainer trainer(model,
                       recipe.optimizer == "adamw" ? optim::adamw({.weight_decay = recipe.weight_decay})
                                                   : optim::larc_sgd({.weight_decay = recipe.weight_decay}),
                       recipe.train);
  double seconds = 0, since = 0, loss = 0;
  int64_t steps = 0;
  trainer.observe({.on_step =
                       [&](const ssl::StepReport& r) {
                         seconds += r.seconds, since += r.seconds, loss += double{r.loss};
                         if (++steps < 100 && r.iteration + 1 < r.iterations) return;
                         fmt::print("{:6d}/{} {:6.1f} s  loss {:.4f}  lr {:.5f} {:6.0f} images/s\n", r.iteration + 1,
                                    r.iterations, seconds, loss / static_cast<double>(steps), r.lr,
                                    static_cast<double>(steps * r.images) / since);
                         std::fflush(stdout);
                         since = loss = 0, steps = 0;
                       },
                   .on_health =
                       [](const ssl::HealthReading& h) {
                         if (h.iteration % 500 != 0) return;
                         for (const auto& m : h.metrics)
                           fmt::print("  {} {:.3f}{}", m.name, m.value, m.band == ssl::Band::healthy ? "" : "!");
                         fmt::print("\n");
                       },
                   .on_message = [](const ssl::HealthMessage& m) { fmt::print("{}\n", m.text()); },
                   .on_evaluation =
                       [](int64_t iteration, const auto& numbers) {
                         for (const auto& [name, value] : numbers)
                           fmt::print("{:6d} {} {:.2f} %\n", iteration, name, value);
                         std::fflush(stdout);
                       },
                   .on_notice = [](const std::string& sentence) { fmt::print("{}\n", sentence); }});
  if (trainer.fit(loader, recipe.run).interrupted) return 130;
  if (recipe.only_knn) return 0;

  fmt::print("\n{:<34}{:>8}{:>14}{:>14}\n", "test accuracy, %", "kNN", "linear", fmt::format("{} labels", few.size()));
  row("raw pixels", training.pixels, test.pixels);
  row("untrained network", embed(*untrained, training), embed(*untrained, test));
  row("pre-trained network", embed(*trunk, training), embed(*trunk, test));
  data::MultiCrop mild = recipe.views;
  mild.crops = {{1, 28, {recipe.tune_scale, 1.f}}};
  mild.blur_p = mild.jitter_p = 0.f;
  const auto tune_row = [&](const char* name, const nn::Trunk& start) {
    const auto copy = nn::regnet(recipe.trunk, recipe.seed);
    ssl::copy_weights(start, *copy);
    data::Loader labelled(data::subset(source, few), mild, {.batch = 100, .seed = recipe.seed});
    const auto tuned = ssl::fine_tune(
        copy, [&](int64_t) { return labelled.next(); }, recipe.tune);
    fmt::print("{:<34}{:>8}{:>14}{:>14.1f}\n", name, "", "",
               100 * ssl::accuracy(tuned.classify(test.images(), test.count()), test.labels));
    std::fflush(stdout);
  };
  tune_row("from scratch on the few labels", *untrained);
  tune_row("pre-trained, fine-tuned on them", *trunk);
  return 0;
}

int main(int argc, char** argv) {
  Recipe recipe;
  CLI::App app("SwAV pre-training on Fashion-MNIST, and what the features are worth");
  recipe.flags(app);
  CLI11_PARSE(app, argc, argv);
  try {
    return run(recipe);
  } catch (const Error& error) {
    fmt::print(stderr, "saccade-demo: {}\n", error.what());
    return 1;
  }
}
