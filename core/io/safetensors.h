#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/core/io/element_type.h>
#include <saccade/core/named_tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// The safetensors file format (github.com/huggingface/safetensors): a u64 length, a JSON header, the tensors' bytes.

namespace saccade::io {

using Metadata = std::map<std::string, std::string>;

/// What the header says of one tensor. The type is the file's name for it ("F32"), because files may hold types that no
/// Tensor has.
struct SafetensorsEntry {
  std::string name, type;
  Shape shape;
  uint64_t begin = 0, end = 0;  ///< bytes, from the end of the header
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< in the order of the data
  Metadata metadata;
  uint64_t data_offset = 0;  ///< from the start of the file
};

/// Checks every rule of the format: no key twice; offsets that follow one another from 0 without hole or overlap to the
/// last of `data_bytes`; shapes that fill them, computed without overflow. Throws Error with the rule that was broken.
/// Headers are at most 100 MB, their strings 4 MiB, ranks 64, and metadata 65,536 pairs.
SafetensorsHeader parse_safetensors_header(std::string_view text, uint64_t data_bytes);
SafetensorsHeader read_safetensors_header(const ByteSource& source);
SafetensorsHeader read_safetensors_header(const std::filesystem::path& path);  ///< errors name the file

/// The tensors of a source with that header, each straight into its memory; counts what was cast. Under
/// DeviceScope(Device::meta): shapes only.
std::vector<NamedTensor> read_tensors(const ByteSource& source, const SafetensorsHeader& header, CastCount& casts);

struct Safetensors {
  std::vector<NamedTensor> tensors;  ///< in the order of the data
  Metadata metadata;
  /// Throws Error when there is no tensor of that name.
  const Tensor& operator[](std::string_view name) const;
};

/// Reads the whole file, each tensor straight into its memory. Under DeviceScope(Device::meta): shapes only. Throws
/// Error, naming the file, when a rule is broken or when a tensor has a type other than F32, F16, BF16, I32, I64, U8.
Safetensors load_safetensors(const std::filesystem::path& path);

/// Writes atomically (see AtomicFile): larger element types first, then by name, data from a multiple of 64. Throws
/// Error on a name given twice and on tensors without data; NotCommitted and DurabilityUncertain as AtomicFile does.
void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                      const Metadata& metadata = {});

}  // namespace saccade::io
