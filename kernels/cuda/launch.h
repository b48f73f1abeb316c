#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/dtype.h>
#include <saccade/kernels/optimizer.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/segments.h>

#include <cstddef>
#include <cstdint>
#include <span>

/// Our CUDA kernels as functions of the host: each puts its kernels into a stream and returns. What they compute is
/// what kernels/backend.h says of the call of the same name; pointers are the device's. Calls with a `workspace` ask
/// for it with the function of that name (bytes, aligned to 16) and leave nothing in it that matters later.
///
/// Results are pure functions of the arguments: reductions are cut by shape, summed in two stages, and use no atomics.
/// Storage is f32, f16 or bf16, arithmetic f32. Pointers that are aligned to 16 bytes are read in vectors of 16;
/// others work, slowly.
namespace saccade::kernels::cuda {

/// A cudaStream_t.
using Stream = void*;

/// @name elementwise.cu
/// @{
void fill(Stream, DType, int64_t n, float value, void* y);
void cast(Stream, DType from, DType to, int64_t n, const void* x, void* y);
void add(Stream, DType, int64_t n, const void* a, const void* b, void* y);
void multiply(Stream, DType, int64_t n, const void* a, const void* b, void* y);
void scale(Stream, DType, int64_t n, const void* x, float factor, void* y);
void scale_by(Stream, DType, int64_t n, const void* x, const float* factor, void* y);
void relu_forward(Stream, DType, int64_t n, const void* x, void* y);
void relu_backward(Stream, DType, int64_t n, const void* y, const void* dy, void* dx);
void sigmoid_forward(Stream, DType, int64_t n, const void* x, void* y);
void sigmoid_backward(Stream, DType, int64_t n, const void* y, const void* dy, void* dx);
/// @}

/// @name rows.cu
/// @{
size_t sum_workspace(int64_t n);
void sum(Stream, DType, int64_t n, const void* x, float* out, void* workspace);
size_t column_sum_workspace(DType, int64_t rows, int64_t channels);
void column_sum(Stream, DType, int64_t rows, int64_t channels, const void* x, float* out, void* workspace);
void l2_normalize_forward(Stream, DType, int64_t rows, int64_t channels, float eps, const void* x, void* y,
                          float* norm);
void l2_normalize_backward(Stream, DType, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                           const void* dy, void* dx);
/// @}

/// @name batch_norm.cu. At most 16 segments.
/// @{
size_t batch_norm_workspace(const BatchNorm&, std::span<const Segment>);
void batch_norm_forward(Stream, const BatchNorm&, std::span<const Segment>, const void* x, const void* residual,
                        const float* gamma, const float* beta, float* mean, float* rstd, float* running_mean,
                        float* running_var, void* y, void* workspace);
void batch_norm_apply(Stream, const BatchNorm&, std::span<const Segment>, const void* x, const float* gamma,
                      const float* beta, const float* mean, const float* rstd, void* y);
void batch_norm_inference(Stream, const BatchNorm&, int64_t rows, const void* x, const void* residual,
                          const float* gamma, const float* beta, const float* running_mean, const float* running_var,
                          void* y);
void batch_norm_backward(Stream, const BatchNorm&, std::span<const Segment>, const void* x, const void* y,
                         const void* dy, const float* gamma, const float* beta, const float* mean, const float* rstd,
                         void* dx, void* dresidual, float* dgamma, float* dbeta, void* workspace);
/// @}

/// @name pooling.cu and max_pool.cu. At most 16 segments.
/// @{
void global_avg_pool_forward(Stream, std::span<const Segment>, int64_t channels, DType, const void* x, void* pooled);
void global_avg_pool_backward(Stream, std::span<const Segment>, int64_t channels, DType, const void* dpooled, void* dx);
void channel_scale_forward(Stream, std::span<const Segment>, int64_t channels, DType, const void* x, const void* scale,
                           void* y);
void channel_scale_backward_scale(Stream, std::span<const Segment>, int64_t channels, DType, const void* x,
                                  const void* dy, void* dscale);
void channel_scale_backward_input(Stream, std::span<const Segment>, int64_t channels, DType, const void* dy,
                                  const void* scale, const void* dpooled, void* dx);
void max_pool_forward(Stream, const Conv2d& window, std::span<const Segment> in, const void* x, void* y,
                      uint8_t* argmax);
void max_pool_backward(Stream, const Conv2d& window, std::span<const Segment> in, const void* dy, const uint8_t* argmax,
                       void* dx);
/// @}

/// @name assignment.cu
/// @{
size_t sinkhorn_workspace(const Sinkhorn&);
void sinkhorn_potentials(Stream, const Sinkhorn&, const float* scores, float* potentials, void* workspace);
void sinkhorn_assign(Stream, const Sinkhorn&, const float* scores, const float* potentials, float* q);
size_t swapped_prediction_workspace(const SwappedPrediction&);
void swapped_prediction(Stream, const SwappedPrediction&, const float* scores, const float* q, float* loss,
                        float* dscores, void* workspace);
size_t cross_entropy_workspace(int64_t rows);
void cross_entropy(Stream, int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                   float* dlogits, void* workspace);
/// @}

/// @name optimizer.cu. The lists of tensors go along as arguments of the kernels: nothing is copied beforehand.
/// @{
/// LARC's sums of squares; 0 without.
size_t sgd_workspace(const Sgd&, std::span<const ParameterSlot>);
void sgd(Stream, const Sgd&, std::span<const ParameterSlot>, void* workspace);
void adamw(Stream, const AdamW&, std::span<const ParameterSlot>);
void unscale(Stream, float factor, std::span<const GradientSlot>, float* nonfinite);
/// @}

/// @name input.cu
/// @{
/// What saccade::Philox(key, stream, block).uniform() gives, n times.
void philox_uniform(Stream, uint64_t key, uint64_t stream, uint64_t block, int64_t n, float* y);
/// What saccade::Philox(key, stream, block).normal() gives, n times, but for the last bit of logarithm and cosine.
void philox_normal(Stream, uint64_t key, uint64_t stream, uint64_t block, int64_t n, float* y);

/// Crops (images, height, width, channels) of bytes, channels <= 4, to the same as numbers; crops whose `mirror` byte
/// is not 0 are mirrored left to right (mirror may be null).
void crops_to_batch(Stream, int64_t images, int64_t height, int64_t width, int64_t channels, const uint8_t* crops,
                    const uint8_t* mirror, const PixelScale&, DType, void* y);
/// @}

}  // namespace saccade::kernels::cuda
