#pragma once

#include <saccade/kernels/conv.h>

#include <string>
#include <utility>
#include <vector>

/// Devices that cuDNN plans for without having them, and what it is asked to plan.
namespace saccade::testing {

/// A JSON text of properties (tests/cudnn_plans/devices): "v100", "t4", "a100", "h100".
std::string properties_of(const std::string& device);
/// Why cuDNN does not take our description of the device: its format is not documented, and may change. Empty: it does.
std::string refusal(const std::string& device);
/// The convolutions of a trunk on a batch of two resolutions, each once. Those that the backend runs as matrix
/// products too: cuDNN has to have them all.
std::vector<std::pair<kernels::Conv2d, Segments>> convolutions_of(const std::string& net, DType dtype);

}  // namespace saccade::testing
