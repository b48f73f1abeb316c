#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gtest/gtest.h>
#include <support/cuda_doubles/cuda_doubles.h>

#include <array>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "one_convolution.h"

// The double of cuDNN: its convolutions are convolutions, and each misuse is caught.
namespace {

using namespace cudnn_test;

constexpr std::array passes = {Pass::forward, Pass::data, Pass::filter};

float to_float(const void* data, size_t i, cudnnDataType_t type) {
  if (type == f32) return static_cast<const float*>(data)[i];
  return type == f16 ? __half2float(static_cast<const __half*>(data)[i])
                     : __bfloat162float(static_cast<const __nv_bfloat16*>(data)[i]);
}
void from_float(void* data, size_t i, cudnnDataType_t type, float value) {
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
  std::vector<uint32_t> host;  // holds any type
  void* device = nullptr;

  Memory(const Convolution& conv, size_t tensor)
      : dims(conv.dims(tensor)), strides(strides_of(dims, conv.gap)), type(conv.type_of(tensor)) {
    host.resize(static_cast<size_t>(dims[0] * strides[0]));
    cudaMalloc(&device, host.size() * 4);
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
    cudaMemcpy(device, host.data(), host.size() * 4, cudaMemcpyHostToDevice);
  }
  void fetch() { cudaMemcpy(host.data(), device, host.size() * 4, cudaMemcpyDeviceToHost); }
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
    conv.execute({x->device, w->device, y->device}, workspace);
    ASSERT_EQ(cudaStreamSynchronize(conv.stream), cudaSuccess) << cuda_doubles::last_complaint();
    written().fetch();
  }
  /// The largest difference from the definition, relative to the largest value.
  double error() {
    std::vector<double> expected(written().host.size());
    Memory& to = written();
    const auto at = [](const Memory& m, const std::array<int64_t, 4>& i) { return m.at(i[0], i[1], i[2], i[3]); };
    const std::vector<uint32_t> before = to.host;
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
            uint32_t stored = 0;
            from_float(&stored, 0, to.type, static_cast<float>(sum));
            const double value = to.at(a, b, c, d);
            largest = std::max(largest, std::abs(sum));
            difference =
                std::isnan(value) ? INFINITY : std::max(difference, std::abs(value - to_float(&stored, 0, to.type)));
          }
    return difference / largest;
  }
};

class CudnnDouble : public ::testing::Test {
 protected:
  void SetUp() override { cuda_doubles::reset(); }
  void TearDown() override { EXPECT_EQ(cuda_doubles::describe(cuda_doubles::live()), ""); }
};

TEST_F(CudnnDouble, ConvolvesByTheDefinition) {
  const std::array<Shape, 5> shapes = {{{},
                                        {.n = 1, .h = 9, .w = 8, .stride = 2},
                                        {.c = 6, .k = 9, .groups = 3, .stride = 2},
                                        {.c = 4, .k = 4, .groups = 4},
                                        {.h = 8, .w = 9, .r = 2, .padding = 2, .dilation = 2}}};
  for (const Shape& shape : shapes) {
    for (const Pass pass : passes) {
      for (const cudnnDataType_t type : {f32, f16, bf16}) {
        for (const bool wide : {false, true}) {  // f32 out, accumulated, with gaps in memory
          Trial trial;
          trial.conv.shape = shape;
          trial.conv.pass = pass;
          trial.conv.type = type;
          trial.conv.output = wide ? f32 : type;
          if (wide) trial.conv.alpha = 0.5f, trial.conv.beta = 1, trial.conv.gap = 3;
          trial.allocate();
          EXPECT_EQ(trial.error(), 0) << "pass " << static_cast<int>(pass) << ", type " << type << ", groups "
                                      << shape.groups << ", stride " << shape.stride << ", wide " << wide;
        }
      }
    }
  }
  EXPECT_EQ(cuda_doubles::last_complaint(), "");
}

