#include <saccade/kernels/cuda/matmul_cublaslt.h>
#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <bit>
#include <memory>
#include <string>

namespace saccade::kernels::cuda {
namespace {

cudaDataType_t type_of(DType dtype) {
  if (!is_floating(dtype)) throw Error("matmul: expected f32, f16 or bf16, got " + std::string(name_of(dtype)));
  return dtype == DType::f32 ? CUDA_R_32F : dtype == DType::f16 ? CUDA_R_16F : CUDA_R_16BF;
}

template <class Handle, cublasStatus_t (*destroy)(Handle)>
struct Destroy {
  using pointer = Handle;
  void operator()(Handle handle) const { destroy(handle); }
};
template <class Handle, cublasStatus_t (*destroy)(Handle)>
using Owned = std::unique_ptr<Handle, Destroy<Handle, destroy>>;
using Problem = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

Problem make_problem() {
  cublasLtMatmulDesc_t made = nullptr;
  check(cublasLtMatmulDescCreate(&made, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a matrix product");
  return Problem(made);
}
/// A column-major matrix, which is a row-major one seen as its transpose.
Layout make_layout(DType dtype, int64_t rows, int64_t columns) {
  cublasLtMatrixLayout_t made = nullptr;
  check(cublasLtMatrixLayoutCreate(&made, type_of(dtype), static_cast<uint64_t>(rows), static_cast<uint64_t>(columns),
                                   std::max<int64_t>(rows, 1)),
        "describe a matrix");
  return Layout(made);
}
template <class T>
void set(const Problem& problem, cublasLtMatmulDescAttributes_t attribute, T value) {
  check(cublasLtMatmulDescSetAttribute(problem.get(), attribute, &value, sizeof value), "describe a matrix product");
}
template <class T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check(cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
        "describe a matrix product");
}

/// The largest power of two, up to 16, that an address is a multiple of. Null: 16.
uint32_t alignment_of(const void* at) {
  return std::min<uint32_t>(16, uint32_t{1} << std::min(4, std::countr_zero(reinterpret_cast<uintptr_t>(at) | 16)));
}

}  // namespace

void MatrixProducts::run(cudaStream_t stream, const MatMul& s, const void* a, const void* b, const void* bias, void* c,
                         void* workspace) {
  if (s.m == 0 || s.n == 0) return;
  // Row-major c = op(a) op(b) is column-major c' = op(b)' op(a)': the operands change places.
  const Problem problem = make_problem();
  set(problem, CUBLASLT_MATMUL_DESC_TRANSA, s.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(problem, CUBLASLT_MATMUL_DESC_TRANSB, s.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (bias != nullptr) {
    set(problem, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(problem, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(problem, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, type_of(s.out_dtype));
  }
  const Layout left = s.transpose_b ? make_layout(s.dtype, s.k, s.n) : make_layout(s.dtype, s.n, s.k);
  const Layout right = s.transpose_a ? make_layout(s.dtype, s.m, s.k) : make_layout(s.dtype, s.k, s.m);
  const Layout out = make_layout(s.out_dtype, s.n, s.m);

  const uint32_t at_a = alignment_of(a), at_b = alignment_of(b), at_c = alignment_of(c);
  const Key key{s.m,
                s.n,
                s.k,
                s.transpose_a,
                s.transpose_b,
                s.out_dtype,
                s.dtype,
                bias != nullptr,
                at_a | at_b << 8 | at_c << 16};
  const std::lock_guard lock(mutex_);
  auto chosen = chosen_.find(key);
  if (chosen == chosen_.end()) {
    cublasLtMatmulPreference_t made = nullptr;
    check(cublasLtMatmulPreferenceCreate(&made), "describe a matrix product");
    const Preference preference(made);
    set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{workspace_});
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, at_b);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, at_a);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, at_c);
    set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, at_c);
    cublasLtMatmulHeuristicResult_t found{};
    int count = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, problem.get(), left.get(), right.get(), out.get(), out.get(), preference.get(), 1, &found, &count);
    if (status != CUBLAS_STATUS_SUCCESS || count == 0)
      throw Error("cuBLASLt has no way to multiply (" + std::to_string(s.m) + ", " + std::to_string(s.k) + ") by (" +
                  std::to_string(s.k) + ", " + std::to_string(s.n) + ") in " + std::string(name_of(s.dtype)) + ": " +
                  cublasLtGetStatusString(status));
    chosen = chosen_.emplace(key, found.algo).first;
  }
  check(cublasLtMatmul(handle_, problem.get(), &s.alpha, b, left.get(), a, right.get(), &s.beta, c, out.get(), c,
                       out.get(), &chosen->second, workspace, workspace_, stream),
        "multiply matrices");
}

}  // namespace saccade::kernels::cuda
