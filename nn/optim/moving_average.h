#pragma once

#include <saccade/core/tensor.h>

#include <span>

namespace saccade::optim {

/// average = momentum * average + (1 - momentum) * from, tensor by tensor, in place: how the weights of a mean teacher
/// follow those of its student (Tarvainen & Valpola 2017). One call of a kernel for all tensors of a device, off the
/// tape. All f32; throws Error unless the lists match in shapes and devices.
void moving_average(std::span<const Tensor> average, std::span<const Tensor> from, float momentum);

}  // namespace saccade::optim
