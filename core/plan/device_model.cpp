#include <fmt/format.h>
#include <fmt/ranges.h>
#include <saccade/core/plan/device_model.h>
#include <saccade/core/plan/devices.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace saccade::plan {
namespace {

DeviceDescription parse(const std::string& where, const nlohmann::json& json) {
  const auto number = [&](const char* member) {
    if (!json.contains(member) || !json[member].is_number() || json[member].get<double>() <= 0)
      throw Error(fmt::format("{}: expected a positive number \"{}\"", where, member));
    return json[member].get<double>();
  };
  const auto share = [&](const char* member) {
    const double value = number(member);
    if (value > 1) throw Error(fmt::format("{}: \"{}\" is a share of the peak, got {}", where, member, value));
    return value;
  };
  if (!json.is_object() || !json.contains("name") || !json["name"].is_string())
    throw Error(fmt::format("{}: expected an object with a \"name\"", where));
  DeviceDescription d{.name = json["name"].get<std::string>()};
  d.memory_bytes = static_cast<int64_t>(number("memory_bytes"));
  d.reserved_bytes = static_cast<int64_t>(number("reserved_bytes"));
  if (d.reserved_bytes >= d.memory_bytes)
    throw Error(fmt::format("{}: {} bytes are reserved of {}", where, d.reserved_bytes, d.memory_bytes));
  d.f32_flops = number("f32_flops");
  d.f16_flops = number("f16_flops");
  d.bf16_flops = number("bf16_flops");
  d.bytes_per_second = number("bytes_per_second");
  d.call_seconds = number("call_seconds");
  d.convolution = share("convolution");
  d.grouped_convolution = share("grouped_convolution");
  d.matmul = share("matmul");
  d.batch_norm = share("batch_norm");
  d.memory = share("memory");
  if (json.contains("conv_workspaces")) {
    if (!json["conv_workspaces"].is_string())
      throw Error(fmt::format("{}: expected a name of recorded \"conv_workspaces\"", where));
    d.conv_workspaces = json["conv_workspaces"].get<std::string>();
  }
  return d;
}

DeviceDescription parse(const std::string& where, const std::string& text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_discarded()) throw Error(fmt::format("{}: not JSON", where));
  return parse(where, json);
}

}  // namespace

std::vector<std::string> device_names() {
  std::vector<std::string> names;
  for (const DeviceFile& file : device_files()) names.emplace_back(file.name);
  return names;
}

DeviceDescription device_description(std::string_view name_or_path) {
  for (const DeviceFile& file : device_files())
    if (file.name == name_or_path) return parse(fmt::format("device {}", file.name), std::string(file.text));
  const std::string path(name_or_path);
  if (path.find_first_of("./") == std::string::npos)
    throw Error(fmt::format("device: \"{}\" is neither one of {} nor the path of a JSON file", path,
                            fmt::join(device_names(), ", ")));
  std::ifstream file(path);
  if (!file) throw Error(fmt::format("device: cannot read {}", path));
  return parse(path, std::string(std::istreambuf_iterator<char>(file), {}));
}

double DescribedDevice::seconds(const kernels::Call& call) {
  const kernels::Cost cost = kernels::cost_of(call);
  if (cost.flops == 0 && cost.bytes_moved == 0) return 0;
  DType dtype = DType::f32;
  double arithmetic = device_.matmul, traffic = device_.memory;
  std::visit(
      [&](const auto& c) {
        if constexpr (requires { c.conv; }) {
          dtype = c.conv.dtype;
          if (c.conv.kernel > 1) arithmetic = c.conv.groups > 1 ? device_.grouped_convolution : device_.convolution;
        }
        if constexpr (requires { c.product; }) dtype = c.product.dtype;
        if constexpr (requires { c.norm; }) traffic = device_.batch_norm;
      },
      call);
  const double peak = dtype == DType::f16    ? device_.f16_flops
                      : dtype == DType::bf16 ? device_.bf16_flops
                                             : device_.f32_flops;
  return std::max(cost.flops / (peak * arithmetic), cost.bytes_moved / (device_.bytes_per_second * traffic)) +
         device_.call_seconds;
}

}  // namespace saccade::plan
