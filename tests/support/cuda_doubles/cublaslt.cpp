#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>

#include "cublaslt_product.h"
#include "state.h"

// Column- and row-major products with f32 arithmetic, for f32, f16 and bf16, with a bias or without.
namespace cuda_doubles {
using namespace cublaslt;
namespace {

struct Preference {
  uint64_t workspace = 0;
  std::array<uint32_t, 4> alignment = {256, 256, 256, 256};
};
/// What lies in a cublasLtMatmulAlgo_t, which callers may copy and keep.
struct Algorithm {
  uint64_t made_for, workspace;
  std::array<uint32_t, 4> alignment;
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

struct Objects {
  std::map<const void*, bool> handles;
  std::map<const void*, Problem> problems;
  std::map<const void*, Layout> layouts;
  std::map<const void*, Preference> preferences;
};
Objects& objects() {
  static Objects& objects = *new Objects;
  return objects;
}

template <class... Values>
[[noreturn]] void refuse(cublasStatus_t code, fmt::format_string<Values...> text, Values&&... values) {
  throw Refusal{code, fmt::format(text, std::forward<Values>(values)...)};
}

template <class T>
T& get(std::map<const void*, T>& map, const void* handle, const char* what,
       cublasStatus_t code = CUBLAS_STATUS_INVALID_VALUE) {
  const auto found = map.find(handle);
  if (found == map.end()) refuse(code, "{} is no {}, or was destroyed", handle, what);
  return found->second;
}

template <class Handle, class T>
cublasStatus_t create(const char* function, std::map<const void*, T>& map, Handle* handle, T value) {
  return guarded<cublasStatus_t>(function, [&] {
    if (!handle) refuse(CUBLAS_STATUS_INVALID_VALUE, "no place for the handle");
    *handle = static_cast<Handle>(new_handle());
    map.emplace(*handle, value);
  });
}

template <class T>
cublasStatus_t destroy(const char* function, std::map<const void*, T>& map, const void* handle, const char* what,
                       cublasStatus_t code = CUBLAS_STATUS_INVALID_VALUE) {
  return guarded<cublasStatus_t>(function, [&] {
    get(map, handle, what, code);
    map.erase(handle);
  });
}

template <class T>
void assign(T& field, const void* value, size_t bytes) {
  if (!value || bytes != sizeof field) {
    refuse(CUBLAS_STATUS_INVALID_VALUE, "the attribute has {} bytes, got {}", sizeof field, value ? bytes : 0);
  }
  std::memcpy(&field, value, bytes);
}

[[noreturn]] void no_double(int attribute) {
  refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the double does not know attribute {}", attribute);
}

void check_layout(const Layout& l, const char* name) {
  if (l.type != CUDA_R_32F && l.type != CUDA_R_16F && l.type != CUDA_R_16BF) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix {} has data type {}; the double knows f32, f16 and bf16", name, l.type);
  }
  if (l.order != CUBLASLT_ORDER_COL && l.order != CUBLASLT_ORDER_ROW) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "matrix {} has order {}; the double knows columns and rows", name, l.order);
  }
  const uint64_t least = l.order == CUBLASLT_ORDER_COL ? l.rows : l.columns;
  if (l.ld < 1 || static_cast<uint64_t>(l.ld) < least) {
    refuse(CUBLAS_STATUS_INVALID_VALUE, "matrix {} is {} x {} with a leading dimension of {}: it overlaps itself", name,
           l.rows, l.columns, l.ld);
  }
}

