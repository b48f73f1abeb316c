/// How good are the features of a trained network? kNN and a linear classifier on labelled images.
#include <saccade/ssl/eval/knn.h>
#include <saccade/ssl/eval/linear_probe.h>

#include <cmath>
#include <filesystem>

#include "images.h"
#include "weights.h"

using namespace saccade;

struct Settings {
  std::string train, test, knn = "20,0.07";
  bool linear = false;
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
    app.add_flag("--linear", linear, "Also a linear classifier on the frozen features")->group("Judging");
    machine.flags(app);
    app.set_config("--config", "", "Read flags from this TOML file; those given here win");
    app.allow_config_extras(CLI::config_extras_mode::error);
    app.footer("Example:\n  saccade-eval --weights runs/photos --train labelled/train --test labelled/test --linear");
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
  const ssl::KnnOptions knn = parse_knn(s.knn);
  std::error_code none;
  if (!s.test.empty() && std::filesystem::equivalent(s.train, s.test, none))
    throw Error(
        fmt::format("--test {}: is what --train learns from; leave --test out to hold some of it back", s.test));
  const ssl::Network network = s.weights.load(app, device);
  const auto [train, test, summary] =
      data::labelled_pair(s.train, s.test, s.images.options(program::channels_of(network.info.trunk)));
  fmt::print("{}\n", summary);
  const data::Rows bank = program::features(network, train, s.machine.workers);
  const data::Rows queries = program::features(network, test, s.machine.workers);
  fmt::print("{} images of {} classes to learn from, {} to be judged by, at {} x {} pixels; {} features\n",
             bank.indices.size(), train.num_classes(), queries.indices.size(), network.info.size, network.info.size,
             bank.rows.dim(1));

  const auto print = [&](const std::string& name, const std::vector<int>& predicted) {
    fmt::print("{:<32}{:7.2f} %\n", name, 100 * ssl::accuracy(predicted, queries.labels));
    std::fflush(stdout);
  };
  print(fmt::format("kNN, k = {}, T = {}", knn.neighbours, knn.temperature),
        ssl::knn_classify(bank.rows, bank.labels, queries.rows, knn));
  if (s.linear) {
    const ssl::LinearProbe probe = ssl::fit_linear_probe(bank.rows, bank.labels);
    print(fmt::format("linear, L2 {:g}", probe.l2), probe.classify(queries.rows));
  }
  return 0;
}

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape): only if there is no memory for the flags
  Settings settings;
  CLI::App app("Judges a trained network by labelled images: kNN and a linear classifier.", "saccade-eval");
  settings.flags(app);
  return program::run(app, {argv + 1, argv + argc}, [&] { return evaluate(app, settings); });
}
