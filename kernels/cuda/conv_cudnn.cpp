#include <saccade/kernels/cuda/conv_cudnn.h>
#include <saccade/kernels/cuda/launch.h>
#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <string_view>

namespace saccade::kernels::cuda {
namespace {

constexpr size_t kAlignment = 256;  // of parts of the workspace
/// What autotuning chooses from.
constexpr size_t kCandidates = 5;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

int64_t alignment_of(size_t offset) { return int64_t{1} << std::min(4, std::countr_zero(offset | 16)); }

template <class T>
T* at(T* base, size_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<Byte*>(base) + bytes;
}

bool asked_to_tune() {
  const char* value = std::getenv("SACCADE_CUDNN_AUTOTUNE");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

/// Weight gradients come in the dtype of the convolution, a segment at a time; what is behind the plan's own workspace.
struct WeightParts {
  size_t plan = 0, gradient = 0, sum = 0;  ///< bytes
  size_t total() const { return plan + gradient + sum; }
};
WeightParts weight_parts(const Conv2d& conv, size_t segments, size_t plan) {
  const auto elements = static_cast<size_t>(conv.weight_elements());
  const bool half = conv.dtype != DType::f32;
  return {.plan = aligned(plan),
          .gradient = half ? aligned(elements * size_of(conv.dtype)) : 0,
          .sum = segments > 1 ? aligned(elements * sizeof(float)) : 0};
}

/// An event that notes the time.
class TimingEvent {
 public:
  TimingEvent() { check(cudaEventCreateWithFlags(&event_, cudaEventDefault), "make an event"); }
  ~TimingEvent() { cudaEventDestroy(event_); }
  TimingEvent(const TimingEvent&) = delete;
  TimingEvent& operator=(const TimingEvent&) = delete;
  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
  /// Waits for the later one.
  float milliseconds_until(const TimingEvent& later) const {
    float time = 0;
    check(cudaEventSynchronize(later.event_), "wait for an event");
    check(cudaEventElapsedTime(&time, event_, later.event_), "measure time");
    return time;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

std::vector<ConvPart> conv_parts(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) {
  std::vector<ConvPart> parts;
  size_t image = 0, output = 0;
  for (const Segment& segment : in) {
    if (segment.n > 0)
      parts.push_back({{.conv = conv,
                        .in = segment,
                        .pass = pass,
                        .image_alignment = alignment_of(image),
                        .output_alignment = alignment_of(output)},
                       image,
                       output});
    image += static_cast<size_t>(segment.rows() * conv.in_channels) * size_of(conv.dtype);
    output += static_cast<size_t>(conv.output(segment).rows() * conv.out_channels) * size_of(conv.dtype);
  }
  return parts;
}

CudnnConvolutions::CudnnConvolutions(cudnnHandle_t handle, cudaStream_t stream)
    : handle_(handle), stream_(stream), target_(handle), autotune_(asked_to_tune()) {}

std::vector<ConvPlan>& CudnnConvolutions::plans(const ConvProblem& p) {
  const Key key{{p.conv.in_channels, p.conv.out_channels, p.conv.kernel, p.conv.stride, p.conv.padding, p.conv.groups},
                p.conv.dtype,
                {p.in.n, p.in.h, p.in.w},
                p.pass,
                p.image_alignment,
                p.output_alignment};
  auto known = plans_.find(key);
  if (known == plans_.end())
    known = plans_.emplace(key, target_.plans(p, kConvWorkspaceLimit, autotune_ ? kCandidates : 1)).first;
  return known->second;
}

size_t CudnnConvolutions::workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) {
  const std::lock_guard lock(mutex_);
  size_t most = 0;
  for (const ConvPart& part : conv_parts(conv, in, pass))
    for (const ConvPlan& plan : plans(part.problem)) most = std::max(most, plan.workspace);
  return pass == ConvPass::backward_weight ? weight_parts(conv, in.size(), most).total() : most;
}

void CudnnConvolutions::execute(const ConvPlan& plan, const Operands& operands, void* workspace) {
  constexpr std::array ids{ConvTensor::image, ConvTensor::weight, ConvTensor::output};
  const std::array pointers{operands.image, operands.weight, operands.output};
  CudnnDescriptor pack(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
  pack.set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, ids.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, pointers.data());
  pack.set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  pack.finalize();
  check(cudnnBackendExecute(handle_, plan.plan.get(), pack.get()), "run a convolution");
}

void CudnnConvolutions::keep_fastest(std::vector<ConvPlan>& candidates, const Operands& operands, void* workspace) {
  size_t fastest = 0;
  float least = 0;
  for (size_t i = 0; i < candidates.size(); ++i) {
    execute(candidates[i], operands, workspace);  // the first run may compile or load
    TimingEvent begin, end;
    begin.record(stream_);
    for (int run = 0; run < 3; ++run) execute(candidates[i], operands, workspace);
    end.record(stream_);
    const float time = begin.milliseconds_until(end);
    if (i == 0 || time < least) {
      least = time;
      fastest = i;
    }
  }
  std::swap(candidates.front(), candidates[fastest]);
  // workspace() goes on to answer what it did: plans that planners or callers rely on.
  candidates.front().workspace = std::ranges::max_element(candidates, {}, &ConvPlan::workspace)->workspace;
  candidates.resize(1);
}

void CudnnConvolutions::run(const ConvProblem& problem, const Operands& operands, void* workspace) {
  const auto require = [](const void* tensor, int64_t alignment, const char* name) {
    if (reinterpret_cast<uintptr_t>(tensor) % static_cast<uintptr_t>(alignment) != 0)
      throw Error(std::string("convolution: expected ") + name + " at a multiple of " + std::to_string(alignment) +
                  " bytes");
  };
  require(operands.image, problem.image_alignment, "images");
  require(operands.weight, problem.weight_alignment, "weights");
  require(operands.output, problem.output_alignment, "outputs");
  const std::lock_guard lock(mutex_);
  std::vector<ConvPlan>& candidates = plans(problem);
  if (candidates.size() > 1) keep_fastest(candidates, operands, workspace);
  execute(candidates.front(), operands, workspace);
}

void CudnnConvolutions::forward(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* w, void* y,
                                void* workspace) {
  for (const ConvPart& part : conv_parts(conv, in, ConvPass::forward))
    run(part.problem, {at(x, part.image_offset), w, at(y, part.output_offset)}, workspace);
}

void CudnnConvolutions::backward_data(const Conv2d& conv, std::span<const Segment> in, const void* dy, const void* w,
                                      void* dx, void* workspace) {
  for (const ConvPart& part : conv_parts(conv, in, ConvPass::backward_data))
    run(part.problem, {at(dx, part.image_offset), w, at(dy, part.output_offset)}, workspace);
}

void CudnnConvolutions::backward_weight(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* dy,
                                        float* dw, void* workspace) {
  const std::vector<ConvPart> parts = conv_parts(conv, in, ConvPass::backward_weight);
  // workspace() put the gradients behind the largest plan; its size is not asked again, but counted from the end.
  const size_t total = this->workspace(conv, in, ConvPass::backward_weight);
  const WeightParts behind = weight_parts(conv, in.size(), 0);
  char* const gradient = static_cast<char*>(workspace) + (total - behind.total());
  auto* const sum = reinterpret_cast<float*>(gradient + behind.gradient);
  bool first = true;
  for (const ConvPart& part : parts) {
    float* const whole = first ? dw : sum;  // f32, of this segment
    void* const own = conv.dtype == DType::f32 ? static_cast<void*>(whole) : gradient;
    run(part.problem, {at(x, part.image_offset), own, at(dy, part.output_offset)}, workspace);
    if (conv.dtype != DType::f32) cast(stream_, conv.dtype, DType::f32, conv.weight_elements(), own, whole);
    if (!first) add(stream_, DType::f32, conv.weight_elements(), dw, sum, dw);
    first = false;
  }
  if (first) fill(stream_, DType::f32, conv.weight_elements(), 0, dw);
}

}  // namespace saccade::kernels::cuda
