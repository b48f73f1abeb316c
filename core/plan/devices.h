#pragma once

#include <span>
#include <string_view>

namespace saccade::plan {

/// A file made part of the library when the build is configured.
struct DeviceFile {
  std::string_view name, text;
};
/// core/plan/devices/*.json
std::span<const DeviceFile> device_files();
/// core/plan/conv_workspaces/*.csv
std::span<const DeviceFile> conv_workspace_files();

}  // namespace saccade::plan