TEST_F(CudnnDouble, OnlyEnginesWithoutNotesAreExactAndTheSameEachTime) {
  int exact = 0, refused = 0;
  for (size_t i = 0; i < 4; ++i) {
    Trial trial;
    const std::vector<Handle> found = trial.conv.configurations(CUDNN_HEUR_MODE_A);
    ASSERT_EQ(found.size(), 4u);
    const auto notes = trial.conv.notes_of(found[i]);
    try {
      trial.conv.plan = trial.conv.plan_of(found[i]);
    } catch (const Refused& refusal) {
      EXPECT_EQ(refusal.status, CUDNN_STATUS_NOT_SUPPORTED);
      ++refused;
      continue;
    }
    trial.allocate(12);
    EXPECT_EQ(trial.error() > 1e-5, !notes.empty()) << "engine " << i;
    const std::vector<uint32_t> first = trial.written().host;
    trial.execute();
    EXPECT_EQ(first != trial.written().host, !notes.empty() && notes[0] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
    exact += notes.empty();
  }
  EXPECT_EQ(exact, 1);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(cuda_doubles::last_complaint(), "") << "what is not supported breaks no contract";
}

struct Misuse {
  const char* what;
  cudnnStatus_t expected;
  void (*commit)(Trial&);
};

const Misuse misuses[] = {
    {"an attribute of another type", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
     [](Trial& trial) {
       const int32_t id = 1;
       set(trial.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT32, &id);
     }},
    {"f64 scales for f32 arithmetic", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE,
     [](Trial& trial) {
       const double one = 1;
       set(trial.conv.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR),
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_DOUBLE, &one);
     }},
    {"too many elements", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       set(trial.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, trial.conv.ids.data(), 2);
     }},
    {"another descriptor's attribute", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       set(trial.conv.window(), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, trial.conv.ids.data());
     }},
    {"set once finalised", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       set(trial.conv.tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, trial.conv.ids.data());
     }},
    {"got before it is finalised", CUDNN_STATUS_NOT_INITIALIZED,
     [](Trial& trial) {
       int64_t id;
       must(cudnnBackendGetAttribute(trial.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1,
                                     nullptr, &id));
     }},
    {"an attribute is missing", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) { finalize(trial.conv.make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)); }},
    {"made of what is not finalised", CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED,
     [](Trial& trial) {
       trial.conv.unfinished_operation(trial.conv.unfinished_tensor(0), trial.conv.tensor(1), trial.conv.tensor(2));
     }},
    {"made of what was destroyed", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       const Handle x = trial.conv.tensor(0);
       trial.conv.destroy(x);
       trial.conv.unfinished_operation(x, trial.conv.tensor(1), trial.conv.tensor(2));
     }},
    {"made of another kind of descriptor", CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
     [](Trial& trial) {
       trial.conv.unfinished_operation(trial.conv.window(), trial.conv.tensor(1), trial.conv.tensor(2));
     }},
    {"an alignment of 3 bytes", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.conv.alignment = 3;
       trial.conv.tensor(0);
     }},
    {"elements that overlap", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.conv.gap = -1;
       trial.conv.tensor(0);
     }},
    {"an output of another shape", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       const Handle y = trial.conv.tensor(2);
       trial.conv.shape.padding = 0;
       finalize(trial.conv.unfinished_operation(trial.conv.tensor(0), trial.conv.tensor(1), y));
     }},
    {"groups that do not divide the filters", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.conv.shape.groups = 3;
       trial.conv.graph();
     }},
    {"two tensors of one identifier", CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES,
     [](Trial& trial) {
       trial.conv.ids = {1, 1, 2};
       trial.conv.graph();
     }},
    {"f16 that becomes bf16", CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE,
     [](Trial& trial) {
       trial.conv.type = f16;
       trial.conv.output = bf16;
       trial.conv.prepare();
     }},
    {"a tensor too few in the variant pack", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.allocate();
       trial.conv.ids = {'x', 'w', 'z'};
       trial.execute();
     }},
    {"a tensor off its alignment", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER,
     [](Trial& trial) {
       trial.conv.alignment = 512;
       trial.allocate();
       trial.conv.execute({static_cast<char*>(trial.x->device) + 4, trial.w->device, trial.y->device}, trial.workspace);
     }},
    {"a tensor of the host's", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.allocate();
       trial.conv.execute({trial.x->host.data(), trial.w->device, trial.y->device}, trial.workspace);
     }},
    {"no workspace", CUDNN_STATUS_BAD_PARAM_NULL_POINTER,
     [](Trial& trial) {
       trial.allocate();
       trial.conv.execute({trial.x->device, trial.w->device, trial.y->device}, nullptr);
     }},
    {"a workspace within a tensor", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       trial.allocate();
       trial.conv.execute({trial.x->device, trial.w->device, trial.y->device}, trial.x->device);
     }},
    {"a handle without a stream", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       must(cudnnDestroy(trial.conv.cudnn));
       must(cudnnCreate(&trial.conv.cudnn));
       trial.allocate();
       trial.execute();
     }},
    {"a stream that was destroyed", CUDNN_STATUS_BAD_PARAM,
     [](Trial& trial) {
       const cudaStream_t stream = trial.conv.stream;
       cudaStreamDestroy(stream);
       cudaStreamCreateWithFlags(&trial.conv.stream, cudaStreamNonBlocking);
       must(cudnnSetStream(trial.conv.cudnn, stream));
     }},
};

