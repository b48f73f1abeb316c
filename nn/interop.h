#pragma once

#include <saccade/nn/module.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// @file
/// State dicts of other programs: their names and layouts, for RegNets, ResNets, SwAV's heads and a classifier.
/// (What is in a file and how it fits: key_match.h.)

namespace saccade::nn {

/// Whose names.
enum class Names : uint8_t {
  torchvision,  ///< "trunk_output.block1.block1-0.f.a.0.weight": what modules here are named
  timm,         ///< "s1.b1.conv1.conv.weight"; ResNets as torchvision
  vissl,        ///< "_feature_blocks.res2.block1-0.f.a.0.weight"; heads "0.projection_head.0.weight"
  classy,       ///< ClassyVision: "trunk_output.block1.block1-0.f.a.0.weight", but other shortcuts and last layers
  pycls,        ///< "s1.b1.f.a.weight"; colours are blue, green, red
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
/// counts batches, and PyTorch reads it only where momentum is None). pycls shows its networks blue, green, red: their
/// stem has its three input channels the other way round. Copies on the CPU; a meta module is an error.
/// key_match.h goes the other way.
std::vector<NamedTensor> state_dict(const Module& module, Names names = Names::torchvision);

/// The shape in which they all keep the tensor of that name of ours.
Shape stored_shape(const std::string& name, const Shape& ours);

/// Writes a tensor as the other program keeps it (f32, f16 or bf16, of its stored_shape()) into ours of that name.
void load_stored(const std::string& name, const Tensor& stored, Names names, const Tensor& ours);

}  // namespace saccade::nn
