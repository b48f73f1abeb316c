#pragma once

#include <saccade/core/tensor.h>

/// @file
/// What targets of a loss are made of. Nothing of it is recorded. All throw saccade::Error on wrong shapes or dtypes.

namespace saccade {

/// softmax over K of scores / temperature + offset: f32 scores (rows, K), offset (K) -> (rows, K).
Tensor softmax(const Tensor& scores, float temperature, const Tensor& offset);

/// The mean of the rows of x (rows, C), f32: (C).
Tensor mean_rows(const Tensor& x);

}  // namespace saccade