TEST_F(CudnnDouble, CatchesMisuse) {
  for (const Misuse& misuse : misuses) {
    SCOPED_TRACE(misuse.what);
    cuda_doubles::reset();
    Trial trial;
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    try {
      misuse.commit(trial);
    } catch (const Refused& refused) {
      status = refused.status;
    }
    EXPECT_STREQ(cudnnGetErrorString(status), cudnnGetErrorString(misuse.expected));
    std::array<char, 256> sentence = {};
    cudnnGetLastErrorString(sentence.data(), sentence.size());
    EXPECT_GT(std::string(sentence.data()).size(), 10u);
    if (CUDNN_STATUS_CATEGORY(status) != CUDNN_STATUS_NOT_SUPPORTED) {
      EXPECT_NE(cuda_doubles::last_complaint().find(sentence.data()), std::string::npos);
    }
  }
}

TEST_F(CudnnDouble, AWorkspaceIsForTheConvolutionAlone) {
  Trial trial;
  trial.allocate();
  trial.execute();
  std::vector<float> found(trial.conv.workspace_bytes() / sizeof(float));
  ASSERT_FALSE(found.empty());
  cudaMemcpy(found.data(), trial.workspace, found.size() * sizeof(float), cudaMemcpyDeviceToHost);
  for (const float value : found) EXPECT_TRUE(std::isnan(value));
}

TEST_F(CudnnDouble, ATensorMustLieWithinItsMemory) {
  Trial trial;
  trial.allocate();
  void* small = nullptr;
  cudaMalloc(&small, 256);
  trial.conv.execute({trial.x->device, trial.w->device, small}, trial.workspace);
  EXPECT_EQ(cudaStreamSynchronize(trial.conv.stream), cudaErrorIllegalAddress);
  EXPECT_NE(cuda_doubles::last_complaint().find("tensor 121"), std::string::npos) << cuda_doubles::last_complaint();
  cudaFree(small);
}

TEST_F(CudnnDouble, CountsWhatIsNotDestroyed) {
  cudnnHandle_t handle = nullptr;
  must(cudnnCreate(&handle));
  Descriptors descriptors;
  descriptors.make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  EXPECT_EQ(cuda_doubles::live().cudnn, 2);
  must(cudnnDestroy(handle));
  EXPECT_EQ(cudnnDestroy(handle), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(cuda_doubles::live().cudnn, 1);
}

}  // namespace
