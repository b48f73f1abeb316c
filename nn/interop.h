#pragma once

#include <saccade/nn/module.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// @file
/// State dicts of other programs: their names and layouts, for RegNets, ResNets, SwAV's heads and a classifier.

namespace saccade::nn {

/// Whose names.
enum class Names : uint8_t {
  torchvision,  ///< "trunk_output.block1.block1-0.f.a.0.weight": what modules here are named
  timm,         ///< "s1.b1.conv1.conv.weight"; ResNets as torchvision
  vissl,        ///< "_feature_blocks.res2.block1-0.f.a.0.weight"; heads "0.projection_head.0.weight"
  classy,       ///< ClassyVision: "trunk_output.block1.block1-0.f.a.0.weight", but other shortcuts and last layers
  pycls,        ///< "s1.b1.f.a.weight"
  swav,         ///< the SwAV authors' checkpoints: torchvision's, with "module." before each
};

/// The names in use: "torchvision", "timm", "vissl", "classy", "pycls", "swav".
std::string_view name_of(Names names);
/// Throws on any other word, naming these.
Names names_of(std::string_view word);

/// Every parameter and buffer: our name, and its name there. A leading "trunk." (a whole model's trunk) is dropped:
/// elsewhere a trunk stands at the root. "fc" is the classifier. SwAV's queues (queue0, queue1)
/// are left out: other programs do not keep them there. Throws where the other program has no such thing.
std::vector<std::pair<std::string, std::string>> name_map(const Module& module, Names names);

/// Parameters and buffers as the other program stores them: convolution weights (out, in / groups, k, k), those of
/// squeeze-excite (out, in, 1, 1), and an i64 num_batches_tracked of 0 behind each running variance (nothing here
/// counts batches, and PyTorch reads it only where momentum is None). Copies on the CPU; a meta module is an error.
std::vector<NamedTensor> state_dict(const Module& module, Names names = Names::torchvision);

struct LoadReport {
  std::vector<std::string> matched;     ///< our names
  std::vector<std::string> missing;     ///< our names, not given: these kept their values
  std::vector<std::string> unexpected;  ///< given names that belong to nothing here
  bool complete() const { return missing.empty() && unexpected.empty(); }
  /// One sentence, with the first few names of each kind.
  std::string describe() const;
};

/// Copies the values of a state dict into a module. f16, bf16 and f32 are taken. Passed over without a word:
/// num_batches_tracked. Dropped from given names: the "module." of distributed wrappers, "_fsdp_wrapped_module.",
/// "_fpw_module.", and the "-part0" level of checkpointed VISSL stages. All else that does not fit is in the report;
/// a wrong shape throws, before anything is changed.
[[nodiscard]] LoadReport load_state_dict(Module& module, const std::vector<NamedTensor>& tensors,
                                         Names names = Names::torchvision);

/// Whose names these are: those that match most of the module's tensors (torchvision if none does better).
Names guess_names(const Module& module, const std::vector<NamedTensor>& tensors);

}  // namespace saccade::nn
