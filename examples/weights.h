#pragma once

/// @file
/// A trained trunk in a file, with what is needed to use it: which network it is and how images are shown to it.

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/autograd.h>
#include <saccade/core/io/checkpoint.h>
#include <saccade/core/io/safetensors.h>
#include <saccade/data/evaluate.h>
#include <saccade/nn/interop.h>
#include <saccade/nn/regnet.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/eval/features.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "flag_checks.h"
#include "program.h"

namespace saccade::program {

struct TrunkInfo {
  std::string trunk;  ///< as nn::trunk() takes it
  int size = 224;     ///< pixels a side
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};
};

inline int channels_of(const std::string& trunk) {
  return trunk.starts_with("resnet") ? 3 : static_cast<int>(nn::regnet_spec(trunk).in_channels);
}

/// How images of a source are shown to a network for evaluation.
inline data::EvalView view_of(const data::Source& source, const TrunkInfo& info) {
  data::EvalView view = data::eval_view(source, info.size);
  std::copy_n(info.mean.begin(), 3, view.mean.begin());
  std::copy_n(info.std.begin(), 3, view.std.begin());
  return view;
}

/// Features of all images of a source.
inline data::Rows features(nn::Trunk& trunk, const data::Source& source, const TrunkInfo& info, int workers = 0) {
  const NoGradScope no_grad;
  const ssl::EvaluationScope evaluation(trunk);
  return data::compute_rows(source, view_of(source, info),
                            [&](const Tensor& images) {
                              return program::elsewhere(trunk.device(), images,
                                                        [&](const Tensor& x) { return trunk.features(x); });
                            },
                            {.batch = 128, .workers = workers});
}

inline void save_trunk(const std::filesystem::path& path, const nn::Trunk& trunk, nn::Names names,
                       const TrunkInfo& info) {
  io::save_safetensors(path, nn::state_dict(trunk, names),
                       {{"format", "pt"},
                        {"trunk", info.trunk},
                        {"size", fmt::format("{}", info.size)},
                        {"mean", fmt::format("{}", fmt::join(info.mean, ","))},
                        {"std", fmt::format("{}", fmt::join(info.std, ","))}});
}

/// The flags that say which network, and the network they say.
struct Weights {
  std::string path;
  TrunkInfo info;
  bool allow_partial = false;
  std::shared_ptr<nn::Trunk> trunk;

  void flags(CLI::App& app) {
    app.add_option("--weights", path, "Run folder, checkpoint, or a trunk in a .safetensors file")
        ->required()
        ->group("Network");
    const char* found = "as the weights say";
    app.add_option("--trunk", info.trunk, "Which network it is")->default_str(found)->group("Network");
    app.add_option("--size", info.size, "Pixels a side shown to it")
        ->default_str(found)
        ->group("Network")
        ->check(program::between(1, 7000));
    app.add_option("--mean", info.mean, "Of red, green and blue")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_mean());
    app.add_option("--std", info.std, "")
        ->expected(3)
        ->default_str(found)
        ->group("Network")
        ->check(program::colour_deviation());
    app.add_flag("--allow-partial", allow_partial, "Take weights that do not fit the network in all places")
        ->group("Network");
  }

  Device device = Device::cpu;  ///< for the network

  /// Builds the network and fills it. Throws Error if the weights are not wholly this network's, unless that is
  /// allowed.
  void load(CLI::App& app);
  /// Features of all images of a source; those that cannot be read are listed on stderr and left out.
  data::Rows features(const data::Source& source, int workers) const;
};

