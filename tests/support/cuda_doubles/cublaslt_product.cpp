#include "cublaslt_product.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <fmt/format.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace cuda_doubles::cublaslt {
namespace {

double load(const void* base, size_t i, uint32_t type) {
  if (type == CUDA_R_32F) return static_cast<const float*>(base)[i];
  if (type == CUDA_R_16F) return __half2float(static_cast<const __half*>(base)[i]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(base)[i]);
}
void store(void* base, size_t i, uint32_t type, double value) {
  if (type == CUDA_R_32F) {
    static_cast<float*>(base)[i] = static_cast<float>(value);
  } else if (type == CUDA_R_16F) {
    static_cast<__half*>(base)[i] = __double2half(value);
  } else {
    static_cast<__nv_bfloat16*>(base)[i] = __double2bfloat16(value);
  }
}

/// Rows of op(A), or columns of op(B).
std::vector<double> lines_of(const Matrix& m, const void* data, bool columns) {
  const uint64_t lines = columns ? m.columns() : m.rows(), length = columns ? m.rows() : m.columns();
  std::vector<double> values(lines * length);
  for (uint64_t line = 0; line < lines; ++line) {
    for (uint64_t k = 0; k < length; ++k) {
      values[line * length + k] = load(data, columns ? m.at(k, line) : m.at(line, k), m.layout.type);
    }
  }
  return values;
}

}  // namespace

const char* name_of(int64_t type) {
  return type == CUDA_R_32F ? "f32" : type == CUDA_R_16F ? "f16" : type == CUDA_R_16BF ? "bf16" : "another type";
}
size_t size_of(uint32_t type) { return type == CUDA_R_32F ? 4 : 2; }

size_t Matrix::at(uint64_t row, uint64_t column) const {
  if (transposed) std::swap(row, column);
  const auto ld = static_cast<uint64_t>(layout.ld);
  return layout.order == CUBLASLT_ORDER_COL ? column * ld + row : row * ld + column;
}

size_t Matrix::bytes() const {
  const bool empty = layout.rows == 0 || layout.columns == 0;
  return empty ? 0 : (at(rows() - 1, columns() - 1) + 1) * size_of(layout.type);
}

uint64_t Product::hash() const {
  std::string text = fmt::format("{} {}", problem.transposed[0] * 2 + problem.transposed[1], problem.epilogue);
  for (const Matrix& m : {a, b, c, d}) {
    const Layout& l = m.layout;
    text += fmt::format(" {} {} {} {} {}", l.type, l.rows, l.columns, l.ld, l.order);
  }
  return std::hash<std::string>()(text);
}

void multiply(const Product& product, float alpha, float beta, const void* a, const void* b, const void* c, void* d) {
  const uint64_t depth = product.a.columns();
  const std::vector<double> left = lines_of(product.a, a, false), right = lines_of(product.b, b, true);
  for (uint64_t column = 0; column < product.d.columns(); ++column) {
    for (uint64_t row = 0; row < product.d.rows(); ++row) {
      double sum = 0;
      for (uint64_t k = 0; k < depth; ++k) sum += left[row * depth + k] * right[column * depth + k];
      sum *= alpha;
      if (beta != 0) sum += beta * load(c, product.c.at(row, column), product.c.layout.type);
      if (product.biased()) sum += load(product.problem.bias, row, product.d.layout.type);
      store(d, product.d.at(row, column), product.d.layout.type, sum);
    }
  }
}

}  // namespace cuda_doubles::cublaslt
