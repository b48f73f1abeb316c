#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/core/io/safetensors.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

/// @file
/// Weights in whatever file other programs keep them.

namespace saccade::io {

struct WeightFile {
  /// Names are the keys of all dictionaries on the way, joined with '.': "state_dict.layer1.0.weight". In lists and
  /// tuples the keys are 0, 1, ...; a file that is one tensor calls it "tensor".
  std::vector<NamedTensor> tensors;
  /// What a safetensors file says of itself; of a PyTorch file the numbers, texts and short lists of them that lie
  /// beside the tensors, named likewise: {"epoch", "100"}, {"args.arch", "resnet50"}.
  Metadata metadata;
  /// Lines to say: types that were cast, checksums that differ.
  std::vector<std::string> words;
};

/// Reads a file by what is in it, whatever it is called: safetensors, or what PyTorch saves (.pth, .pt, .bin, .pth.tar;
/// its zip files and those from before 1.6), or pickles of NumPy arrays. A folder: as Hugging Face lays it out,
/// model.safetensors or pytorch_model.bin or one of their .index.json files with the shards beside it.
///
/// F64 is cast to f32, other types that no Tensor has to the next that holds their values. Under
/// DeviceScope(Device::meta): shapes only. Nothing in a file is ever run.
///
/// Throws Error, naming the file, when a rule of its format is broken; when it wants something called that is no part
/// of weights, with the name; and when it is something else: with what it is and how to turn it into what is taken.
WeightFile load_weights(const std::filesystem::path& path);

/// One file's bytes. Errors do not name it; of the path, which need not exist, the extension tells apart what has no
/// first bytes of its own. Takes at most 64 MiB and 4 times the bytes' number of memory.
WeightFile read_weights(const ByteSource& source, const std::filesystem::path& path);

/// Which tensor is in which file beside it, as Hugging Face's .index.json files say. Throws Error, without the file's
/// name, for what is no index and for files that are not beside it.
std::map<std::string, std::string> read_weight_index(const ByteSource& source);

}  // namespace saccade::io
