#pragma once

#include <cstdint>
#include <string_view>

namespace saccade {

/// Where a tensor lives and who computes on it. `meta` has shapes, costs and an accounting allocator, but no memory.
enum class Device : uint8_t { cpu, meta };

constexpr std::string_view name_of(Device device) { return device == Device::cpu ? "cpu" : "meta"; }

}  // namespace saccade
