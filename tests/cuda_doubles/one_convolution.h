#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cudnn.h>
#include <gtest/gtest.h>
#include <support/cuda_doubles/cuda_doubles.h>

#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

/// One convolution in cuDNN's graph API, step by step, so that a test may do any step otherwise (what fails
/// throws the status), its memory, and what it should give by the definition.
namespace cudnn_test {

using Handle = cudnnBackendDescriptor_t;
enum class Pass { forward, data, filter };
constexpr auto f32 = CUDNN_DATA_FLOAT, f16 = CUDNN_DATA_HALF, bf16 = CUDNN_DATA_BFLOAT16;

/// The first call that failed.
struct Refused {
  cudnnStatus_t status;
};
inline void must(cudnnStatus_t status) {
  if (status != CUDNN_STATUS_SUCCESS) throw Refused{status};
}

struct Shape {
  int64_t n = 2, c = 6, h = 7, w = 5, k = 4, r = 3, s = 3, groups = 1, stride = 1, padding = 1, dilation = 1;
  int64_t rows() const { return (h + 2 * padding - dilation * (r - 1) - 1) / stride + 1; }
  int64_t columns() const { return (w + 2 * padding - dilation * (s - 1) - 1) / stride + 1; }
  std::array<int64_t, 4> x() const { return {n, c, h, w}; }
  std::array<int64_t, 4> filter() const { return {k, c / groups, r, s}; }
  std::array<int64_t, 4> y() const { return {n, k, rows(), columns()}; }
};

/// Channels last, with a gap behind each pixel.
inline std::array<int64_t, 4> strides_of(const std::array<int64_t, 4>& dims, int64_t gap) {
  const int64_t pixel = dims[1] + gap;
  return {dims[2] * dims[3] * pixel, 1, dims[3] * pixel, pixel};
}

/// Descriptors that live as long as this does.
class Descriptors {
 public:
  Descriptors() = default;
  Descriptors(const Descriptors&) = delete;
  Descriptors& operator=(const Descriptors&) = delete;
  ~Descriptors() {
    for (const Handle handle : handles_) cudnnBackendDestroyDescriptor(handle);
  }
  Handle make(cudnnBackendDescriptorType_t type) {
    Handle handle = nullptr;
    must(cudnnBackendCreateDescriptor(type, &handle));
    handles_.push_back(handle);
    return handle;
  }
  void destroy(Handle handle) {
    std::erase(handles_, handle);
    must(cudnnBackendDestroyDescriptor(handle));
  }

 private:
  std::vector<Handle> handles_;
};

inline void set(Handle d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, const void* values,
                int64_t count = 1) {
  must(cudnnBackendSetAttribute(d, name, type, count, values));
}
inline void set(Handle d, cudnnBackendAttributeName_t name, Handle child) {
  set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, &child);
}
inline void finalize(Handle d) { must(cudnnBackendFinalize(d)); }

/// One convolution, with everything that a test may want to do otherwise.
struct Convolution : Descriptors {
  Shape shape = {};
  Pass pass = Pass::forward;
  cudnnDataType_t type = f32, filter_type = f32, output = f32;
  bool says_where = true;  ///< on which device
  float alpha = 1, beta = 0;
  int64_t gap = 0, alignment = 16;
  std::array<int64_t, 3> ids = {'x', 'w', 'y'};
  cudnnHandle_t cudnn = nullptr;
  cudaStream_t stream = nullptr;
  Handle plan = nullptr;

  Convolution() {
    must(cudnnCreate(&cudnn));
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    must(cudnnSetStream(cudnn, stream));
  }
  ~Convolution() {
    cudnnDestroy(cudnn);
    cudaStreamDestroy(stream);
  }

  cudnnDataType_t type_of(size_t tensor) const {
    return tensor == written() ? output : tensor == 1 ? filter_type : type;
  }
  size_t written() const { return pass == Pass::forward ? 2 : pass == Pass::data ? 0 : 1; }
  std::array<int64_t, 4> dims(size_t tensor) const {
    return tensor == 0 ? shape.x() : tensor == 1 ? shape.filter() : shape.y();
  }

