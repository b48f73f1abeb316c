#include <saccade/kernels/cuda/cudnn_plan.h>
#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <array>

namespace saccade::kernels::cuda {
namespace {

constexpr const char* kPlan = "plan a convolution";

cudnnDataType_t type_of(DType dtype) {
  if (!is_floating(dtype)) throw Error("convolution: expected f32, f16 or bf16, got " + std::string(name_of(dtype)));
  return dtype == DType::f32 ? CUDNN_DATA_FLOAT : dtype == DType::f16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16;
}

/// `dims` in cuDNN's order (N, C, H, W) of memory that is (N, H, W, C).
CudnnDescriptor make_tensor(ConvTensor id, DType dtype, const std::array<int64_t, 4>& dims, int64_t alignment) {
  const auto [n, c, h, w] = dims;
  const std::array<int64_t, 4> strides{h * w * c, 1, w * c, c};
  const cudnnDataType_t type = type_of(dtype);
  CudnnDescriptor tensor(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  tensor.set(CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
  tensor.set(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
  tensor.set(CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims.data());
  tensor.set(CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides.data());
  tensor.set(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
  tensor.finalize();
  return tensor;
}

CudnnDescriptor make_convolution(const Conv2d& conv) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const int64_t spatial = 2;
  const std::array<int64_t, 2> dilations{1, 1}, strides{conv.stride, conv.stride}, paddings{conv.padding, conv.padding};
  CudnnDescriptor made(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
  made.set(CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute);
  made.set(CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
  made.set(CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &spatial);
  made.set(CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations.data());
  made.set(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides.data());
  made.set(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, paddings.data());
  made.set(CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, paddings.data());
  made.finalize();
  return made;
}

/// What the three passes, in the order of ConvPass, call the same things.
struct PassNames {
  cudnnBackendDescriptorType_t operation;
  cudnnBackendAttributeName_t convolution, image, weight, output, alpha, beta;
};
constexpr PassNames kPassNames[] = {
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};

/// A graph of one operation. What it is made of lives as long: that cuDNN keeps copies is nowhere promised.
struct Graph {
  CudnnDescriptor image, weight, output, convolution, operation, graph;
};
Graph make_graph(const ConvProblem& problem, cudnnHandle_t handle) {
  const Conv2d& conv = problem.conv;
  const Segment out = conv.output(problem.in);
  CudnnDescriptor image =
      make_tensor(ConvTensor::image, conv.dtype, {problem.in.n, conv.in_channels, problem.in.h, problem.in.w},
                  problem.image_alignment);
  // That the weights have fewer channels than the images is what tells cuDNN of groups.
  CudnnDescriptor weight =
      make_tensor(ConvTensor::weight, conv.dtype,
                  {conv.out_channels, conv.in_channels / conv.groups, conv.kernel, conv.kernel}, kConvAlignment);
  CudnnDescriptor output =
      make_tensor(ConvTensor::output, conv.dtype, {out.n, conv.out_channels, out.h, out.w}, problem.output_alignment);
  CudnnDescriptor convolution = make_convolution(conv);
  const PassNames& names = kPassNames[static_cast<size_t>(problem.pass)];
  const float one = 1, zero = 0;
  CudnnDescriptor operation(names.operation);
  operation.set(names.convolution, convolution);
  operation.set(names.image, image);
  operation.set(names.weight, weight);
  operation.set(names.output, output);
  operation.set(names.alpha, CUDNN_TYPE_FLOAT, 1, &one);
  operation.set(names.beta, CUDNN_TYPE_FLOAT, 1, &zero);
  operation.finalize();
  CudnnDescriptor graph(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  graph.set(CUDNN_ATTR_OPERATIONGRAPH_OPS, operation);
  if (handle != nullptr) graph.set(CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
  graph.finalize();
  return {std::move(image),       std::move(weight),    std::move(output),
          std::move(convolution), std::move(operation), std::move(graph)};
}

/// Adds the heuristics' proposals, best first. A mode that has none for a problem may say so by an error.
void propose(const CudnnDescriptor& graph, const CudnnDescriptor& properties, cudnnBackendHeurMode_t mode,
             std::vector<ConvPlan>& into) {
  CudnnDescriptor heuristic(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  heuristic.set(CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
  if (properties.get() != nullptr) heuristic.set(CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, properties);
  if (cudnnBackendFinalize(heuristic.get()) != CUDNN_STATUS_SUCCESS) return;
  int64_t count = 0;
  check(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                                 &count, nullptr),
        kPlan);
  if (count == 0) return;
  std::vector<CudnnDescriptor> configs;
  std::vector<cudnnBackendDescriptor_t> raw;
  for (int64_t i = 0; i < count; ++i) raw.push_back(configs.emplace_back(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR).get());
  check(cudnnBackendGetAttribute(heuristic.get(), CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count,
                                 &count, raw.data()),
        kPlan);
  configs.resize(static_cast<size_t>(count));
  for (CudnnDescriptor& config : configs) into.emplace_back().config = std::move(config);
}

/// Asks what cuDNN notes about the engine of a proposal.
void read_notes(ConvPlan& plan, DType dtype) {
  const CudnnDescriptor engine(CUDNN_BACKEND_ENGINE_DESCRIPTOR);
  cudnnBackendDescriptor_t raw = engine.get();
  int64_t count = 0;
  check(cudnnBackendGetAttribute(plan.config.get(), CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                 &count, &raw),
        kPlan);
  std::array<cudnnBackendNumericalNote_t, CUDNN_NUMERICAL_NOTE_TYPE_COUNT> notes{};
  check(cudnnBackendGetAttribute(raw, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                 CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count, notes.data()),
        kPlan);
  const auto has = [&](cudnnBackendNumericalNote_t note) {
    return std::find(notes.begin(), notes.begin() + count, note) != notes.begin() + count;
  };
  plan.tensor_cores = has(CUDNN_NUMERICAL_NOTE_TENSOR_CORE);
  plan.deterministic = !has(CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC);
  // Tensor cores take f32 operands as TF32.
  plan.reduced_precision = has(CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION) ||
                           has(CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS) || (dtype == DType::f32 && plan.tensor_cores);
}

std::string describe(const ConvProblem& problem) {
  const Conv2d& conv = problem.conv;
  const char* pass = problem.pass == ConvPass::forward         ? "forward"
                     : problem.pass == ConvPass::backward_data ? "backward to the images"
                                                               : "backward to the weights";
  return std::string("convolution (") + std::to_string(conv.kernel) + "x" + std::to_string(conv.kernel) + ", stride " +
         std::to_string(conv.stride) + ", " + std::to_string(conv.in_channels) + " to " +
         std::to_string(conv.out_channels) + " channels in " + std::to_string(conv.groups) + " groups, " +
         std::string(name_of(conv.dtype)) + ", images (" + std::to_string(problem.in.n) + ", " +
         std::to_string(problem.in.h) + ", " + std::to_string(problem.in.w) + ")), " + pass;
}

}  // namespace

CudnnDescriptor::CudnnDescriptor(cudnnBackendDescriptorType_t type) {
  check(cudnnBackendCreateDescriptor(type, &descriptor_), kPlan);
}
CudnnDescriptor::~CudnnDescriptor() {
  if (descriptor_ != nullptr) cudnnBackendDestroyDescriptor(descriptor_);
}
void CudnnDescriptor::set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                          const void* values) {
  check(cudnnBackendSetAttribute(descriptor_, name, type, count, values), kPlan);
}
void CudnnDescriptor::set(cudnnBackendAttributeName_t name, const CudnnDescriptor& value) {
  const cudnnBackendDescriptor_t raw = value.get();
  set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
}
void CudnnDescriptor::finalize() { check(cudnnBackendFinalize(descriptor_), kPlan); }

PlanTarget::PlanTarget(const std::string& properties) : properties_(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR) {
  properties_.set(CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                  static_cast<int64_t>(properties.size() + 1), properties.c_str());
  properties_.finalize();
}

std::vector<ConvPlan> PlanTarget::plans(const ConvProblem& problem, size_t most) const {
  const Graph parts = make_graph(problem, handle_);
  const CudnnDescriptor& graph = parts.graph;
  std::vector<ConvPlan> proposals;
  propose(graph, properties_, CUDNN_HEUR_MODE_A, proposals);
  propose(graph, properties_, CUDNN_HEUR_MODE_FALLBACK, proposals);
  for (ConvPlan& proposal : proposals) read_notes(proposal, problem.conv.dtype);
  // What a plan promises of its numbers; false is better.
  const auto promise = [](const ConvPlan& plan) { return std::pair(!plan.deterministic, plan.reduced_precision); };
  std::stable_sort(proposals.begin(), proposals.end(),
                   [&](const ConvPlan& a, const ConvPlan& b) { return promise(a) < promise(b); });

  std::vector<ConvPlan> found;
  std::string why_not;
  for (ConvPlan& proposal : proposals) {
    if (found.size() == most || (!found.empty() && promise(proposal) != promise(found.front()))) break;
    CudnnDescriptor plan(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    plan.set(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, proposal.config);
    if (handle_ != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle_);
    if (properties_.get() != nullptr) plan.set(CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, properties_);
    if (const cudnnStatus_t status = cudnnBackendFinalize(plan.get()); status != CUDNN_STATUS_SUCCESS) {
      why_not = std::string("; its last proposal failed: ") + cudnnGetErrorString(status);
      continue;
    }
    int64_t bytes = 0, count = 0;
    check(cudnnBackendGetAttribute(plan.get(), CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &count,
                                   &bytes),
          kPlan);
    proposal.workspace = static_cast<size_t>(bytes);
    proposal.plan = std::move(plan);
    found.push_back(std::move(proposal));
  }
  if (found.empty()) throw Error("cuDNN has no plan for " + describe(problem) + why_not);
  return found;
}

}  // namespace saccade::kernels::cuda
