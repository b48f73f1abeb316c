#pragma once

#include <saccade/core/tensor.h>

namespace saccade {

/// y = op(a) op(b) (+ bias as a row) through the device's matrix product, its scratch from the allocator; op transposes
/// where asked. Not recorded: the pieces that ops with a matrix product inside are made of.
void product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, const Tensor& bias, const Tensor& y);

}  // namespace saccade
