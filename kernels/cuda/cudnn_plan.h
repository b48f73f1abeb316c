#pragma once

#include <cudnn.h>
#include <saccade/kernels/conv.h>

#include <string>
#include <utility>
#include <vector>

/// @file
/// Convolutions as cuDNN's graph API plans them (NVIDIA cuDNN, backend API).

namespace saccade::kernels::cuda {

/// A descriptor of the backend API, destroyed with its owner.
class CudnnDescriptor {
 public:
  CudnnDescriptor() = default;
  explicit CudnnDescriptor(cudnnBackendDescriptorType_t type);
  ~CudnnDescriptor();
  CudnnDescriptor(CudnnDescriptor&& other) noexcept : descriptor_(std::exchange(other.descriptor_, nullptr)) {}
  CudnnDescriptor& operator=(CudnnDescriptor&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  cudnnBackendDescriptor_t get() const { return descriptor_; }

  void set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  void set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value);
  void finalize();

 private:
  cudnnBackendDescriptor_t descriptor_ = nullptr;
};

/// The names by which a plan's tensors are handed over.
enum class ConvTensor : int64_t { image = 1, weight = 2, output = 3 };

/// Bytes: what most plans, and all good ones, want addresses to be multiples of.
inline constexpr int64_t kConvAlignment = 16;

/// One pass over one segment.
struct ConvProblem {
  Conv2d conv;
  Segment in;
  ConvPass pass = ConvPass::forward;
  /// What the addresses of images and outputs are multiples of, bytes; those of weights are of kConvAlignment. With
  /// less than that there are few plans, and slow ones.
  int64_t image_alignment = kConvAlignment, output_alignment = kConvAlignment;
};

/// A way to run a problem that cuDNN said it can.
struct ConvPlan {
  CudnnDescriptor config, plan;
  size_t workspace = 0;  ///< bytes
  bool tensor_cores = false;
  bool deterministic = true;
  bool reduced_precision = false;  ///< sums in less than f32, or f32 operands rounded (TF32)
};

/// What plans are made for: the device of a handle, or one that is only described.
class PlanTarget {
 public:
  explicit PlanTarget(cudnnHandle_t handle) : handle_(handle) {}
  /// @param properties  JSON, as CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION wants it. Throws Error where cuDNN refuses
  /// it.
  explicit PlanTarget(const std::string& properties);

  /// At most `most` plans, in the order of preference: deterministic and in full precision before all, then as
  /// cuDNN's heuristics rate them; all alike in the former. The weight gradient is in the dtype of the convolution.
  /// Throws Error where there is no plan.
  std::vector<ConvPlan> plans(const ConvProblem& problem, size_t most) const;

 private:
  cudnnHandle_t handle_ = nullptr;
  CudnnDescriptor properties_;
};

}  // namespace saccade::kernels::cuda
