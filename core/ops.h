#pragma once

#include <saccade/core/tensor.h>
#include <saccade/kernels/assignment.h>

#include <cstdint>

/// @file
/// The differentiable operations. Each is one function in core/ops/ with its backward inside: it checks, allocates,
/// computes through the device's Backend and records the tape. Image tensors are (rows, C) with segments; every op on
/// images does all segments as one node. All throw saccade::Error on wrong shapes, dtypes or devices.
///
/// Results are of the data's dtype. conv2d, linear and squeeze_excite cast f32 data under an AutocastScope, and take
/// f32 parameters with data of any floating type; gradients have their parameter's dtype.

namespace saccade {

struct Conv2dOptions {
  int64_t stride = 1, padding = 0, groups = 1;
};
/// x: images of C channels; weight: (out, k, k, C / groups) -> images of `out` channels. No bias.
Tensor conv2d(const Tensor& x, const Tensor& weight, Conv2dOptions options);

/// x (rows, in) or images of 1x1; weight (out, in); bias (out) or undefined -> (rows, out) = x weight^T + bias.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

struct BatchNormOptions {
  bool training = true;
  float eps = 1e-5f, momentum = 0.1f;
  bool relu = false;
};
/// Batch normalisation over rows, statistics per segment (over all rows of a plain matrix), with an optional residual
/// added and ReLU behind it, as one op. gamma, beta, running_mean, running_var: (C) f32. Training updates the running
/// statistics in place, once a segment in order, with the unbiased variance (not under a FrozenStatisticsScope);
/// evaluation uses them and is differentiable only in training mode.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, const Tensor& running_mean,
                  const Tensor& running_var, BatchNormOptions options, const Tensor& residual = {});

/// Channel attention (Hu et al. 2018) in one op: s = sigmoid(w2 relu(w1 pool(x) + b1) + b2), y = x * s per image.
/// x: images of C; w1 (R, C), b1 (R), w2 (C, R), b2 (C).
Tensor squeeze_excite(const Tensor& x, const Tensor& w1, const Tensor& b1, const Tensor& w2, const Tensor& b2);

/// images of C -> (N, C), the images of all segments in order.
Tensor global_avg_pool(const Tensor& x);

struct Pool2dOptions {
  int64_t kernel = 3, stride = 2, padding = 1;
};
/// Max over windows; padding never wins.
Tensor max_pool2d(const Tensor& x, Pool2dOptions options);

Tensor relu(const Tensor& x);
Tensor sigmoid(const Tensor& x);
/// x times the share of a normal distribution below x (Hendrycks & Gimpel 2016).
Tensor gelu(const Tensor& x);
Tensor add(const Tensor& a, const Tensor& b);
Tensor scale(const Tensor& x, float factor);
/// To another floating-point dtype; the gradient comes back in x's.
Tensor cast(const Tensor& x, DType dtype);

/// Rows divided by max(|row|, eps). x (rows, C).
Tensor l2_normalize(const Tensor& x, float eps = 1e-12f);

/// (rows, C) -> (rows), f32: ln of the sum of e^x over each row.
Tensor logsumexp(const Tensor& x);

/// @name What targets of a loss are made of. Nothing of it is recorded.
/// @{
/// softmax over K of scores / temperature + offset: f32 scores (rows, K), offset (K) -> (rows, K).
Tensor softmax(const Tensor& scores, float temperature, const Tensor& offset);
/// The mean of the rows of x (rows, C), f32: (C).
Tensor mean_rows(const Tensor& x);
/// Sinkhorn-Knopp assignment of f32 scores (rows, K) to prototypes: q (rows, K), each row summing to 1. See
/// kernels/assignment.h for the equations.
/// @param last  if not 0, only the assignments of the last so many rows are returned; the others (a queue) take part
/// @param everywhere  rows of all processes together, where several compute (dist::RanksScope) and have a queue's rows
///                    beside those of their images
Tensor sinkhorn(const Tensor& scores, float eps, int iterations, int64_t last = 0, int64_t everywhere = 0);
/// @}

/// SwAV's loss, one element. scores (crops * batch, K), crop-major; assignments (assigning * batch, K) of the first
/// `assigning` crops. See kernels/assignment.h for the equation.
Tensor swapped_prediction(const Tensor& scores, const Tensor& assignments, int64_t batch, float temperature);

/// Mean softmax cross-entropy of f32 logits (rows, classes) with i32 labels (rows), one element.
/// @param without_own  leaves class i out of row i: of similarities, what each thing has with itself
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, bool without_own = false);

/// Sum of all elements as one f32 element.
Tensor sum(const Tensor& x);

/// sum of a * b over all elements, one f32 element: a linear functional of a for tests and penalties (b gets no
/// gradient).
Tensor inner_product(const Tensor& a, const Tensor& b);

}  // namespace saccade
