#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {
namespace {
thread_local DType compute_type = DType::f32;
}

AutocastScope::AutocastScope(DType dtype) : previous_(compute_type) {
  if (!is_floating(dtype)) fail(fmt::format("autocast: expected f32, bf16 or f16, got {}", name_of(dtype)));
  compute_type = dtype;
}
AutocastScope::~AutocastScope() { compute_type = previous_; }
DType AutocastScope::current() { return compute_type; }

Tensor autocast(const Tensor& x) {
  return compute_type == DType::f32 || x.dtype() != DType::f32 ? x : cast(x, compute_type);
}

Tensor parameter_as(DType dtype, const Tensor& parameter) {
  if (!parameter.defined() || parameter.dtype() == dtype || parameter.dtype() != DType::f32) return parameter;
  const TagScope tag(Tag::workspace);
  return parameter.to(dtype);
}

Tensor gradient_as(DType dtype, Tensor gradient) {
  return gradient.dtype() == dtype ? std::move(gradient) : gradient.to(dtype);
}

}  // namespace saccade
