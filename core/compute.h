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

}  // namespace saccade
