#include <fmt/format.h>
#include <saccade/core/io/element_type.h>
#include <saccade/core/io/input_file.h>
#include <saccade/core/io/weight_file.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

namespace saccade::io {
namespace {

namespace fs = std::filesystem;

WeightFile read_safetensors(const fs::path& path) {
  SafetensorsHeader header = read_safetensors_header(path);
  const InputFile file(path);
  const ByteSource source(file);
  WeightFile result{{}, std::move(header.metadata), {}};
  CastCount casts;
  const Device device = DeviceScope::current();
  for (const SafetensorsEntry& entry : header.entries) {
    const ElementType* type = element_type(entry.type);
    casts.add(*type);
    if (device == Device::meta) {
      result.tensors.push_back({entry.name, Tensor::empty(entry.shape, type->becomes)});
      continue;
    }
    const DeviceScope here(Device::cpu);
    const Tensor tensor = Tensor::empty(entry.shape, type->becomes);
    read_elements(*type, source, header.data_offset + entry.begin, static_cast<uint64_t>(tensor.numel()), tensor.raw());
    result.tensors.push_back({entry.name, tensor.to(device)});
  }
  result.words = casts.words();
  return result;
}

}  // namespace

WeightFile load_weights(const fs::path& path) { return read_safetensors(path); }

}  // namespace saccade::io
