#include <fmt/format.h>
#include <saccade/core/autocast.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>

namespace saccade {

AutocastScope::AutocastScope(DType dtype) : scope_(dtype) {
  if (!is_floating(dtype)) fail(fmt::format("autocast: expected f32, bf16 or f16, got {}", name_of(dtype)));
}

Tensor autocast(const Tensor& x) {
  const DType dtype = AutocastScope::current();
  return dtype == DType::f32 || x.dtype() != DType::f32 ? x : cast(x, dtype);
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
