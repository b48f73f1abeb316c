#pragma once

#include <saccade/core/tensor.h>

namespace saccade {

/// Mixed precision: while it lives, convolutions, linear layers and squeeze-excite of this thread compute in `dtype`
/// (bf16 or f16; f32 turns it off again) and give results in it, so activations are stored in half the bytes. An input
/// of f32 is cast; parameters stay f32 and are cast for the duration of one call, so no second copy of a model exists.
/// Their gradients are f32. Statistics, norms, prototype scores, assignments and losses are f32 whatever the scope
/// says. (Micikevicius et al., "Mixed precision training", 2018.)
class AutocastScope {
 public:
  explicit AutocastScope(DType dtype);
  /// f32 outside of any scope.
  static DType current() { return Context::current().precision; }

 private:
  FieldScope<&Context::precision> scope_;
};

/// x in the type that the current scope computes in: x itself, or a differentiable cast of an f32 x.
Tensor autocast(const Tensor& x);

/// A parameter in the type of the data that it meets: itself, or a copy (Tag::workspace) to be dropped after the call.
/// Undefined stays undefined. Not recorded.
Tensor parameter_as(DType dtype, const Tensor& parameter);

/// A gradient computed in f32 in the type of its parameter. Not recorded.
Tensor gradient_as(DType dtype, Tensor gradient);

}  // namespace saccade
