#pragma once

#include <span>
#include <string_view>

namespace saccade::plan {

/// A file of core/plan/devices, made part of the library when the build is configured.
struct DeviceFile {
  std::string_view name, json;
};
std::span<const DeviceFile> device_files();

}  // namespace saccade::plan
