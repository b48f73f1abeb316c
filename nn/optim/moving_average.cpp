#include <fmt/format.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/nn/optim/moving_average.h>

#include <map>

namespace saccade::optim {

void moving_average(std::span<const Tensor> average, std::span<const Tensor> from, float momentum) {
  if (average.size() != from.size())
    fail(fmt::format("moving_average: {} tensors are to follow {}", average.size(), from.size()));
  std::map<Device, std::vector<kernels::AverageSlot>> slots;
  for (size_t i = 0; i < average.size(); ++i) {
    const Tensor &a = average[i], &f = from[i];
    if (a.shape() != f.shape() || a.device() != f.device() || a.dtype() != DType::f32 || f.dtype() != DType::f32)
      fail(fmt::format("moving_average: {} {} on {} is to follow {} {} on {}; expected f32 of one shape on one device",
                       name_of(a.dtype()), to_string(a.shape()), name_of(a.device()), name_of(f.dtype()),
                       to_string(f.shape()), name_of(f.device())));
    slots[a.device()].push_back({static_cast<float*>(a.raw()), static_cast<const float*>(f.raw()), a.numel()});
    a.bump_version();
  }
  for (auto& [device, of_device] : slots) compute(device, kernels::MovingAverage{momentum, std::move(of_device)});
}

}  // namespace saccade::optim
