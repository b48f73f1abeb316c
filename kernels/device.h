#pragma once

#include <cstdint>
#include <string_view>

namespace saccade {

/// Where a tensor lives and who computes on it. `meta` has shapes, costs and an accounting allocator, but no memory.
/// `cuda` is the one NVIDIA GPU of the process (kernels/cuda_device.h says which).
enum class Device : uint8_t { cpu, meta, cuda };

constexpr std::string_view name_of(Device device) {
  return device == Device::cpu ? "cpu" : device == Device::meta ? "meta" : "cuda";
}

}  // namespace saccade
