#include "described_devices.h"

#include <saccade/core/autograd.h>
#include <saccade/kernels/cuda/cudnn_plan.h>
#include <saccade/kernels/error.h>
#include <saccade/kernels/rehearsal.h>
#include <saccade/nn/trunk.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace saccade::testing {

std::string properties_of(const std::string& device) {
  std::ifstream file(std::string(SACCADE_CUDNN_DEVICES) + "/" + device + ".json");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (text.empty()) throw std::invalid_argument("no description of device " + device);
  return text;
}

std::string refusal(const std::string& device) {
  try {
    const kernels::cuda::PlanTarget target(properties_of(device));
    return {};
  } catch (const Error& e) {
    return e.what();
  }
}

std::vector<std::pair<kernels::Conv2d, Segments>> convolutions_of(const std::string& net, DType dtype) {
  struct Listener final : kernels::MetaListener {
    std::vector<std::pair<kernels::Conv2d, Segments>> found;
    void on_call(const kernels::Call& call) override {
      const auto* forward = std::get_if<kernels::Conv2dForward>(&call);
      if (forward == nullptr) return;
      std::pair<kernels::Conv2d, Segments> heard{forward->conv, forward->segments};
      if (std::find(found.begin(), found.end(), heard) == found.end()) found.push_back(std::move(heard));
    }
  } listener;
  const DeviceScope scope(Device::meta);
  const NoGradScope no_grad;
  const auto trunk = nn::trunk(net);
  trunk->train(false);
  const kernels::MetaListenScope listen(listener);
  (*trunk)(Tensor::images({{16, 224, 224}, {48, 96, 96}}, 3));
  for (auto& [conv, segments] : listener.found) conv.dtype = dtype;
  return listener.found;
}

}  // namespace saccade::testing
