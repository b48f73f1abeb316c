/// How good are the features of a trained network? kNN and a linear classifier on labelled images, also on few of them.
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/linear_probe.h>
#include <saccade/ssl/eval/worth.h>
#include <saccade/vision/baselines.h>

#include <cmath>
#include <filesystem>

#include "eval/few_labels.h"
#include "images.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string train, test, knn = "20,0.07";
  bool linear = false, baselines = true, center = true;
  program::FewLabels few;
  program::Weights weights;
  program::ImageFlags images;
  program::Machine machine;

  void flags(CLI::App& app) {
    weights.flags(app);
    app.add_option("--train", train,
                   "Labelled images to learn from: a folder with one folder a class, IDX files, or a CSV of path and "
                   "label")
        ->required()
        ->group("Images");
    app.add_option(
           "--test", test,
           "Labelled images to be judged by, likewise; without it the other part of --train (folders train/ and test/ "
           "or val/, or a column of splits), or every fifth image of it")
        ->group("Images");
    images.flags(app);
    app.add_option("--knn", knn, "Neighbours and temperature of the vote")->capture_default_str()->group("Judging");
    app.add_option("--center", center,
                   "The vote is by cosines of features less their mean; false: of those as they are, as papers have it")
        ->capture_default_str()
        ->group("Judging");
    app.add_flag("--linear", linear,
                 "Also a linear classifier on the frozen features, with its AUROC where there are two classes")
        ->group("Judging");
    app.add_option("--baselines", baselines,
                   "Beside the features: raw pixels, and the network with its first weights (about as much work again)")
        ->capture_default_str()
        ->group("Judging");
    few.flags(app);
    machine.flags(app);
    app.set_config("--config", "", "Read flags from this TOML file; those given here win");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.footer(
        "Example:\n  saccade-eval --weights runs/photos --train labelled/train --test labelled/test --linear\n"
        "  saccade-eval --weights runs/cells --train cells.csv --linear --few-labels 0.01,0.1");
  }
};

ssl::KnnOptions parse_knn(const std::string& text) {
  ssl::KnnOptions options;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%ld,%f%c", &options.neighbours, &options.temperature, &rest) != 2 ||
      options.neighbours < 1 || !(options.temperature > 0) || !std::isfinite(options.temperature))
    throw Error(fmt::format("--knn {}: expected neighbours and temperature, as 20,0.07", text));
  return options;
}

int evaluate(CLI::App& app, Settings& s) {
  const Device device = s.machine.apply();
  ssl::KnnOptions knn = parse_knn(s.knn);
  knn.center = s.center;
  std::error_code none;
  if (!s.test.empty() && std::filesystem::equivalent(s.train, s.test, none))
    throw Error(
        fmt::format("--test {}: is what --train learns from; leave --test out to hold some of it back", s.test));
  const ssl::Network network = s.weights.load(app, device);
  const data::LabelledPair images =
      data::labelled_pair(s.train, s.test, s.images.options(program::channels_of(network.info.trunk)));
  const data::Source &train = images.train, &test = images.test;
  fmt::print("{}\n", images.summary);
  s.few.check(train);
  std::shared_ptr<nn::Trunk> untrained;
  std::vector<nn::Trunk*> trunks{network.trunk.get()};
  if (s.baselines) {
    untrained = program::on(device, [&] { return nn::trunk(network.info.trunk, network.info.seed); });
    trunks.push_back(untrained.get());
  }
  const auto rows_of = [&](const data::Source& source) {
    return s.baselines ? program::left_out(vision::features_and_pixels(trunks, network.info, source, s.machine.workers))
                       : std::vector{program::features(network, source, s.machine.workers)};
  };
  const std::vector<data::Rows> bank = rows_of(train), queries = rows_of(test);
  const std::vector<int>& labels = bank[0].labels;
  fmt::print("{} images of {} classes to learn from, {} to be judged by, at {} x {} pixels; {} features\n",
             bank[0].indices.size(), train.num_classes(), queries[0].indices.size(), network.info.size,
             network.info.size, bank[0].rows.dim(1));
  if (s.baselines) fmt::print("{:<32}{:>9}{:>20}{:>14}\n", "", "features", "untrained network", "raw pixels");

  std::vector<std::string> sentences;
  // A row of the table: of the features, then of what nobody trained. `judge` says what rows of a kind are worth, and
  // what it chose for that.
  struct Judged {
    std::string chosen;
    double worth;
  };
  const auto print = [&](const std::string& measure, const std::string& how, const auto& judge) {
    std::vector<double> worth;
    for (size_t of = 0; of < bank.size(); ++of) {
      const Judged judged = judge(of);
      worth.push_back(judged.worth);
      constexpr int widths[] = {7, 18, 12};
      fmt::print("{:<{}}{:>{}.2f} %", of == 0 ? how + judged.chosen : "", of == 0 ? 32 : 0, 100 * worth.back(),
                 widths[of]);
      std::fflush(stdout);
    }
    fmt::print("\n");
    if (!s.baselines) return;
    const std::string below =
        ssl::below_baselines(measure, worth[0], {{"raw pixels", worth[2]}, {"untrained network", worth[1]}});
    if (!below.empty()) sentences.push_back(below);
  };
  const std::vector<int>& truth = queries[0].labels;
  print("kNN", fmt::format("kNN, k = {}, T = {}{}", knn.neighbours, knn.temperature, knn.center ? "" : ", as is"),
        [&](size_t of) {
          return Judged{"", ssl::accuracy(ssl::knn_classify(bank[of].rows, labels, queries[of].rows, knn), truth)};
        });
  if (s.linear) {
    std::vector<ssl::Worth> worths;
    print("linear", "linear, L2 ", [&](size_t of) {
      const ssl::LinearProbe probe = ssl::fit_linear_probe(bank[of].rows, labels);
      worths.push_back(ssl::worth_of(probe, queries[of].rows, truth));
      return Judged{fmt::format("{:g}", probe.l2), worths[of].accuracy};
    });
    if (train.num_classes() == 2) {
      const std::string of_last = fmt::format("AUROC for {}", data::printable(train.class_names[1]));
      if (worths[0].auroc)
        print("AUROC", of_last, [&](size_t of) { return Judged{"", worths[of].auroc.value()}; });
      else
        sentences.push_back(of_last + ": none, because it takes images of both classes");
    }
  }
  if (!s.few.shares.empty()) s.few.judge(network, images, bank, queries, s.machine.workers);
  for (const std::string& sentence : sentences) fmt::print("{}\n", sentence);
  return 0;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  Settings settings;
  CLI::App app("Judges a trained network by labelled images: kNN, a linear classifier, and what few labels do with it.",
               "saccade-eval");
  settings.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return evaluate(app, settings); });
}