  Handle unfinished_tensor(size_t i) {
    const Handle d = make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    const auto extents = dims(i), strides = strides_of(extents, gap);
    const cudnnDataType_t data_type = type_of(i);
    set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, &ids[i]);
    set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, &data_type);
    set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, extents.data(), 4);
    set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, strides.data(), 4);
    set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, &alignment);
    return d;
  }
  Handle tensor(size_t i) {
    const Handle d = unfinished_tensor(i);
    finalize(d);
    return d;
  }
  Handle window() {
    const Handle d = make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    const cudnnDataType_t arithmetic = f32;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t spatial = 2;
    const auto pair = [&](cudnnBackendAttributeName_t name, int64_t value) {
      const std::array both = {value, value};
      set(d, name, CUDNN_TYPE_INT64, both.data(), 2);
    };
    set(d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, &arithmetic);
    set(d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, &mode);
    set(d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, &spatial);
    pair(CUDNN_ATTR_CONVOLUTION_DILATIONS, shape.dilation);
    pair(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, shape.stride);
    pair(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, shape.padding);
    pair(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, shape.padding);
    finalize(d);
    return d;
  }
  Handle unfinished_operation(Handle x, Handle w, Handle y) {
    struct Names {
      cudnnBackendDescriptorType_t type;
      cudnnBackendAttributeName_t alpha, beta, window, x, w, y;
    };
    const Names names = pass == Pass::forward ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y}
                        : pass == Pass::data  ? Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY}
                                              : Names{CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                                                     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY};
    const Handle d = make(names.type);
    set(d, names.alpha, CUDNN_TYPE_FLOAT, &alpha);
    set(d, names.beta, CUDNN_TYPE_FLOAT, &beta);
    set(d, names.window, window());
    set(d, names.x, x);
    set(d, names.w, w);
    set(d, names.y, y);
    return d;
  }
  Handle graph() {
    const Handle operation = unfinished_operation(tensor(0), tensor(1), tensor(2));
    finalize(operation);
    const Handle d = make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    set(d, CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
    if (says_where) set(d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, &cudnn);
    finalize(d);
    return d;
  }
  std::vector<Handle> configurations(cudnnBackendHeurMode_t mode) {
    const Handle d = make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    set(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph());
    set(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, &mode);
    finalize(d);
    int64_t count = 0;
    const auto get = [&](int64_t wanted, Handle* into) {
      must(cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, wanted, &count,
                                    into));
    };
    get(0, nullptr);
    std::vector<Handle> found;
    for (int64_t i = 0; i < count; ++i) found.push_back(make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
    get(count, found.data());
    return found;
  }
  std::vector<cudnnBackendNumericalNote_t> notes_of(Handle configuration) {
    Handle engine = make(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    must(cudnnBackendGetAttribute(configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, nullptr,
                                  &engine));
    std::vector<cudnnBackendNumericalNote_t> notes(CUDNN_NUMERICAL_NOTE_TYPE_COUNT);
    int64_t count = 0;
    must(cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                  CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()));
    notes.resize(static_cast<size_t>(count));
    return notes;
  }
  Handle plan_of(Handle configuration) {
    const Handle d = make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (says_where) set(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, &cudnn);
    set(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, configuration);
    finalize(d);
    return d;
  }
  void prepare() { plan = plan_of(configurations(CUDNN_HEUR_MODE_FALLBACK)[0]); }
  size_t workspace_bytes() const {
    int64_t bytes = 0;
    must(
        cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, nullptr, &bytes));
    return static_cast<size_t>(bytes);
  }
  void execute(const std::vector<void*>& pointers, void* workspace, std::vector<int64_t> named = {}) {
    if (named.empty()) named.assign(ids.begin(), ids.end());
    const Handle d = make(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    set(d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, named.data(), static_cast<int64_t>(named.size()));
    set(d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, pointers.data(),
        static_cast<int64_t>(pointers.size()));
    set(d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, &workspace);
    finalize(d);
    must(cudnnBackendExecute(cudnn, plan, d));
  }
};

inline float to_float(const void* data, size_t i, cudnnDataType_t type) {
  if (type == f32) return static_cast<const float*>(data)[i];
  return type == f16 ? __half2float(static_cast<const __half*>(data)[i])
                     : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
}
inline void from_float(void* data, size_t i, cudnnDataType_t type, float value) {
  if (type == f32) {
    static_cast<float*>(data)[i] = value;
  } else if (type == f16) {
    static_cast<__half*>(data)[i] = __float2half(value);
  } else {
    static_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16(value);
  }
}

/// A tensor's memory here and on the device.
struct Memory {
  std::array<int64_t, 4> dims, strides;
  cudnnDataType_t type;
  std::vector<std::byte> host;
  void* device = nullptr;

