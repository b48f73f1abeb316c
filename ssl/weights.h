#pragma once

#include <saccade/core/io/safetensors.h>
#include <saccade/nn/key_match.h>
#include <saccade/nn/trunk.h>
#include <saccade/ssl/train/objective.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Networks in files: our own, with what is needed to use them, and those of other programs.

namespace saccade::ssl {

/// Which network it is, and how images are shown to it. Every file of weights that is written here carries it.
struct TrunkInfo {
  std::string trunk;  ///< as nn::trunk() takes it
  int size = 224;     ///< pixels a side
  std::vector<float> mean{0.485f, 0.456f, 0.406f}, std{0.229f, 0.224f, 0.225f};
  std::string view = "middle";  ///< the rule by which images are brought to that size: see data::ViewRule
  uint64_t seed = 0;            ///< of its first weights: nn::trunk(trunk, seed) is the network before it learned

  /// Texts under the keys "trunk", "size", "mean", "std", "view", "seed".
  io::Metadata metadata() const;
  /// Takes what a file's metadata says and leaves the rest. Throws Error, naming the file, when something there is no
  /// such number or rule.
  void take(const io::Metadata& metadata, const std::filesystem::path& file);
};

/// The tensors of a file, and what it says of them.
struct Weights {
  std::filesystem::path file;
  std::vector<NamedTensor> tensors;
  nn::Layout layout = nn::Layout::pytorch;
  io::Metadata metadata;           ///< of a TrunkInfo, from save_trunk() or what a trainer was told to carry; or empty
  std::vector<std::string> words;  ///< lines to say
};

/// Reads a run folder (its trunk.safetensors, or else its newest checkpoint that verifies), a checkpoint wherever it
/// lies and whatever it is called, or any file or folder that io::load_weights() takes. Throws Error.
Weights read_weights(const std::filesystem::path& path);

/// The network these weights are: what they say, or else the one named trunk that they fit. Throws Error when neither
/// tells.
std::string trunk_of(const Weights& weights);

/// Fills a trunk from weights. Throws Error, with the trunk as it was: when they hold values that no network has, with
/// the tensor's name; when nothing of the trunk is there; when not all fits, unless partial ones are allowed.
nn::KeyMatch load_trunk(nn::Trunk& trunk, const Weights& weights, bool allow_partial = false);

/// What an objective took from weights.
struct InitReport {
  nn::KeyMatch trunk;
  std::vector<std::string> parts;  ///< that were taken beside it: see Objective::parts_from()
  std::vector<std::string> lines;  ///< what was taken, what was not and why, what begins anew: a sentence each
  bool took(std::string_view part) const { return std::ranges::find(parts, part) != parts.end(); }
};

/// Starts an objective from weights: the trunk as load_trunk() does, then those of its parts that are there and fit.
/// What is not taken keeps its first values. Optimizer, schedule and health monitor are a trainer's: they begin anew.
/// Throws Error, with the model as it was, as load_trunk() does, and when what would be taken holds such values.
InitReport init_from(Objective& objective, const Weights& weights, bool allow_partial = false);

/// Writes a trunk for others and ourselves, atomically. Throws Error, with nothing written, when it holds a value that
/// is not finite.
void save_trunk(const std::filesystem::path& path, const nn::Trunk& trunk, nn::Names names, const TrunkInfo& info);

}  // namespace saccade::ssl
