#pragma once

#include <saccade/core/tensor.h>
#include <saccade/kernels/backend.h>

namespace saccade {

/// Runs a call on a device, with the workspace that it asks for there.
template <class Call>
void compute(Device device, Call call) {
  kernels::Backend& backend = kernels::backend(device);
  if constexpr (requires { call.workspace; }) {
    const Workspace workspace(device, backend.workspace(call));
    call.workspace = workspace.data();
    backend.run(call);
  } else {
    backend.run(call);
  }
}

/// The memory of an f32 tensor, for a call. Null on the meta device.
inline float* floats(const Tensor& t) { return static_cast<float*>(t.raw()); }

/// y = op(a) op(b) (+ bias as a row) through the device's matrix product; op transposes where asked. Not recorded: what
/// ops with a matrix product inside are made of.
void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, const Tensor& y);

}  // namespace saccade
