#pragma once

#include <saccade/kernels/call.h>
#include <saccade/kernels/segments.h>

#include <string_view>

/// @file
/// Batch normalisation in parts: forward is BatchNormMoments, BatchNormMerge, BatchNormApply; backward is
/// BatchNormBackwardSums, BatchNormBackwardMap. An exchange between processes fits in before Merge, which joins the
/// moments of several, and before BackwardMap: factors b and d are those of all rows once averaged over processes.

namespace saccade::kernels {

/// Batch normalisation over rows of channels, with an optional residual addition and ReLU fused behind it:
/// y = relu?( gamma * (x - mean) * rstd + beta (+ residual) ). Statistics per segment, in f32.
/// (Ioffe & Szegedy 2015, algorithm 1; training normalises with the biased variance, the running variance is unbiased.)
struct BatchNorm {
  int64_t channels = 0;
  float eps = 1e-5f;
  float momentum = 0.1f;  ///< running = (1 - momentum) * running + momentum * batch, once a segment, in segment order
  bool relu = false;
  DType dtype = DType::f32;  ///< of x, residual, y and their gradients; everything else is f32

  static void shape(auto& n, auto&& visit) { visit(n.channels), visit(n.relu), visit(n.dtype); }
};

/// What its parts begin with.
struct OnBatchNorm {
  BatchNorm norm = {};
  Segments segments = {};
  static void shape(auto& c, auto&& visit) { BatchNorm::shape(c.norm, visit), visit(c.segments); }
  int64_t map_bytes() const { return bytes_of(norm.dtype, total_rows(segments) * norm.channels); }
  int64_t vector_bytes() const { return bytes_of_floats(norm.channels); }
  int64_t statistics_bytes() const { return static_cast<int64_t>(segments.size()) * vector_bytes(); }
};

/// mean (segments, channels) of the rows of each segment, and squares, (segments, channels) f64: the sums of squared
/// deviations from it. They lie at the beginning of the workspace, the rest of which is scratch.
struct BatchNormMoments : OnBatchNorm {
  const void* x = nullptr;
  float* mean = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "batch_norm_moments";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::shared);
    visit(c.mean, c.statistics_bytes(), Use::shared);
  }
  double* squares() const { return static_cast<double*>(workspace); }
};

/// Joins moments (parts, segments, channels), of as many rows (`segments`) in each part, to mean and rstd (segments,
/// channels), and moves the running statistics, which may be null, both: then there are none to update (a forward pass
/// done again). mean may be means. Where images do not divide evenly, `segments` are of `images` images, and the first
/// `larger` parts have one image more.
struct BatchNormMerge : OnBatchNorm {
  int64_t parts = 1;
  const float* means = nullptr;
  const double* squares = nullptr;
  float *mean = nullptr, *rstd = nullptr, *running_mean = nullptr, *running_var = nullptr;
  int64_t larger = 0, images = 1;
  int64_t part_floats = 0;  ///< from a part to the next, of the means, and in their size of the squares; 0: dense
  static constexpr std::string_view name = "batch_norm_merge";
  static void operands(auto& c, auto&& visit) {
    visit(c.means, c.parts * c.statistics_bytes(), Use::shared);
    visit(c.squares, 2 * c.parts * c.statistics_bytes(), Use::shared);
    visit_each(visit, c.statistics_bytes(), Use::shared, c.mean, c.rstd);
    visit_each(visit, c.vector_bytes(), optional(Use::shared), c.running_mean, c.running_var);
  }
  static void shape(auto& c, auto&& visit) { visit(c.parts), OnBatchNorm::shape(c, visit); }
};

/// y from x and the mean and rstd of a forward pass. `residual` may be null. y is not x.
struct BatchNormApply : OnBatchNorm {
  const void *x = nullptr, *residual = nullptr;
  const float *gamma = nullptr, *beta = nullptr, *mean = nullptr, *rstd = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "batch_norm_apply";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::fresh);
    visit(c.residual, c.map_bytes(), optional(Use::read));
    visit_each(visit, c.vector_bytes(), Use::read, c.gamma, c.beta);
    visit_each(visit, c.statistics_bytes(), Use::read, c.mean, c.rstd);
    visit(c.y, c.map_bytes(), Use::write);
  }
};

/// With the running statistics: y may be x, `residual` null.
struct BatchNormInference {
  BatchNorm norm = {};
  int64_t rows = 0;
  const void *x = nullptr, *residual = nullptr;
  const float *gamma = nullptr, *beta = nullptr, *running_mean = nullptr, *running_var = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "batch_norm_inference";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, bytes_of(c.norm.dtype, c.rows * c.norm.channels), Use::fresh);
    visit(c.residual, bytes_of(c.norm.dtype, c.rows * c.norm.channels), optional(Use::read));
    visit_each(visit, bytes_of_floats(c.norm.channels), Use::read, c.gamma, c.beta, c.running_mean, c.running_var);
    visit(c.y, bytes_of(c.norm.dtype, c.rows * c.norm.channels), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.rows), BatchNorm::shape(c.norm, visit); }
};

/// With dy' = dy behind the ReLU: dgamma and dbeta over all rows, and the factors a, b, d (3, segments, channels) of
/// dx = a dy' + b (x - mean) + d. They lie at the beginning of the workspace, the rest of which is scratch. The ReLU
/// mask is taken from y where y is given, and recomputed from x where y is null (only without residual).
struct BatchNormBackwardSums : OnBatchNorm {
  const void *x = nullptr, *y = nullptr, *dy = nullptr;
  const float *gamma = nullptr, *beta = nullptr, *mean = nullptr, *rstd = nullptr;
  float *dgamma = nullptr, *dbeta = nullptr;
  void* workspace = nullptr;
  static constexpr std::string_view name = "batch_norm_backward_sums";
  static void operands(auto& c, auto&& visit) {
    visit_each(visit, c.map_bytes(), Use::shared, c.x, c.dy);
    visit(c.y, c.map_bytes(), optional(Use::shared));
    visit_each(visit, c.vector_bytes(), Use::shared, c.gamma, c.beta);
    visit_each(visit, c.statistics_bytes(), Use::shared, c.mean, c.rstd);
    visit_each(visit, c.vector_bytes(), Use::shared, c.dgamma, c.dbeta);
  }
  float* factors() const { return static_cast<float*>(workspace); }
};

/// dx may be dy. dresidual (null when there was no residual) may be dy only if dx is not.
struct BatchNormBackwardMap : OnBatchNorm {
  const void *x = nullptr, *y = nullptr, *dy = nullptr;
  const float *gamma = nullptr, *beta = nullptr, *mean = nullptr, *rstd = nullptr, *factors = nullptr;
  void *dx = nullptr, *dresidual = nullptr;
  static constexpr std::string_view name = "batch_norm_backward_map";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, c.map_bytes(), Use::read);
    visit(c.y, c.map_bytes(), optional(Use::read));
    visit(c.dy, c.map_bytes(), Use::fresh);
    visit_each(visit, c.vector_bytes(), Use::read, c.gamma, c.beta);
    visit_each(visit, c.statistics_bytes(), Use::read, c.mean, c.rstd);
    visit(c.factors, 3 * c.statistics_bytes(), Use::shared);
    visit(c.dx, c.map_bytes(), Use::write);
    visit(c.dresidual, c.map_bytes(), optional(Use::write));
  }
};

}  // namespace saccade::kernels
