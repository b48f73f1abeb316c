#pragma once

/// @file
/// The flags that say which network is used and how images are shown to it.

#include <fmt/format.h>
#include <saccade/data/multi_crop.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/network.h>
#include <saccade/vision/features.h>

#include <filesystem>
#include <string>
#include <vector>

#include "flag_checks.h"
#include "program.h"

namespace saccade::program {

inline int channels_of(const std::string& trunk) { return static_cast<int>(nn::input_channels(trunk)); }

/// Says what of weights was taken; line by line as well where much does not fit.
inline void say(const nn::KeyMatch& match, const std::string& trunk, const std::filesystem::path& file) {
  fmt::print("{} from {}: {}\n", trunk, file.string(), match.describe());
  if (match.missing.size() + match.misshapen.size() + match.left_over.size() > 5) fmt::print("{}", match.table());
}

/// The flags that say which network, and the network they say.
struct Weights {
  std::string path;
  ssl::NetworkOptions given;

  void flags(CLI::App& app) {
    app.add_option("--weights", path,
                   "Run folder, checkpoint, or a network in a file of another program: safetensors, PyTorch's .pth "
                   "and the like, a Hugging Face folder")
        ->required()
        ->group("Network");
    const char* found = "as the weights say";
    app.add_option("--trunk", given.trunk, "Which network it is")
        ->default_str("as the weights say, or by their tensors")
        ->group("Network");
    app.add_option("--size", given.size, "Pixels a side shown to it")
        ->default_str(found)
        ->group("Network")
        ->check(program::between(1, 7000));
    app.add_option("--view", given.view,
                   "How images become that size: middle (the shorter side scaled to 8/7 of it, then the middle) or "
                   "whole (all of the image scaled to it)")
        ->check(CLI::IsMember({"middle", "whole"}))
        ->default_str("as the weights say, or middle")
        ->group("Network");
    app.add_option("--mean", given.mean, "Of red, green and blue")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_mean());
    app.add_option("--std", given.std, "")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_deviation());
    app.add_flag("--allow-partial", given.allow_partial, "Take weights that do not fit the network in all places")
        ->group("Network");
  }

  /// Builds the network on a device, fills it, and says with what. Throws Error if the weights are not wholly this
  /// network's, unless that is allowed.
  ssl::Network load(CLI::App& app, Device device);
};

/// Reads weights. A checkpoint that carries nothing, as they did not at first, is told by the settings of its run.
inline ssl::Weights read_weights(const CLI::App& app, const std::string& path) {
  ssl::Weights weights = ssl::read_weights(path);
  for (const std::string& word : weights.words) fmt::print(stderr, "{}: {}\n", app.get_name(), word);
  const auto config = std::filesystem::absolute(weights.file).parent_path().parent_path() / "config.toml";
  if (weights.layout == nn::Layout::own && weights.metadata.empty() && std::filesystem::exists(config)) {
    auto settings = settings_of_file(config);
    for (const char* key : {"trunk", "mean", "std", "view", "seed"})
      if (settings.contains(key)) weights.metadata[key] = settings[key];
    if (settings.contains("crops"))
      weights.metadata["size"] = fmt::format("{}", data::parse_crops(settings["crops"])[0].size);
  }
  return weights;
}

inline ssl::Network Weights::load(CLI::App& app, Device device) {
  given.device = device;
  ssl::Network network = ssl::load_network(read_weights(app, path), given);
  say(network.match, network.info.trunk, network.file);
  return network;
}

/// Rows of several kinds of the same images; those that could not be read are listed on stderr.
inline std::vector<data::Rows> left_out(std::vector<data::Rows> rows) {
  for (const data::Failure& failure : rows.front().failures) fmt::print(stderr, "left out: {}\n", failure.reason);
  return rows;
}

/// Features of all images of a source; those that cannot be read are listed on stderr and left out.
inline data::Rows features(const ssl::Network& network, const data::Source& source, int workers) {
  return left_out({vision::features(network, source, workers)}).front();
}

}  // namespace saccade::program
