#pragma once

#include <cublasLt.h>

#include <array>
#include <cstdint>

/// Matrix products as cublaslt.cpp's callers describe them, once nothing is wrong with them.
namespace cuda_doubles::cublaslt {

struct Problem {
  int32_t compute, scale;
  int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::array<int32_t, 3> transposed = {CUBLAS_OP_N, CUBLAS_OP_N, CUBLAS_OP_N};
  uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  int32_t bias_type = -1;
};
struct Layout {
  uint32_t type;
  uint64_t rows, columns;
  int64_t ld;
  int32_t order = CUBLASLT_ORDER_COL;
  bool operator==(const Layout&) const = default;
};

const char* name_of(int64_t type);
size_t size_of(uint32_t type);

/// A matrix as it lies in memory, and as it enters the product.
struct Matrix {
  Layout layout;
  bool transposed = false;
  uint64_t rows() const { return transposed ? layout.columns : layout.rows; }
  uint64_t columns() const { return transposed ? layout.rows : layout.columns; }
  size_t at(uint64_t row, uint64_t column) const;
  size_t bytes() const;
};

/// A valid problem.
struct Product {
  Problem problem;
  Matrix a, b, c, d;
  bool biased() const { return problem.epilogue == CUBLASLT_EPILOGUE_BIAS; }
  size_t bias_bytes() const { return biased() ? d.rows() * size_of(d.layout.type) : 0; }
  /// What an algorithm is chosen by: all but where the bias lies.
  uint64_t hash() const;
};

/// D = alpha op(A) op(B) + beta C + bias, in f64, rounded once.
void multiply(const Product& product, float alpha, float beta, const void* a, const void* b, const void* c, void* d);

}  // namespace cuda_doubles::cublaslt