  Memory(const Convolution& conv, size_t tensor)
      : dims(conv.dims(tensor)), strides(strides_of(dims, conv.gap)), type(conv.type_of(tensor)) {
    host.resize(static_cast<size_t>(dims[0] * strides[0]) * (type == f32 ? 4 : 2));
    cudaMalloc(&device, host.size());
  }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { cudaFree(device); }
  size_t place(int64_t a, int64_t b, int64_t c, int64_t d) const {
    return static_cast<size_t>(a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]);
  }
  float at(int64_t a, int64_t b, int64_t c, int64_t d) const { return to_float(host.data(), place(a, b, c, d), type); }
  template <class Value>
  void fill(Value value) {
    for (int64_t a = 0; a < dims[0]; ++a)
      for (int64_t b = 0; b < dims[1]; ++b)
        for (int64_t c = 0; c < dims[2]; ++c)
          for (int64_t d = 0; d < dims[3]; ++d) from_float(host.data(), place(a, b, c, d), type, value());
    cudaMemcpy(device, host.data(), host.size(), cudaMemcpyHostToDevice);
  }
  void fetch() { cudaMemcpy(host.data(), device, host.size(), cudaMemcpyDeviceToHost); }
};

/// The whole sum over which all three passes are sums: calls with places in x, w and y.
template <class Term>
void for_each_term(const Shape& p, Term term) {
  const int64_t inputs = p.c / p.groups, outputs = p.k / p.groups;
  for (int64_t n = 0; n < p.n; ++n)
    for (int64_t k = 0; k < p.k; ++k)
      for (int64_t c = 0; c < inputs; ++c)
        for (int64_t r = 0; r < p.r; ++r)
          for (int64_t s = 0; s < p.s; ++s)
            for (int64_t i = 0; i < p.rows(); ++i)
              for (int64_t j = 0; j < p.columns(); ++j) {
                const int64_t row = i * p.stride + r * p.dilation - p.padding;
                const int64_t column = j * p.stride + s * p.dilation - p.padding;
                if (row < 0 || row >= p.h || column < 0 || column >= p.w) continue;
                term(std::array{n, k / outputs * inputs + c, row, column}, std::array{k, c, r, s},
                     std::array{n, k, i, j});
              }
}

struct Trial {
  Convolution conv;
  std::unique_ptr<Memory> x, w, y;
  void* workspace = nullptr;

  ~Trial() { cudaFree(workspace); }
  std::vector<void*> pointers() const { return {x->device, w->device, y->device}; }
  Memory& written() { return *std::array{x.get(), w.get(), y.get()}[conv.written()]; }
  /// `digits` of the fractions that the inputs are.
  void allocate(int digits = 2) {
    x = std::make_unique<Memory>(conv, 0);
    w = std::make_unique<Memory>(conv, 1);
    y = std::make_unique<Memory>(conv, 2);
    std::minstd_rand random(7);
    const int range = 1 << digits;
    for (Memory* m : {x.get(), w.get(), y.get()}) {
      m->fill([&] { return static_cast<float>(static_cast<int>(random() % (4u * range)) - 2 * range) / range; });
    }
    if (!conv.plan) conv.prepare();
    cudaMalloc(&workspace, conv.workspace_bytes());
  }
  void execute() {
    conv.execute(pointers(), workspace);
    ASSERT_EQ(cudaStreamSynchronize(conv.stream), cudaSuccess) << cuda_doubles::last_complaint();
    written().fetch();
  }
  /// The largest difference from the definition, relative to the largest value.
  double error() {
    std::vector<double> expected(written().host.size());  // enough
    Memory& to = written();
    const auto at = [](const Memory& m, const std::array<int64_t, 4>& i) { return m.at(i[0], i[1], i[2], i[3]); };
    const std::vector<std::byte> before = to.host;
    for_each_term(conv.shape, [&](const auto& i, const auto& j, const auto& k) {
      const std::array places = {i, j, k};
      const auto& [a, b, c, d] = places[conv.written()];
      const double factor_x = conv.written() == 0 ? 1 : at(*x, i), factor_w = conv.written() == 1 ? 1 : at(*w, j);
      expected[to.place(a, b, c, d)] += factor_x * factor_w * (conv.written() == 2 ? 1 : at(*y, k));
    });
    execute();
    double largest = 0, difference = 0;
    for (int64_t a = 0; a < to.dims[0]; ++a)
      for (int64_t b = 0; b < to.dims[1]; ++b)
        for (int64_t c = 0; c < to.dims[2]; ++c)
          for (int64_t d = 0; d < to.dims[3]; ++d) {
            const size_t i = to.place(a, b, c, d);
            const double sum = conv.alpha * expected[i] + conv.beta * to_float(before.data(), i, to.type);
            alignas(4) std::array<std::byte, 4> stored;
            from_float(stored.data(), 0, to.type, static_cast<float>(sum));
            const double value = to.at(a, b, c, d);
            largest = std::max(largest, std::abs(sum));
            difference = std::isnan(value)
                             ? INFINITY
                             : std::max(difference, std::abs(value - to_float(stored.data(), 0, to.type)));
          }
    return difference / largest;
  }
};

}  // namespace cudnn_test
