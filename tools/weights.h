#pragma once

/// @file
/// The flags that say which network is used and how images are shown to it, and features of it.

#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/data/evaluate.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/eval/features.h>
#include <saccade/ssl/weights.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "flag_checks.h"
#include "program.h"

namespace saccade::program {

inline int channels_of(const std::string& trunk) {
  return trunk.starts_with("resnet") ? 3 : static_cast<int>(nn::regnet_spec(trunk).in_channels);
}

/// How images are shown to a network for evaluation.
inline data::EvalView view_of(const ssl::TrunkInfo& info) {
  data::EvalView view = data::eval_view(data::view_rule_of(info.view), info.size);
  std::copy_n(info.mean.begin(), 3, view.mean.begin());
  std::copy_n(info.std.begin(), 3, view.std.begin());
  return view;
}

/// Features of all images of a source.
inline data::Rows features(nn::Trunk& trunk, const data::Source& source, const ssl::TrunkInfo& info, int workers = 0) {
  const NoGradScope no_grad;
  const ssl::EvaluationScope evaluation(trunk);
  return data::compute_rows(
      source, view_of(info),
      [&](const Tensor& images) {
        return program::elsewhere(trunk.device(), images, [&](const Tensor& x) { return trunk.features(x); });
      },
      {.batch = 32, .workers = workers}, [&](const Tensor& image) { return ssl::where_not_finite(trunk, image); });
}

/// Says what of weights was taken; line by line as well where much does not fit.
inline void say(const nn::KeyMatch& match, const std::string& trunk, const std::filesystem::path& file) {
  fmt::print("{} from {}: {}\n", trunk, file.string(), match.describe());
  if (match.missing.size() + match.misshapen.size() + match.left_over.size() > 5) fmt::print("{}", match.table());
}

/// The flags that say which network, and the network they say.
struct Weights {
  std::string path;
  bool allow_partial = false;
  ssl::TrunkInfo info;  ///< of the network that is loaded
  std::shared_ptr<nn::Trunk> trunk;
  Device device = Device::cpu;  ///< for the network

  void flags(CLI::App& app) {
    app.add_option("--weights", path,
                   "Run folder, checkpoint, or a network in a file of another program: safetensors, PyTorch's .pth "
                   "and the like, a Hugging Face folder")
        ->required()
        ->group("Network");
    const char* found = "as the weights say";
    app.add_option("--trunk", given_.trunk, "Which network it is")
        ->default_str("as the weights say, or by their tensors")
        ->group("Network");
    app.add_option("--size", given_.size, "Pixels a side shown to it")
        ->default_str(found)
        ->group("Network")
        ->check(program::between(1, 7000));
    app.add_option("--view", given_.view,
                   "How images become that size: middle (the shorter side scaled to 8/7 of it, then the middle) or "
                   "whole (all of the image scaled to it)")
        ->check(CLI::IsMember({"middle", "whole"}))
        ->default_str("as the weights say, or middle")
        ->group("Network");
    app.add_option("--mean", given_.mean, "Of red, green and blue")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_mean());
    app.add_option("--std", given_.std, "")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_deviation());
    app.add_flag("--allow-partial", allow_partial, "Take weights that do not fit the network in all places")
        ->group("Network");
  }

  /// Builds the network and fills it. Throws Error if the weights are not wholly this network's, unless that is
  /// allowed.
  void load(CLI::App& app);
  /// Features of all images of a source; those that cannot be read are listed on stderr and left out.
  data::Rows features(const data::Source& source, int workers) const;

 private:
  ssl::TrunkInfo given_;  ///< by flags
};

/// Reads weights. A checkpoint that carries nothing, as they did not at first, is told by the settings of its run.
inline ssl::Weights read_weights(const CLI::App& app, const std::string& path) {
  ssl::Weights weights = ssl::read_weights(path);
  for (const std::string& word : weights.words) fmt::print(stderr, "{}: {}\n", app.get_name(), word);
  const auto config = std::filesystem::absolute(weights.file).parent_path().parent_path() / "config.toml";
  if (weights.layout == nn::Layout::own && weights.metadata.empty() && std::filesystem::exists(config)) {
    auto settings = settings_of_file(config);
    for (const char* key : {"trunk", "mean", "std", "view"})
      if (settings.contains(key)) weights.metadata[key] = settings[key];
    if (settings.contains("crops"))
      weights.metadata["size"] = fmt::format("{}", data::parse_crops(settings["crops"])[0].size);
  }
  return weights;
}

inline void Weights::load(CLI::App& app) {
  const ssl::Weights weights = read_weights(app, path);
  const auto given = [&](const char* flag) { return app.get_option(flag)->count() > 0; };
  info.take(weights.metadata, weights.file);
  info.trunk = given("--trunk") ? given_.trunk : ssl::trunk_of(weights);
  if (given("--size")) info.size = given_.size;
  if (given("--view")) info.view = given_.view;
  if (given("--mean")) info.mean = given_.mean;
  if (given("--std")) info.std = given_.std;
  trunk = program::on(device, [&] { return nn::trunk(info.trunk); });
  say(ssl::load_trunk(*trunk, weights, allow_partial), info.trunk, weights.file);
}

inline data::Rows Weights::features(const data::Source& source, int workers) const {
  data::Rows rows = program::features(*trunk, source, info, workers);
  for (const data::Failure& failure : rows.failures) fmt::print(stderr, "left out: {}\n", failure.reason);
  return rows;
}

}  // namespace saccade::program
