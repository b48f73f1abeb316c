#pragma once

#include <saccade/kernels/conv.h>

#include <cstddef>
#include <functional>

/// @file
/// What the CUDA backend gives the vendor's libraries as workspace, and how it lays that of a convolution out: the part
/// that needs neither a GPU nor the libraries, for planners (core/plan/conv_workspaces.h) to count with too.

namespace saccade::kernels::cuda {

/// What cuBLASLt wants its workspace aligned to (documentation of cublasLtMatmul); the arena promises less.
inline constexpr size_t kWorkspaceAlignment = 256;
inline size_t aligned_workspace(size_t bytes) {
  return (bytes + kWorkspaceAlignment - 1) / kWorkspaceAlignment * kWorkspaceAlignment;
}
/// What to ask for in order to have so many bytes aligned.
inline size_t with_room_to_align(size_t bytes) { return bytes == 0 ? 0 : bytes + kWorkspaceAlignment; }

/// Of every matrix product, so that it does not hang on where the operands happen to lie. From Hopper on cuBLAS wants
/// more than before.
/// @param major  of the device's compute capability
inline size_t matmul_workspace(int major) { return size_t{major >= 9 ? 32u : 4u} << 20; }

/// What one plan may take before the images of a segment go in several parts: enough work for any GPU, and little of
/// its memory.
inline constexpr size_t kConvWorkspaceLimit = size_t{256} << 20;

/// How many of so many images go together: about half of them, again and again, while their plan takes more than the
/// limit, and fewer would take less: not if it is weights that take the room. A multiple of 8, for parts to begin at
/// aligned addresses, while there are that many.
inline int64_t images_together(int64_t images, size_t limit, const std::function<size_t(int64_t images)>& workspace) {
  for (size_t bytes = workspace(images); bytes > limit;) {
    const int64_t half = (images + 1) / 2, fewer = half > 8 ? half / 8 * 8 : half;
    const size_t of_fewer = workspace(fewer);
    if (of_fewer >= bytes - bytes / 4) break;
    images = fewer;
    bytes = of_fewer;
  }
  return images;
}

/// The weight gradient of a part comes in the dtype of the convolution; they are summed up in f32.
struct WeightGradientWorkspace {
  WeightGradientWorkspace(const Conv2d& conv, size_t parts, size_t plan_bytes)
      : plan(aligned_workspace(plan_bytes)),
        gradient(conv.dtype == DType::f32
                     ? 0
                     : aligned_workspace(static_cast<size_t>(conv.weight_elements()) * size_of(conv.dtype))),
        sum(parts > 1 ? aligned_workspace(static_cast<size_t>(conv.weight_elements()) * sizeof(float)) : 0) {}
  size_t total() const { return plan + gradient + sum; }

  size_t plan, gradient, sum;  ///< bytes, in this order
};

}  // namespace saccade::kernels::cuda
