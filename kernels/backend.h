#pragma once

#include <saccade/kernels/assignment.h>
#include <saccade/kernels/batch_norm.h>
#include <saccade/kernels/conv.h>
#include <saccade/kernels/device.h>
#include <saccade/kernels/dtype.h>
#include <saccade/kernels/matmul.h>
#include <saccade/kernels/optimizer.h>
#include <saccade/kernels/pixels.h>
#include <saccade/kernels/segments.h>

#include <memory>
#include <span>
#include <string>

namespace saccade::kernels {

/// All that a device must compute. Pointers are dense and row-major; an image argument is the rows of all its segments,
/// one after the other, each row `channels` elements (NHWC). Nothing here allocates device memory that outlives a call:
/// a call that needs scratch says how much beforehand (`*_workspace`, bytes) and gets it from its caller.
///
/// Every result is a pure function of the arguments and the number of threads. Outputs never alias inputs unless a
/// comment allows it. A dtype or shape a device cannot do is a saccade::Error with a sentence.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual Device device() const = 0;

  /// @name Convolution. One call does all segments, so that weights are repacked once and the weight gradient is whole.
  /// x: rows of `in` x in_channels, y: rows of output(in) x out_channels. The weight gradient is f32 whatever the
  /// dtype: it is what the f32 master weights are updated from.
  /// @{
  virtual size_t conv2d_workspace(const Conv2d&, std::span<const Segment> in, ConvPass pass) const = 0;
  virtual void conv2d_forward(const Conv2d&, std::span<const Segment> in, const void* x, const void* w, void* y,
                              void* workspace) = 0;
  virtual void conv2d_backward_data(const Conv2d&, std::span<const Segment> in, const void* dy, const void* w, void* dx,
                                    void* workspace) = 0;
  virtual void conv2d_backward_weight(const Conv2d&, std::span<const Segment> in, const void* x, const void* dy,
                                      float* dw, void* workspace) = 0;
  /// @}

  /// @name Matrix product. `bias` (n) may be null.
  /// @{
  virtual size_t matmul_workspace(const MatMul&) const = 0;
  virtual void matmul(const MatMul&, const void* a, const void* b, const void* bias, void* c, void* workspace) = 0;
  /// @}

  /// @name Batch normalisation (+ residual) (+ ReLU).
  /// mean, rstd: (segments, channels), written by forward and read by backward. `residual` may be null. The running
  /// statistics may be null, both: then there are none to update (a forward pass done again).
  /// @{
  virtual size_t batch_norm_workspace(const BatchNorm&, std::span<const Segment> segments) const = 0;
  virtual void batch_norm_forward(const BatchNorm&, std::span<const Segment> segments, const void* x,
                                  const void* residual, const float* gamma, const float* beta, float* mean, float* rstd,
                                  float* running_mean, float* running_var, void* y, void* workspace) = 0;
  /// The second pass of batch_norm_forward alone, without residual: y from x and the mean and rstd that forward wrote,
  /// bit for bit what forward gave. y is not x. No workspace.
  virtual void batch_norm_apply(const BatchNorm&, std::span<const Segment> segments, const void* x, const float* gamma,
                                const float* beta, const float* mean, const float* rstd, void* y) = 0;
  /// With the running statistics: y may be x.
  virtual void batch_norm_inference(const BatchNorm&, int64_t rows, const void* x, const void* residual,
                                    const float* gamma, const float* beta, const float* running_mean,
                                    const float* running_var, void* y) = 0;
  /// The ReLU mask is taken from y where y is given, and recomputed from x where y is null (only without residual).
  /// dx may be dy. dresidual (null when there was none) may be dy only if dx is not.
  virtual void batch_norm_backward(const BatchNorm&, std::span<const Segment> segments, const void* x, const void* y,
                                   const void* dy, const float* gamma, const float* beta, const float* mean,
                                   const float* rstd, void* dx, void* dresidual, float* dgamma, float* dbeta,
                                   void* workspace) = 0;
  /// @}

