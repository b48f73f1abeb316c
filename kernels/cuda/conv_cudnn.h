#pragma once

#include <saccade/kernels/cuda/cudnn_plan.h>

#include <array>
#include <map>
#include <mutex>
#include <span>
#include <tuple>
#include <vector>

namespace saccade::kernels::cuda {

/// Convolutions by cuDNN, one plan a segment, asked for once and kept. Storage is f32, f16 or bf16, sums are f32, and
/// f32 operands are not rounded to TF32. Plans are deterministic wherever cuDNN has such a one.
///
/// With the environment variable SACCADE_CUDNN_AUTOTUNE (anything but empty or 0) the first call of a problem times
/// what the heuristics rate best, and keeps the fastest: results may then differ in the last bits between processes.
///
/// Tensors must lie at multiples of 16 bytes. So do the parts of all segments if each has a multiple of 8 pixels;
/// where they are not, cuDNN has slow plans only.
class CudnnConvolutions {
 public:
  /// @param stream  the handle's
  CudnnConvolutions(cudnnHandle_t handle, cudaStream_t stream);

  size_t workspace(const Conv2d&, std::span<const Segment> in, ConvPass);
  void forward(const Conv2d&, std::span<const Segment> in, const void* x, const void* w, void* y, void* workspace);
  void backward_data(const Conv2d&, std::span<const Segment> in, const void* dy, const void* w, void* dx,
                     void* workspace);
  void backward_weight(const Conv2d&, std::span<const Segment> in, const void* x, const void* dy, float* dw,
                       void* workspace);

 private:
  struct Operands {
    const void *image, *weight, *output;
  };
  /// The plans of a problem: the first is the one to run, once there is nothing left to choose.
  std::vector<ConvPlan>& plans(const ConvProblem& problem);
  void run(const ConvProblem& problem, const Operands& operands, void* workspace);
  void execute(const ConvPlan& plan, const Operands& operands, void* workspace);
  void keep_fastest(std::vector<ConvPlan>& candidates, const Operands& operands, void* workspace);

  using Key = std::tuple<std::array<int64_t, 6>, DType, std::array<int64_t, 3>, ConvPass, int64_t, int64_t>;
  cudnnHandle_t handle_;
  cudaStream_t stream_;
  PlanTarget target_;
  bool autotune_;
  std::mutex mutex_;
  std::map<Key, std::vector<ConvPlan>> plans_;
};

/// More workspace than this a plan may take only where there is no other: the rest of the memory is the model's.
inline constexpr size_t kConvWorkspaceLimit = size_t{1} << 30;

/// The segments of a call as problems of their own, with the alignment that their parts of the tensors have.
struct ConvPart {
  ConvProblem problem;
  size_t image_offset = 0, output_offset = 0;  ///< bytes
};
std::vector<ConvPart> conv_parts(const Conv2d&, std::span<const Segment> in, ConvPass);

}  // namespace saccade::kernels::cuda
