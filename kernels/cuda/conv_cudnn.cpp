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

/// So many of cuDNN's proposals are of interest.
constexpr size_t kCandidates = 5;

int64_t alignment_of(size_t offset) { return int64_t{1} << std::countr_zero(offset | kConvAlignment); }

template <class T>
T* at(T* base, size_t bytes) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<Byte*>(base) + bytes;
}

bool asked_to_tune() {
  const char* value = std::getenv("SACCADE_CUDNN_AUTOTUNE");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

/// The most that a plan of these parts may take.
size_t plan_workspace(std::span<const CudnnConvolutions::Part> parts) {
  size_t most = 0;
  for (const auto& part : parts)
    for (const ConvPlan& plan : *part.plans) most = std::max(most, plan.workspace);
  return most;
}

}  // namespace

CudnnConvolutions::CudnnConvolutions(cudnnHandle_t handle, cudaStream_t stream, size_t limit)
    : handle_(handle), stream_(stream), target_(handle), limit_(limit), autotune_(asked_to_tune()) {}

CudnnConvolutions::CudnnConvolutions(const std::string& properties) : target_(properties) {}

std::vector<ConvPlan>& CudnnConvolutions::plans(const ConvProblem& p) {
  const Key key{{p.conv.in_channels, p.conv.out_channels, p.conv.kernel, p.conv.stride, p.conv.padding, p.conv.groups},
                p.conv.dtype,
                {p.in.n, p.in.h, p.in.w},
                p.pass,
                p.image_alignment,
                p.output_alignment};
  auto known = plans_.find(key);
  if (known == plans_.end()) {
    std::vector<ConvPlan> plans = target_.plans(p, kCandidates);
    // Without a measurement a plan off the tensor cores is no alternative to one on them.
    if (!autotune_)
      std::erase_if(plans, [on = plans.front().tensor_cores](const ConvPlan& plan) { return plan.tensor_cores != on; });
    const size_t least = std::ranges::min_element(plans, {}, &ConvPlan::workspace)->workspace;
    std::erase_if(plans, [&](const ConvPlan& plan) { return plan.workspace > std::max(limit_, least); });
    if (!autotune_) plans.resize(1);
    known = plans_.emplace(key, std::move(plans)).first;
  }
  return known->second;
}

std::vector<CudnnConvolutions::Part> CudnnConvolutions::parts(const Conv2d& conv, std::span<const Segment> in,
                                                              ConvPass pass) {
  const std::lock_guard lock(mutex_);
  std::vector<Part> parts;
  size_t image = 0, output = 0;
  for (const Segment& segment : in) {
    const Segment out = conv.output(segment);
    const auto image_bytes = static_cast<size_t>(segment.h * segment.w * conv.in_channels) * size_of(conv.dtype);
    const auto output_bytes = static_cast<size_t>(out.h * out.w * conv.out_channels) * size_of(conv.dtype);
    int64_t together = segment.n;
    for (int64_t done = 0; done < segment.n;) {
      Part part{{.conv = conv,
                 .in = {0, segment.h, segment.w},
                 .pass = pass,
                 .image_alignment = alignment_of(image),
                 .output_alignment = alignment_of(output)},
                image,
                output};
      const auto plans_of = [&](int64_t images) -> std::vector<ConvPlan>& {
        part.problem.in.n = images;
        return plans(part.problem);
      };
      together = images_together(std::min(together, segment.n - done), limit_,
                                 [&](int64_t images) { return plans_of(images).front().workspace; });
      part.plans = &plans_of(together);
      done += part.problem.in.n;
      image += static_cast<size_t>(part.problem.in.n) * image_bytes;
      output += static_cast<size_t>(part.problem.in.n) * output_bytes;
      parts.push_back(std::move(part));
    }
  }
  return parts;
}

size_t CudnnConvolutions::workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) {
  const std::vector<Part> parts = this->parts(conv, in, pass);
  const size_t most = plan_workspace(parts);
  return pass == ConvPass::backward_weight ? WeightGradientWorkspace(conv, parts.size(), most).total() : most;
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
    Event begin(cudaEventDefault), end(cudaEventDefault);
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

void CudnnConvolutions::run(const Part& part, const Operands& operands, void* workspace) {
  const auto require = [](const void* tensor, int64_t alignment, const char* name) {
    if (reinterpret_cast<uintptr_t>(tensor) % static_cast<uintptr_t>(alignment) != 0)
      throw Error(std::string("convolution: expected ") + name + " at a multiple of " + std::to_string(alignment) +
                  " bytes");
  };
  require(operands.image, part.problem.image_alignment, "images");
  require(operands.weight, kConvAlignment, "weights");
  require(operands.output, part.problem.output_alignment, "outputs");
  const std::lock_guard lock(mutex_);
  if (part.plans->size() > 1) keep_fastest(*part.plans, operands, workspace);
  execute(part.plans->front(), operands, workspace);
}

void CudnnConvolutions::forward(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* w, void* y,
                                void* workspace) {
  for (const Part& part : parts(conv, in, ConvPass::forward))
    run(part, {at(x, part.image_offset), w, at(y, part.output_offset)}, workspace);
}

void CudnnConvolutions::backward_data(const Conv2d& conv, std::span<const Segment> in, const void* dy, const void* w,
                                      void* dx, void* workspace) {
  for (const Part& part : parts(conv, in, ConvPass::backward_data))
    run(part, {at(dx, part.image_offset), w, at(dy, part.output_offset)}, workspace);
}

void CudnnConvolutions::backward_weight(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* dy,
                                        float* dw, void* workspace) {
  const std::vector<Part> parts = this->parts(conv, in, ConvPass::backward_weight);
  const WeightGradientWorkspace layout(conv, parts.size(), plan_workspace(parts));
  void* const gradient = at(workspace, layout.plan);  // of a part, where it is not f32
  auto* const sum = static_cast<float*>(at(workspace, layout.plan + layout.gradient));
  if (parts.empty()) cuda::run(stream_, Fill{DType::f32, conv.weight_elements(), 0, dw});
  for (size_t i = 0; i < parts.size(); ++i) {
    float* const whole = i == 0 ? dw : sum;
    void* const own = conv.dtype == DType::f32 ? static_cast<void*>(whole) : gradient;
    run(parts[i], {at(x, parts[i].image_offset), own, at(dy, parts[i].output_offset)}, workspace);
    if (conv.dtype != DType::f32) cuda::run(stream_, Cast{conv.dtype, DType::f32, conv.weight_elements(), own, whole});
    if (i > 0) cuda::run(stream_, Combine{Binary::add, DType::f32, conv.weight_elements(), dw, sum, dw});
  }
}

}  // namespace saccade::kernels::cuda