Product product_of(cublasLtHandle_t handle, const void* problem, const void* a, const void* b, const void* c,
                   const void* d) {
  Objects& o = objects();
  get(o.handles, handle, "cuBLASLt handle", CUBLAS_STATUS_NOT_INITIALIZED);
  const Problem& p = get(o.problems, problem, "problem");
  const auto matrix = [&](const void* layout, const char* name, int32_t operation) {
    const Matrix m{get(o.layouts, layout, "layout"), operation != CUBLAS_OP_N};
    check_layout(m.layout, name);
    return m;
  };
  const Product product{p, matrix(a, "A", p.transposed[0]), matrix(b, "B", p.transposed[1]),
                        matrix(c, "C", p.transposed[2]), matrix(d, "D", CUBLAS_OP_N)};
  if (p.compute != CUBLAS_COMPUTE_32F && p.compute != CUBLAS_COMPUTE_32F_PEDANTIC) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "compute type {}; the double knows CUBLAS_COMPUTE_32F", p.compute);
  }
  if (p.scale != CUDA_R_32F) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the scale type is {}; with CUBLAS_COMPUTE_32F alpha and beta are f32",
           name_of(p.scale));
  }
  if (p.pointer_mode != CUBLASLT_POINTER_MODE_HOST) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the double knows alpha and beta in the host's memory");
  }
  if (p.transposed[2] != CUBLAS_OP_N) refuse(CUBLAS_STATUS_NOT_SUPPORTED, "C cannot be transposed");
  if (p.epilogue != CUBLASLT_EPILOGUE_DEFAULT && p.epilogue != CUBLASLT_EPILOGUE_BIAS) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "epilogue {}; the double knows none and a bias", p.epilogue);
  }
  const uint32_t type_a = product.a.layout.type, type_b = product.b.layout.type;
  const uint32_t type_c = product.c.layout.type, type_d = product.d.layout.type;
  if (type_a != type_b || type_c != type_d || (type_d != type_a && type_d != CUDA_R_32F)) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "no product takes {} and {} and {} and gives {}", name_of(type_a),
           name_of(type_b), name_of(type_c), name_of(type_d));
  }
  if (product.biased() && p.bias_type != -1 && p.bias_type != static_cast<int32_t>(type_d)) {
    refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the bias is {}, it must be of D's type, {}", name_of(p.bias_type),
           name_of(type_d));
  }
  if (product.a.columns() != product.b.rows() || product.d.rows() != product.a.rows() ||
      product.d.columns() != product.b.columns() || product.c.rows() != product.d.rows() ||
      product.c.columns() != product.d.columns()) {
    refuse(CUBLAS_STATUS_INVALID_VALUE, "op(A) is {} x {}, op(B) {} x {}, C {} x {}, D {} x {}", product.a.rows(),
           product.a.columns(), product.b.rows(), product.b.columns(), product.c.rows(), product.c.columns(),
           product.d.rows(), product.d.columns());
  }
  return product;
}

struct Operand {
  const char* name;
  const void* address;
  size_t bytes;
  size_t alignment;
};

bool overlap(const Operand& x, const Operand& y) {
  const auto *at_x = static_cast<const char*>(x.address), *at_y = static_cast<const char*>(y.address);
  return at_x < at_y + y.bytes && at_y < at_x + x.bytes;
}

void check_operand(const Operand& operand) {
  if (operand.bytes == 0) return;
  if (!is_device_address(operand.address)) {
    refuse(CUBLAS_STATUS_INVALID_VALUE, "{} at {} is not the device's memory", operand.name, operand.address);
  }
  if (reinterpret_cast<uintptr_t>(operand.address) % operand.alignment != 0) {
    refuse(CUBLAS_STATUS_INVALID_VALUE, "{} at {} is not aligned to {} bytes, as was promised", operand.name,
           operand.address, operand.alignment);
  }
}

}  // namespace

void reset_cublaslt() { objects() = {}; }

int live_cublaslt() {
  const Objects& o = objects();
  return static_cast<int>(o.handles.size() + o.problems.size() + o.layouts.size() + o.preferences.size());
}

}  // namespace cuda_doubles

