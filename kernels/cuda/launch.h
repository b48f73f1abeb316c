#pragma once

namespace saccade::kernels::cuda {
/// A cudaStream_t.
using Stream = void*;
}  // namespace saccade::kernels::cuda
