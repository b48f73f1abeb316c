#pragma once

#include <saccade/nn/interop.h>
#include <saccade/nn/module.h>

#include <string>
#include <utility>
#include <vector>

/// @file
/// Where in a state dict a module is, whoever wrote it and however it was wrapped, and how well it fits.

namespace saccade::nn {

/// How the tensors of a file lie.
enum class Layout : uint8_t {
  pytorch,  ///< as other programs keep them, and state_dict() does
  own,      ///< as in memory here: checkpoints
};

/// What of a module is in a state dict. It keeps the tensors of both.
struct KeyMatch {
  Layout layout = Layout::pytorch;
  Names names = Names::torchvision;     ///< whose names they are
  std::string prefix;                   ///< what stands before them: "teacher.backbone."
  std::vector<std::string> also_under;  ///< prefixes of other places where all of it is as well
  std::vector<std::string> matched;     ///< our names
  std::vector<std::string> missing;     ///< our names, not given
  std::vector<std::string> misshapen;   ///< "layer1.0.conv1.weight is f32 (64, 3), expected floating-point (64, 64)"
  std::vector<std::string> left_over;   ///< given names that are of such a network, and of no part of this one
  std::vector<std::string> elsewhere;   ///< given names outside: heads, classifiers, other networks, optimizers

  /// All of the module is given, and it is all of that network.
  bool whole() const { return missing.empty() && misshapen.empty() && left_over.empty(); }
  /// "found under 'teacher.backbone.' in timm's names"
  std::string place() const;
  /// One sentence, with the first few names of each kind.
  std::string describe() const;
  /// Lines "part, matched, missing, of another shape": one for each stage of the module.
  std::string table() const;
  /// "272 tensors, found under ...": the beginning of describe().
  std::string describe_matched() const;
  /// See below, of the given tensors that are matched.
  std::string impossible_value() const;
  /// Copies what is matched into the module. Throws Error, before anything is changed, if there is an
  /// impossible_value().
  void load() const;

  std::vector<std::pair<NamedTensor, NamedTensor>> pairs;  ///< of `matched`: ours, given
};

/// Finds the module in a state dict: the prefix, out of all that the names there have, and the program's names under
/// which most of it fits. Between the names of a prefix and anywhere in them the layers of wrappers are seen through:
/// "module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_checkpoint_wrapped_module", and the "block1-part0"
/// of checkpointed VISSL stages; num_batches_tracked is passed over. f16, bf16 and f32 are taken.
///
/// Where all of it is in several places, the one is taken that its authors evaluate: a teacher or an average of weights
/// (ema) before others, encoder_q and backbones before what follows them with momentum (encoder_k, momentum_encoder,
/// target), a student behind a teacher, then the shorter prefix.
///
/// Throws Error when one name is there twice, in one case within a wrapper's name.
KeyMatch match_keys(const Module& module, const std::vector<NamedTensor>& tensors, Layout layout = Layout::pytorch);
/// In this place, with these names alone.
KeyMatch match_keys(const Module& module, const std::vector<NamedTensor>& tensors, Names names,
                    const std::string& prefix, Layout layout = Layout::pytorch);

/// A sentence that names the first tensor with a value that no network has: one that is not a number or infinite, or a
/// running variance below zero. Empty if there is none. Other types than f32, f16 and bf16, and the meta device, are
/// passed over.
std::string impossible_value(const std::vector<NamedTensor>& tensors);

/// The named trunks (see trunk()) that these tensors are wholly, as "y_400mf" or "resnet50"; those of the same shapes
/// but another stride of the stem cannot be told apart, and the plain one is meant. Usually one; none when it is no
/// network that has a name.
std::vector<std::string> trunks_of(const std::vector<NamedTensor>& tensors);

}  // namespace saccade::nn
