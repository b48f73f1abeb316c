#include <fmt/format.h>
#include <saccade/core/io/atomic_file.h>
#include <saccade/core/io/input_file.h>
#include <saccade/core/io/safetensors.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace saccade::io {
namespace {

std::string type_name(DType dtype) {
  std::string name(name_of(dtype));
  for (char& c : name) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string json_string(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error("save_safetensors: a name or a metadata string is not UTF-8");
  }
}

}  // namespace

const Tensor& Safetensors::operator[](std::string_view name) const {
  for (const NamedTensor& each : tensors)
    if (each.name == name) return each.tensor;
  throw Error(fmt::format("there is no tensor '{}' among the {} of this file", name, tensors.size()));
}

std::vector<NamedTensor> read_tensors(const ByteSource& source, const SafetensorsHeader& header, CastCount& casts) {
  std::vector<NamedTensor> tensors;
  tensors.reserve(header.entries.size());
  const Device device = DeviceScope::current();
  for (const SafetensorsEntry& entry : header.entries) {
    const ElementType& type = *element_type(entry.type);
    casts.add(type);
    const DeviceScope here(device == Device::meta ? device : Device::cpu);
    const Tensor tensor = Tensor::empty(entry.shape, type.becomes);
    if (device != Device::meta)
      read_elements(type, source, header.data_offset + entry.begin, static_cast<uint64_t>(tensor.numel()),
                    tensor.raw());
    tensors.push_back({entry.name, tensor.to(device)});
  }
  return tensors;
}

Safetensors load_safetensors(const std::filesystem::path& path) {
  SafetensorsHeader header = read_safetensors_header(path);
  for (const SafetensorsEntry& entry : header.entries)
    if (type_name(element_type(entry.type)->becomes) != entry.type)
      throw Error(fmt::format("{}: tensor '{}' has the type {}; only F32, F16, BF16, I32, I64 and U8 can be loaded",
                              path.string(), entry.name, entry.type));
  const InputFile file(path);
  CastCount none;
  return {read_tensors(ByteSource(file), header, none), std::move(header.metadata)};
}

void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                      const Metadata& metadata) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& each : tensors) {
    if (!each.tensor.defined() || each.tensor.device() == Device::meta)
      throw Error(fmt::format("save_safetensors: tensor '{}' has no data to save", each.name));
    order.push_back(&each);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    const size_t size_a = size_of(a->tensor.dtype()), size_b = size_of(b->tensor.dtype());
    return size_a != size_b ? size_a > size_b : a->name < b->name;
  });
  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) header += json_string(key) + ':' + json_string(value) + ',';
    header.back() = '}';
    header += ',';
  }
  uint64_t position = 0;
  for (const NamedTensor* each : order) {
    const uint64_t end = position + each->tensor.bytes();
    header += fmt::format(R"({}:{{"dtype":"{}","shape":{},"data_offsets":[{},{}]}},)", json_string(each->name),
                          type_name(each->tensor.dtype()), nlohmann::json(each->tensor.shape()).dump(), position, end);
    position = end;
  }
  if (header.back() == ',') header.pop_back();
  header += '}';
  header.resize((sizeof(uint64_t) + header.size() + 63) / 64 * 64 - sizeof(uint64_t), ' ');
  parse_safetensors_header(header, position);  // what could not be read is not written: names given twice, above all

  write_file_atomically(path, [&](AtomicFile& file) {
    const uint64_t length = header.size();
    file.write(&length, sizeof(length));
    file.write(header);
    for (const NamedTensor* each : order) {
      const Tensor here = each->tensor.to(Device::cpu);
      file.write(here.raw(), here.bytes());
    }
  });
}

}  // namespace saccade::io
