#pragma once

#include "onednn.h"

/// Where the interfaces of oneDNN 2 and 3 differ: 3 has no operation descriptors, and its scales are read when a
/// primitive runs. Private to kernels/cpu.
namespace saccade::kernels::cpu::onednn {

/// A primitive's description from the fields of its operation, in the order that both majors share.
template <class Primitive, class... Fields>
typename Primitive::primitive_desc describe(const dnnl::primitive_attr& attr, const Fields&... fields) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine(), fields..., attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(fields...), attr, engine());
#endif
}

/// The same of a backward pass, which is asked for beside its forward pass.
template <class Primitive, class... Fields>
typename Primitive::primitive_desc describe_backward(const dnnl::primitive_attr& attr,
                                                     const dnnl::convolution_forward::primitive_desc& forward,
                                                     const Fields&... fields) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine(), fields..., forward, attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(fields...), attr, engine(), forward);
#endif
}

/// 2 computes the data gradient of a strided 1x1 convolution of few channels where it is wanted; 3 goes over all
/// pixels, at a half to a sixth of the speed of a matrix product.
constexpr bool has_fast_strided_data_gradients = DNNL_VERSION_MAJOR < 3;

/// result = factor * (product + oneDNN's own bias), before what `after` holds: call it first.
inline void scale_result(float factor, [[maybe_unused]] dnnl::primitive_attr& attr,
                         [[maybe_unused]] dnnl::post_ops& after) {
#if DNNL_VERSION_MAJOR >= 3
  after.append_eltwise(dnnl::algorithm::eltwise_linear, factor, 0.f);
#else
  attr.set_output_scales(0, {factor});
#endif
}

}  // namespace saccade::kernels::cpu::onednn
