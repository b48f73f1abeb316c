#pragma once

#include <cublasLt.h>
#include <saccade/kernels/matmul.h>

#include <map>
#include <mutex>
#include <tuple>

namespace saccade::kernels::cuda {

/// Matrix products by cuBLASLt, in the arithmetic of the CPU's: f32 products are not rounded to TF32, sums are f32.
/// What the library would do is asked once for a problem and kept.
class MatrixProducts {
 public:
  /// @param workspace  bytes, of every product
  MatrixProducts(cublasLtHandle_t handle, size_t workspace) : handle_(handle), workspace_(workspace) {}
  size_t workspace() const { return workspace_; }

  /// @param workspace  that many bytes, aligned to kWorkspaceAlignment
  void run(cudaStream_t stream, const MatMul&, const void* a, const void* b, const void* bias, void* c,
           void* workspace);

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool, DType, DType, bool, unsigned>;
  cublasLtHandle_t handle_;
  size_t workspace_;
  std::mutex mutex_;
  std::map<Key, cublasLtMatmulAlgo_t> chosen_;
};

}  // namespace saccade::kernels::cuda
