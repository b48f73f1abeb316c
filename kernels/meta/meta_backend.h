#pragma once

#include <saccade/kernels/backend.h>

#include <functional>
#include <utility>

namespace saccade::kernels {

/// A rehearsal of another backend: computes nothing, asks the rehearsed backend for its workspaces, and adds up what
/// each call would cost (meta_cost()).
class MetaBackend final : public Backend {
 public:
  explicit MetaBackend(const Backend& rehearsed) : rehearsed_(&rehearsed) {}
  using ConvWorkspace = std::function<size_t(const Conv2d&, std::span<const Segment>, ConvPass)>;
  /// From now on another one is rehearsed, whose convolutions need what the function says, if there is one.
  void rehearse(const Backend& other, ConvWorkspace conv2d_workspace = {}) {
    rehearsed_ = &other;
    conv2d_workspace_ = std::move(conv2d_workspace);
  }

  Device device() const override;
  size_t conv2d_workspace(const Conv2d&, std::span<const Segment> in, ConvPass pass) const override;
  void conv2d_forward(const Conv2d&, std::span<const Segment> in, const void* x, const void* w, void* y,
                      void* workspace) override;
  void conv2d_backward_data(const Conv2d&, std::span<const Segment> in, const void* dy, const void* w, void* dx,
                            void* workspace) override;
  void conv2d_backward_weight(const Conv2d&, std::span<const Segment> in, const void* x, const void* dy, float* dw,
                              void* workspace) override;
  size_t matmul_workspace(const MatMul&) const override;
  void matmul(const MatMul&, const void* a, const void* b, const void* bias, void* c, void* workspace) override;
  size_t batch_norm_workspace(const BatchNorm&, std::span<const Segment> segments) const override;
  void batch_norm_forward(const BatchNorm&, std::span<const Segment> segments, const void* x, const void* residual,
                          const float* gamma, const float* beta, float* mean, float* rstd, float* running_mean,
                          float* running_var, void* y, void* workspace) override;
  void batch_norm_apply(const BatchNorm&, std::span<const Segment> segments, const void* x, const float* gamma,
                        const float* beta, const float* mean, const float* rstd, void* y) override;
  void batch_norm_inference(const BatchNorm&, int64_t rows, const void* x, const void* residual, const float* gamma,
                            const float* beta, const float* running_mean, const float* running_var, void* y) override;
  void batch_norm_backward(const BatchNorm&, std::span<const Segment> segments, const void* x, const void* y,
                           const void* dy, const float* gamma, const float* beta, const float* mean, const float* rstd,
                           void* dx, void* dresidual, float* dgamma, float* dbeta, void* workspace) override;
  void global_avg_pool_forward(std::span<const Segment>, int64_t channels, DType, const void* x, void* pooled) override;
  void global_avg_pool_backward(std::span<const Segment>, int64_t channels, DType, const void* dpooled,
                                void* dx) override;
  void channel_scale_forward(std::span<const Segment>, int64_t channels, DType, const void* x, const void* scale,
                             void* y) override;
  void channel_scale_backward_scale(std::span<const Segment>, int64_t channels, DType, const void* x, const void* dy,
                                    void* dscale) override;
  void channel_scale_backward_input(std::span<const Segment>, int64_t channels, DType, const void* dy,
                                    const void* scale, const void* dpooled, void* dx) override;
  void max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void* x, void* y,
                        uint8_t* argmax) override;
  void max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void* dy, const uint8_t* argmax,
                         void* dx) override;
  void fill(DType, int64_t n, float value, void* y) override;
  void copy(size_t bytes, const void* x, void* y) override;
  void to_host(size_t bytes, const void* x, void* host) override;
  void from_host(size_t bytes, const void* host, void* y) override;
  void synchronize() override {}
  void cast(DType from, DType to, int64_t n, const void* x, void* y) override;
  void add(DType, int64_t n, const void* a, const void* b, void* y) override;
  void scale(DType, int64_t n, const void* x, float factor, void* y) override;
  void scale_by(DType, int64_t n, const void* x, const float* factor, void* y) override;
  void multiply(DType, int64_t n, const void* a, const void* b, void* y) override;
  void relu_forward(DType, int64_t n, const void* x, void* y) override;
  void relu_backward(DType, int64_t n, const void* y, const void* dy, void* dx) override;
  void sigmoid_forward(DType, int64_t n, const void* x, void* y) override;
  void sigmoid_backward(DType, int64_t n, const void* y, const void* dy, void* dx) override;
  void column_sum(DType, int64_t rows, int64_t channels, const void* x, float* out) override;
  void sum(DType, int64_t n, const void* x, float* out) override;
  void l2_normalize_forward(DType, int64_t rows, int64_t channels, float eps, const void* x, void* y,
                            float* norm) override;
  void l2_normalize_backward(DType, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                             const void* dy, void* dx) override;
  size_t sinkhorn_workspace(const Sinkhorn&) const override;
  void sinkhorn_potentials(const Sinkhorn&, const float* scores, float* potentials, void* workspace) override;
  void sinkhorn_assign(const Sinkhorn&, const float* scores, const float* potentials, float* q) override;
  void swapped_prediction(const SwappedPrediction&, const float* scores, const float* q, float* loss,
                          float* dscores) override;
  void cross_entropy(int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                     float* dlogits) override;
  void sgd(const Sgd&, std::span<const ParameterSlot>) override;
  void adamw(const AdamW&, std::span<const ParameterSlot>) override;
  void unscale(float factor, std::span<const GradientSlot>, float* nonfinite) override;
  void crops_to_batch(std::span<const Segment> crops, int64_t channels, const uint8_t* bytes, const PixelScale&, DType,
                      void* y) override;

 private:
  const Backend* rehearsed_;
  ConvWorkspace conv2d_workspace_;
};

}  // namespace saccade::kernels