using namespace cuda_doubles;

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  return create("cublasLtCreate", objects().handles, handle, true);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return destroy("cublasLtDestroy", objects().handles, handle, "cuBLASLt handle", CUBLAS_STATUS_NOT_INITIALIZED);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* problem, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  return create("cublasLtMatmulDescCreate", objects().problems, problem, Problem{.compute = compute, .scale = scale});
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t problem) {
  return destroy("cublasLtMatmulDescDestroy", objects().problems, problem, "problem");
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t problem, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  return guarded<cublasStatus_t>("cublasLtMatmulDescSetAttribute", [=] {
    Problem& p = get(objects().problems, problem, "problem");
    switch (attribute) {
      case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return assign(p.compute, value, bytes);
      case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return assign(p.scale, value, bytes);
      case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return assign(p.pointer_mode, value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSA:
        return assign(p.transposed[0], value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSB:
        return assign(p.transposed[1], value, bytes);
      case CUBLASLT_MATMUL_DESC_TRANSC:
        return assign(p.transposed[2], value, bytes);
      case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return assign(p.epilogue, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return assign(p.bias, value, bytes);
      case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        return assign(p.bias_type, value, bytes);
      default:
        no_double(attribute);
    }
  });
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  return create("cublasLtMatrixLayoutCreate", objects().layouts, layout,
                Layout{.type = static_cast<uint32_t>(type), .rows = rows, .columns = columns, .ld = ld});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return destroy("cublasLtMatrixLayoutDestroy", objects().layouts, layout, "layout");
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                size_t bytes) {
  return guarded<cublasStatus_t>("cublasLtMatrixLayoutSetAttribute", [=] {
    Layout& l = get(objects().layouts, layout, "layout");
    switch (attribute) {
      case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return assign(l.type, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return assign(l.order, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return assign(l.rows, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_COLS:
        return assign(l.columns, value, bytes);
      case CUBLASLT_MATRIX_LAYOUT_LD:
        return assign(l.ld, value, bytes);
      default:
        no_double(attribute);
    }
  });
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return create("cublasLtMatmulPreferenceCreate", objects().preferences, preference, Preference{});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return destroy("cublasLtMatmulPreferenceDestroy", objects().preferences, preference, "preference");
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  return guarded<cublasStatus_t>("cublasLtMatmulPreferenceSetAttribute", [=] {
    Preference& p = get(objects().preferences, preference, "preference");
    switch (attribute) {
      case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return assign(p.workspace, value, bytes);
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: {
        uint32_t& alignment = p.alignment.at(attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
        assign(alignment, value, bytes);
        if (!std::has_single_bit(alignment)) refuse(CUBLAS_STATUS_INVALID_VALUE, "an alignment of {} bytes", alignment);
        return;
      }
      default:
        no_double(attribute);
    }
  });
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t problem,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  return guarded<cublasStatus_t>("cublasLtMatmulAlgoGetHeuristic", [=] {
    if (!count || !results || requested < 1) refuse(CUBLAS_STATUS_INVALID_VALUE, "no place for an algorithm");
    *count = 0;
    const Product product = product_of(handle, problem, a, b, c, d);
    const Preference& p = get(objects().preferences, preference, "preference");
    // It takes all that it may.
    const Algorithm algorithm{product.hash(), p.workspace, p.alignment};
    results[0] = {};
    std::memcpy(&results[0].algo, &algorithm, sizeof algorithm);
    results[0].workspaceSize = p.workspace;
    results[0].wavesCount = 1;
    *count = 1;
  });
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t problem, const void* alpha_at,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta_at, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* chosen, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  return guarded<cublasStatus_t>("cublasLtMatmul", [=] {
    const Product product = product_of(handle, problem, a_layout, b_layout, c_layout, d_layout);
    if (stream_error() != 0) throw Refusal{CUBLAS_STATUS_EXECUTION_FAILED};
    if (!is_stream(stream)) refuse(CUBLAS_STATUS_INVALID_VALUE, "no such stream, or it was destroyed");
    if (!chosen) refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the double knows only algorithms that were asked for");
    if (!alpha_at || !beta_at || is_device_address(alpha_at) || is_device_address(beta_at)) {
      refuse(CUBLAS_STATUS_INVALID_VALUE, "alpha and beta must lie in the host's memory");
    }
    float alpha = 0, beta = 0;
    std::memcpy(&alpha, alpha_at, sizeof alpha);
    std::memcpy(&beta, beta_at, sizeof beta);
    Algorithm algorithm;
    std::memcpy(&algorithm, chosen, sizeof algorithm);
    if (algorithm.made_for != product.hash()) {
      refuse(CUBLAS_STATUS_NOT_SUPPORTED, "the algorithm was made for another problem");
    }
    if (workspace_bytes < algorithm.workspace) {
      refuse(CUBLAS_STATUS_INVALID_VALUE, "the algorithm needs {} bytes of workspace, got {}", algorithm.workspace,
             workspace_bytes);
    }
    const auto& align = algorithm.alignment;
    const std::array operands = {
        Operand{"A", a, product.a.bytes(), align[0]},
        Operand{"B", b, product.b.bytes(), align[1]},
        Operand{"C", c, beta == 0 ? 0 : product.c.bytes(), align[2]},
        Operand{"the bias", product.problem.bias, product.bias_bytes(), size_of(product.d.layout.type)},
        Operand{"D", d, product.d.bytes(), align[3]},
        Operand{"the workspace", workspace, algorithm.workspace, 256},
    };
    std::for_each(operands.begin(), operands.end(), check_operand);
    for (size_t written = 4; written < operands.size(); ++written) {
      for (size_t other = 0; other < written; ++other) {
        const bool in_place = c == d && product.c.layout == product.d.layout && other == 2 && written == 4;
        if (!in_place && overlap(operands[written], operands[other])) {
          refuse(CUBLAS_STATUS_INVALID_VALUE, "{} and {} overlap", operands[written].name, operands[other].name);
        }
      }
    }
    enqueue_or_throw(
        stream,
        [=] {
          for (const Operand& operand : operands) {
            if (operand.bytes > 0) require_readable(operand.address, operand.bytes, operand.name);
          }
          if (algorithm.workspace > 0) std::memset(workspace, 0xff, algorithm.workspace);
          multiply(product, alpha, beta, a, b, c, d);
        },
        "matrix product");
  });
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    default:
      return "another status";
  }
}

const char* cublasLtGetStatusString(cublasStatus_t status) { return cublasLtGetStatusName(status); }
