#pragma once

#include <saccade/kernels/cuda/cudnn_plan.h>
#include <saccade/kernels/cuda/workspace.h>

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
/// Where channels are no multiple of 8 in f16 or bf16, cuDNN itself pads them for tensor cores, in the workspace, which
/// is then as large as the images. So a segment that would take more than kConvWorkspaceLimit goes in several parts;
/// more takes what cuDNN pads of the weights.
///
/// Tensors must lie at multiples of 16 bytes. So do all parts where segments have a multiple of 8 pixels; else cuDNN
/// has slow plans only.
class CudnnConvolutions {
 public:
  /// @param stream  the handle's
  /// @param limit   of a plan's workspace, beyond which a segment goes in parts
  CudnnConvolutions(cudnnHandle_t handle, cudaStream_t stream, size_t limit = kConvWorkspaceLimit);
  /// Plans for a described device (PlanTarget); runs nothing.
  explicit CudnnConvolutions(const std::string& properties);

  size_t workspace(const Conv2d&, std::span<const Segment> in, ConvPass);
  void forward(const Conv2d&, std::span<const Segment> in, const void* x, const void* w, void* y, void* workspace);
  void backward_data(const Conv2d&, std::span<const Segment> in, const void* dy, const void* w, void* dx,
                     void* workspace);
  void backward_weight(const Conv2d&, std::span<const Segment> in, const void* x, const void* dy, float* dw,
                       void* workspace);

  /// Images of one segment that go together, with the plan that they take.
  struct Part {
    ConvProblem problem;
    size_t image_offset = 0, output_offset = 0;  ///< bytes, of the first image
    std::vector<ConvPlan>* plans = nullptr;      ///< the first is to be run, once there is nothing left to choose
  };
  std::vector<Part> parts(const Conv2d&, std::span<const Segment> in, ConvPass);

 private:
  struct Operands {
    const void *image, *weight, *output;
  };
  std::vector<ConvPlan>& plans(const ConvProblem& problem);
  void run(const Part& part, const Operands& operands, void* workspace);
  void execute(const ConvPlan& plan, const Operands& operands, void* workspace);
  void keep_fastest(std::vector<ConvPlan>& candidates, const Operands& operands, void* workspace);

  using Key = std::tuple<std::array<int64_t, 6>, DType, std::array<int64_t, 3>, ConvPass, int64_t, int64_t>;
  cudnnHandle_t handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  PlanTarget target_;
  size_t limit_ = kConvWorkspaceLimit;
  bool autotune_ = false;
  std::mutex mutex_;
  std::map<Key, std::vector<ConvPlan>> plans_;
};

}  // namespace saccade::kernels::cuda
