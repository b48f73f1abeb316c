#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "one_convolution.h"

// The double of cuDNN: its convolutions are convolutions, and each misuse is caught.
namespace {

using namespace cudnn_test;

constexpr std::array passes = {Pass::forward, Pass::data, Pass::filter};

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
          trial.conv.type = trial.conv.filter_type = type;
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
    const std::vector<std::byte> first = trial.written().host;
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
  const char* says;
  void (*commit)(Trial&);
};

const Misuse misuses[] = {
    {"an attribute of another type", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute 906 has type 3",
     [](Trial& t) {
       const int32_t id = 1;
       set(t.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT32, &id);
     }},
    {"f64 scales for f32 arithmetic", CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE, "attribute 700 has type 4",
     [](Trial& t) {
       const double one = 1;
       set(t.conv.make(CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR),
           CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_DOUBLE, &one);
     }},
    {"too many elements", CUDNN_STATUS_BAD_PARAM, "1 to 1 elements, got 2",
     [](Trial& t) {
       set(t.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, t.conv.ids.data(), 2);
     }},
    {"another descriptor's attribute", CUDNN_STATUS_BAD_PARAM, "have no attribute 906",
     [](Trial& t) {
       set(t.conv.make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64,
           t.conv.ids.data());
     }},
    {"a result that is set", CUDNN_STATUS_BAD_PARAM, "not settable",
     [](Trial& t) {
       const int64_t bytes = 0;
       set(t.conv.make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
           CUDNN_TYPE_INT64, &bytes);
     }},
    {"set once finalised", CUDNN_STATUS_BAD_PARAM, "finalised already",
     [](Trial& t) { set(t.conv.tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, t.conv.ids.data()); }},
    {"finalised twice", CUDNN_STATUS_BAD_PARAM, "finalised already", [](Trial& t) { finalize(t.conv.tensor(0)); }},
    {"got before it is finalised", CUDNN_STATUS_NOT_INITIALIZED, "not finalised",
     [](Trial& t) {
       int64_t id;
       must(cudnnBackendGetAttribute(t.conv.unfinished_tensor(0), CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1,
                                     nullptr, &id));
     }},
    {"an attribute is missing", CUDNN_STATUS_BAD_PARAM, "was not set",
     [](Trial& t) { finalize(t.conv.make(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)); }},
    {"made of what is not finalised", CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED, "not finalised",
     [](Trial& t) { t.conv.unfinished_operation(t.conv.unfinished_tensor(0), t.conv.tensor(1), t.conv.tensor(2)); }},
    {"made of what was destroyed", CUDNN_STATUS_BAD_PARAM, "was destroyed",
     [](Trial& t) {
       const Handle x = t.conv.tensor(0);
       t.conv.destroy(x);
       t.conv.unfinished_operation(x, t.conv.tensor(1), t.conv.tensor(2));
     }},
    {"made of another kind of descriptor", CUDNN_STATUS_BAD_PARAM_DESCRIPTOR_TYPE,
     "takes descriptors of type 17, got 1",
     [](Trial& t) { t.conv.unfinished_operation(t.conv.window(), t.conv.tensor(1), t.conv.tensor(2)); }},
    {"less alignment than a number has", CUDNN_STATUS_BAD_PARAM, "aligned to 2 bytes",
     [](Trial& t) {
       t.conv.alignment = 2;
       t.conv.tensor(0);
     }},
    {"an alignment that is no power of two", CUDNN_STATUS_BAD_PARAM, "aligned to 12 bytes",
     [](Trial& t) {
       t.conv.alignment = 12;
       t.conv.tensor(0);
     }},
    {"elements that overlap", CUDNN_STATUS_BAD_PARAM, "overlaps others",
     [](Trial& t) {
       t.conv.gap = -1;
       t.conv.tensor(0);
     }},
    {"no padding where there was some", CUDNN_STATUS_BAD_PARAM, "y must have 5 rows",
     [](Trial& t) {
       const Handle y = t.conv.tensor(2);
       t.conv.shape.padding = 0;
       finalize(t.conv.unfinished_operation(t.conv.tensor(0), t.conv.tensor(1), y));
     }},
    {"another number of images", CUDNN_STATUS_BAD_PARAM, "must have 2 images",
     [](Trial& t) {
       const Handle x = t.conv.tensor(0);
       t.conv.shape.n = 1;
       finalize(t.conv.unfinished_operation(x, t.conv.tensor(1), t.conv.tensor(2)));
     }},
    {"another number of filters", CUDNN_STATUS_BAD_PARAM, "of 4 channels",
     [](Trial& t) {
       const Handle w = t.conv.tensor(1);
       t.conv.shape.k = 5;
       finalize(t.conv.unfinished_operation(t.conv.tensor(0), w, t.conv.tensor(2)));
     }},
    {"filters of other channels", CUDNN_STATUS_BAD_PARAM, "channels do not divide",
     [](Trial& t) {
       const Handle w = t.conv.tensor(1);
       t.conv.shape.c = 8;
       finalize(t.conv.unfinished_operation(t.conv.tensor(0), w, t.conv.tensor(2)));
     }},
    {"groups that do not divide the filters", CUDNN_STATUS_BAD_PARAM, "3 groups do not divide",
     [](Trial& t) {
       t.conv.shape.groups = 3;
       t.conv.graph();
     }},
    {"two tensors of one identifier", CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "identifiers are 1, 1 and 2",
     [](Trial& t) {
       t.conv.ids = {1, 1, 2};
       t.conv.graph();
     }},
    {"f32 that becomes bf16", CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "and gives bf16",
     [](Trial& t) {
       t.conv.output = bf16;
       t.conv.prepare();
     }},
    {"f32 images and f16 filters", CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE, "takes f32 and f16",
     [](Trial& t) {
       t.conv.filter_type = f16;
       t.conv.prepare();
     }},
    {"engines for no device", CUDNN_STATUS_BAD_PARAM, "which device: neither the graph's",
     [](Trial& t) {
       t.conv.says_where = false;
       t.conv.prepare();
     }},
    {"a plan for no device", CUDNN_STATUS_BAD_PARAM, "which device: neither a handle",
     [](Trial& t) {
       const Handle engine = t.conv.configurations(CUDNN_HEUR_MODE_FALLBACK)[0];
       t.conv.says_where = false;
       t.conv.plan_of(engine);
     }},
    {"an identifier that the plan does not know", CUDNN_STATUS_BAD_PARAM, "tensor 121 is not in the variant pack",
     [](Trial& t) {
       t.allocate();
       t.conv.execute(t.pointers(), t.workspace, {'x', 'w', 'z'});
     }},
    {"a tensor too many", CUDNN_STATUS_BAD_PARAM, "4 tensors in the variant pack",
     [](Trial& t) {
       t.allocate();
       t.conv.execute({t.x->device, t.w->device, t.y->device, t.y->device}, t.workspace, {'x', 'w', 'y', 'z'});
     }},
    {"a pointer too few", CUDNN_STATUS_BAD_PARAM, "3 identifiers and 2 pointers",
     [](Trial& t) {
       t.allocate();
       t.conv.execute({t.x->device, t.w->device}, t.workspace);
     }},
    {"one tensor twice", CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES, "120 comes twice",
     [](Trial& t) {
       t.allocate();
       t.conv.execute(t.pointers(), t.workspace, {'x', 'x', 'y'});
     }},
    {"a tensor off its alignment", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "tensor 120",
     [](Trial& t) {
       t.allocate();
       t.conv.execute({static_cast<char*>(t.x->device) + 4, t.w->device, t.y->device}, t.workspace);
     }},
    {"a workspace off its alignment", CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER, "the workspace",
     [](Trial& t) {
       t.allocate();
       t.conv.execute(t.pointers(), static_cast<char*>(t.workspace) + 64);
     }},
    {"a tensor of the host's", CUDNN_STATUS_BAD_PARAM, "not the device's memory",
     [](Trial& t) {
       t.allocate();
       t.conv.execute({t.x->host.data(), t.w->device, t.y->device}, t.workspace);
     }},
    {"no workspace", CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "the workspace is null",
     [](Trial& t) {
       t.allocate();
       t.conv.execute(t.pointers(), nullptr);
     }},
    {"a workspace within a tensor", CUDNN_STATUS_BAD_PARAM, "tensor 120 overlap",
     [](Trial& t) {
       t.allocate();
       t.conv.execute(t.pointers(), t.x->device);
     }},
    {"a handle without a stream", CUDNN_STATUS_BAD_PARAM, "cudnnSetStream was never called",
     [](Trial& t) {
       must(cudnnDestroy(t.conv.cudnn));
       must(cudnnCreate(&t.conv.cudnn));
       t.allocate();
       t.execute();
     }},
    {"a stream that was destroyed", CUDNN_STATUS_BAD_PARAM, "no stream",
     [](Trial& t) {
       const cudaStream_t stream = t.conv.stream;
       cudaStreamDestroy(stream);
       cudaStreamCreateWithFlags(&t.conv.stream, cudaStreamNonBlocking);
       must(cudnnSetStream(t.conv.cudnn, stream));
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
    std::array<char, 256> sentence = {};
    cudnnGetLastErrorString(sentence.data(), sentence.size());
    EXPECT_STREQ(cudnnGetErrorString(status), cudnnGetErrorString(misuse.expected));
    EXPECT_NE(std::string(sentence.data()).find(misuse.says), std::string::npos) << sentence.data();
    const bool unsupported = CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED;
    EXPECT_EQ(cuda_doubles::last_complaint().find(misuse.says) == std::string::npos, unsupported);
  }
}

TEST_F(CudnnDouble, AWorkspaceIsForTheConvolutionAlone) {
  Trial trial;
  trial.allocate();
  cudaMemsetAsync(trial.workspace, 0, trial.conv.workspace_bytes(), trial.conv.stream);
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