/// Takes a trunk out of one of our checkpoints, which hold tensors as they are in memory.
inline nn::LoadReport load_from_checkpoint(const nn::Trunk& trunk, const std::vector<NamedTensor>& tensors) {
  const std::string inside = "model.trunk.";
  std::map<std::string, Tensor> given;
  for (const NamedTensor& t : tensors)
    if (t.name.starts_with(inside)) given[t.name.substr(inside.size())] = t.tensor;
  nn::LoadReport report;
  for (const NamedTensor& own : trunk.named_tensors()) {
    const auto at = given.find(own.name);
    if (at == given.end() || at->second.shape() != own.tensor.shape()) {
      report.missing.push_back(own.name);
      continue;
    }
    own.tensor.copy_from(at->second);
    report.matched.push_back(own.name);
    given.erase(at);
  }
  for (const auto& [name, tensor] : given) report.unexpected.push_back(name);
  return report;
}

/// Takes a trunk out of a state dict of any program; a classifier or heads are passed over.
inline nn::LoadReport load_from_state_dict(nn::Trunk& trunk, std::vector<NamedTensor> tensors) {
  std::erase_if(tensors, [](const NamedTensor& t) {
    const std::string name = t.name.starts_with("module.") ? t.name.substr(7) : t.name;
    return name.starts_with("fc.") || name.starts_with("head.");
  });
  return nn::load_state_dict(trunk, tensors, nn::guess_names(trunk, tensors));
}

inline void Weights::load(CLI::App& app) {
  namespace fs = std::filesystem;
  fs::path file = path, config;
  std::vector<NamedTensor> tensors;
  std::map<std::string, std::string> known;  // what the file or its run says of the network
  if (!fs::exists(file)) throw Error(fmt::format("{}: there is no such file or folder", path));
  if (fs::is_directory(file)) {
    config = file / "config.toml";
    if (fs::exists(file / "trunk.safetensors")) {
      file /= "trunk.safetensors";
    } else {
      std::vector<std::string> problems;
      auto newest = io::latest_checkpoint(file / "checkpoints", problems);
      for (const std::string& problem : problems) fmt::print(stderr, "{}: {}\n", app.get_name(), problem);
      if (!newest) throw Error(fmt::format("{}: neither a trained network nor a checkpoint is in this folder", path));
      tensors = std::move(newest->tensors);
      file = newest->path;
    }
  } else if (file.extension() == ".ckpt") {
    config = fs::absolute(file).parent_path().parent_path() / "config.toml";
    tensors = io::load_checkpoint(file).tensors;
  }
  const bool checkpoint = !tensors.empty();
  if (!checkpoint) {
    io::Safetensors read = io::load_safetensors(file);
    tensors = std::move(read.tensors);
    known = std::move(read.metadata);
  } else if (fs::exists(config)) {
    known = settings_of_file(config);
    if (known.contains("crops")) known["size"] = fmt::format("{}", data::parse_crops(known["crops"])[0].size);
  }
  const auto take = [&](const char* flag, const char* key) {
    CLI::Option* option = app.get_option(flag);
    if (option->count() > 0 || !known.contains(key)) return;
    for (const std::string& value : CLI::detail::split(known[key], ',')) option->add_result(value);
    option->run_callback();
  };
  if (app.get_option("--trunk")->count() == 0) info.trunk = known["trunk"];  // a trunk's name may hold commas
  take("--size", "size");
  take("--mean", "mean");
  take("--std", "std");
  if (info.trunk.empty()) throw Error(fmt::format("{} does not say which network it is: give --trunk", file.string()));

  trunk = program::on(device, [&] { return nn::trunk(info.trunk); });
  const nn::LoadReport report =
      checkpoint ? load_from_checkpoint(*trunk, tensors) : load_from_state_dict(*trunk, tensors);
  if (!report.complete() && !allow_partial)
    throw Error(fmt::format("{} does not fit {}: {} (--allow-partial takes it all the same)", file.string(), info.trunk,
                            report.describe()));
  fmt::print("{} from {}: {}\n", info.trunk, file.string(), report.describe());
}

inline data::Rows Weights::features(const data::Source& source, int workers) const {
  data::Rows rows = program::features(*trunk, source, info, workers);
  for (const data::Failure& failure : rows.failures) fmt::print(stderr, "left out: {}\n", failure.reason);
  return rows;
}

}  // namespace saccade::program