  /// @name Pooling and per-image channel scaling (squeeze-excite's map-sized parts).
  /// pooled, scale: (images, channels), images of all segments in order, in the dtype of x.
  /// @{
  virtual void global_avg_pool_forward(std::span<const Segment>, int64_t channels, DType, const void* x,
                                       void* pooled) = 0;
  virtual void global_avg_pool_backward(std::span<const Segment>, int64_t channels, DType, const void* dpooled,
                                        void* dx) = 0;
  virtual void channel_scale_forward(std::span<const Segment>, int64_t channels, DType, const void* x,
                                     const void* scale, void* y) = 0;
  /// dscale[n, c] = sum over the image's pixels of dy * x.
  virtual void channel_scale_backward_scale(std::span<const Segment>, int64_t channels, DType, const void* x,
                                            const void* dy, void* dscale) = 0;
  /// dx = dy * scale + dpooled / (h*w); dpooled may be null; dx may be dy.
  virtual void channel_scale_backward_input(std::span<const Segment>, int64_t channels, DType, const void* dy,
                                            const void* scale, const void* dpooled, void* dx) = 0;
  /// Max pooling, kernel x kernel. `argmax` (u8, the position in the window, one a y element) is written by forward.
  virtual void max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void* x, void* y,
                                uint8_t* argmax) = 0;
  virtual void max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void* dy,
                                 const uint8_t* argmax, void* dx) = 0;
  /// @}

  /// @name Elementwise and rows. n: elements.
  /// @{
  virtual void fill(DType, int64_t n, float value, void* y) = 0;
  virtual void copy(size_t bytes, const void* x, void* y) = 0;
  /// To and from memory of the host. What was asked of the backend before is done first, and the copy with the call.
  virtual void to_host(size_t bytes, const void* x, void* host) = 0;
  virtual void from_host(size_t bytes, const void* host, void* y) = 0;
  /// Waits until all that was asked of the backend is done.
  virtual void synchronize() = 0;
  virtual void cast(DType from, DType to, int64_t n, const void* x, void* y) = 0;
  virtual void add(DType, int64_t n, const void* a, const void* b, void* y) = 0;   ///< y may be a or b
  virtual void scale(DType, int64_t n, const void* x, float factor, void* y) = 0;  ///< y may be x
  /// y = x * *factor: the factor lies on the device (a scalar gradient).
  virtual void scale_by(DType, int64_t n, const void* x, const float* factor, void* y) = 0;      ///< y may be x
  virtual void multiply(DType, int64_t n, const void* a, const void* b, void* y) = 0;            ///< y may be a or b
  virtual void relu_forward(DType, int64_t n, const void* x, void* y) = 0;                       ///< y may be x
  virtual void relu_backward(DType, int64_t n, const void* y, const void* dy, void* dx) = 0;     ///< dx may be dy
  virtual void sigmoid_forward(DType, int64_t n, const void* x, void* y) = 0;                    ///< y may be x
  virtual void sigmoid_backward(DType, int64_t n, const void* y, const void* dy, void* dx) = 0;  ///< dx may be dy
  /// out[c] = sum over rows of x[row, c] (bias gradient); f32 whatever the dtype of x.
  virtual void column_sum(DType, int64_t rows, int64_t channels, const void* x, float* out) = 0;
  /// out[0] = sum of all elements, f32.
  virtual void sum(DType, int64_t n, const void* x, float* out) = 0;
  /// y = x / max(|x|, eps) a row; norm[row] = max(|x|, eps).
  virtual void l2_normalize_forward(DType, int64_t rows, int64_t channels, float eps, const void* x, void* y,
                                    float* norm) = 0;
  /// dx = (dy - y * (y . dy)) / norm; where the norm was clamped to eps, dx = dy / eps. dx may be dy.
  virtual void l2_normalize_backward(DType, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                                     const void* dy, void* dx) = 0;
  /// @}

  /// @name Assignment and losses, f32.
  /// @{
  virtual size_t sinkhorn_workspace(const Sinkhorn&) const = 0;
  /// scores (rows, prototypes) -> potentials a (prototypes).
  virtual void sinkhorn_potentials(const Sinkhorn&, const float* scores, float* potentials, void* workspace) = 0;
  /// q (rows, prototypes) = softmax over prototypes of scores/eps + potentials, for any rows scored alike.
  virtual void sinkhorn_assign(const Sinkhorn&, const float* scores, const float* potentials, float* q) = 0;
  /// loss: 1 value; dscores (crops*batch, prototypes): the gradient at dloss = 1. One pass over the scores.
  virtual void swapped_prediction(const SwappedPrediction&, const float* scores, const float* q, float* loss,
                                  float* dscores) = 0;
  /// Mean softmax cross-entropy with class labels (i32): loss 1 value, dlogits (rows, classes) at dloss = 1.
  virtual void cross_entropy(int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                             float* dlogits) = 0;
  /// @}

  /// @name Optimisers: one call updates many tensors.
  /// @{
  virtual void sgd(const Sgd&, std::span<const ParameterSlot>) = 0;
  virtual void adamw(const AdamW&, std::span<const ParameterSlot>) = 0;
  /// gradient *= factor for every slot (loss scaling undone). *nonfinite (one float on the device) becomes 1 if any
  /// gradient was infinite or NaN, and is left alone otherwise, so that several calls can share it.
  virtual void unscale(float factor, std::span<const GradientSlot>, float* nonfinite) = 0;
  /// @}

  /// Crops of bytes, at most 4 channels, to numbers of the dtype (f32, f16, bf16).
  virtual void crops_to_batch(std::span<const Segment> crops, int64_t channels, const uint8_t* bytes, const PixelScale&,
                              DType, void* y) = 0;
};

/// What calls on the meta backend have cost so far: the sum over a rehearsed program.
struct Cost {
  double flops = 0;        ///< arithmetic of convolutions and matrix products, 2 a multiply-accumulate
  double bytes_moved = 0;  ///< each operand read once, each result written once
};

/// The backend of a device: one object a process. Device::cuda throws Error where there is none (cuda_device.h).
Backend& backend(Device device);

/// The meta backend's running total, of this thread.
Cost& meta_cost();

/// Instruction sets our CPU kernels are compiled for, narrowest first.
enum class Isa : uint8_t { baseline, avx2, avx512 };
constexpr std::string_view name_of(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "baseline";
}
/// The widest set this processor has, capped by the environment variable SACCADE_ISA (avx512, avx2, baseline), which
/// caps oneDNN as well. Read once, at the first use.
Isa cpu_isa();

/// Threads of the one pool of the process (OpenMP's, shared with oneDNN): OMP_NUM_THREADS, else the cores.
int cpu_threads();

}  // namespace saccade::kernels
