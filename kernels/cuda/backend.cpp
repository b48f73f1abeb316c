#include <nvtx3/nvToolsExt.h>
#include <saccade/kernels/cuda/conv_cudnn.h>
#include <saccade/kernels/cuda/launch.h>
#include <saccade/kernels/cuda/matmul_cublaslt.h>
#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/cuda/workspace.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <algorithm>
#include <cstddef>
#include <string>

namespace saccade::kernels {
namespace cuda {
namespace {

/// Memory for sums that Backend's calls do not ask their caller for: at most some MiB, grown as needed and kept. Calls
/// share it, because one stream runs them one after the other.
class Scratch {
 public:
  void* at_least(size_t bytes) {
    if (bytes <= bytes_) return memory_;
    check(cudaDeviceSynchronize(), "wait for the device");
    check(cudaFree(memory_), "release memory");
    memory_ = nullptr;
    bytes_ = 0;
    const size_t whole = (bytes + kStep - 1) / kStep * kStep;
    check(cudaMalloc(&memory_, whole), "allocate scratch memory");
    bytes_ = whole;
    return memory_;
  }

 private:
  static constexpr size_t kStep = size_t{1} << 20;
  void* memory_ = nullptr;  // never released: it lives as long as the device is open
  size_t bytes_ = 0;
};

void* align(void* workspace) {
  return reinterpret_cast<void*>(aligned_workspace(reinterpret_cast<uintptr_t>(workspace)));
}

/// The 1x1 convolution as a product over the rows of all segments.
MatMul product_of(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) {
  const int64_t rows = total_rows(in);
  switch (pass) {
    case ConvPass::forward:
      return {.m = rows,
              .n = conv.out_channels,
              .k = conv.in_channels,
              .transpose_b = true,
              .dtype = conv.dtype,
              .out_dtype = conv.dtype};
    case ConvPass::backward_data:
      return {.m = rows, .n = conv.in_channels, .k = conv.out_channels, .dtype = conv.dtype, .out_dtype = conv.dtype};
    case ConvPass::backward_weight:
      return {.m = conv.out_channels,
              .n = conv.in_channels,
              .k = rows,
              .transpose_a = true,
              .dtype = conv.dtype,
              .out_dtype = DType::f32};
  }
  throw Error("convolution: no such pass");
}

/// Convolutions by cuDNN, matrix products (and 1x1 convolutions, which are products) by cuBLASLt, the rest by our own
/// kernels (launch.h). Everything goes to one stream.
class CudaBackend final : public Backend {
 public:
  Device device() const override { return Device::cuda; }

  size_t conv2d_workspace(const Conv2d& conv, std::span<const Segment> in, ConvPass pass) const override {
    return with_room_to_align(conv.is_matmul() ? products_.workspace() : convolutions_.workspace(conv, in, pass));
  }
  void conv2d_forward(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* w, void* y,
                      void* workspace) override {
    if (conv.is_matmul()) return matmul(product_of(conv, in, ConvPass::forward), x, w, nullptr, y, workspace);
    convolutions_.forward(conv, in, x, w, y, align(workspace));
  }
  void conv2d_backward_data(const Conv2d& conv, std::span<const Segment> in, const void* dy, const void* w, void* dx,
                            void* workspace) override {
    if (conv.is_matmul()) return matmul(product_of(conv, in, ConvPass::backward_data), dy, w, nullptr, dx, workspace);
    convolutions_.backward_data(conv, in, dy, w, dx, align(workspace));
  }
  void conv2d_backward_weight(const Conv2d& conv, std::span<const Segment> in, const void* x, const void* dy, float* dw,
                              void* workspace) override {
    if (conv.is_matmul()) return matmul(product_of(conv, in, ConvPass::backward_weight), dy, x, nullptr, dw, workspace);
    convolutions_.backward_weight(conv, in, x, dy, dw, align(workspace));
  }

  size_t matmul_workspace(const MatMul&) const override { return with_room_to_align(products_.workspace()); }
  void matmul(const MatMul& problem, const void* a, const void* b, const void* bias, void* c,
              void* workspace) override {
    products_.run(stream_, problem, a, b, bias, c, align(workspace));
  }

  size_t batch_norm_workspace(const BatchNorm& norm, std::span<const Segment> segments) const override {
    return cuda::batch_norm_workspace(norm, segments);
  }
  void batch_norm_forward(const BatchNorm& norm, std::span<const Segment> segments, const void* x, const void* residual,
                          const float* gamma, const float* beta, float* mean, float* rstd, float* running_mean,
                          float* running_var, void* y, void* workspace) override {
    cuda::batch_norm_forward(stream_, norm, segments, x, residual, gamma, beta, mean, rstd, running_mean, running_var,
                             y, workspace);
  }
  void batch_norm_apply(const BatchNorm& norm, std::span<const Segment> segments, const void* x, const float* gamma,
                        const float* beta, const float* mean, const float* rstd, void* y) override {
    cuda::batch_norm_apply(stream_, norm, segments, x, gamma, beta, mean, rstd, y);
  }
  void batch_norm_inference(const BatchNorm& norm, int64_t rows, const void* x, const void* residual,
                            const float* gamma, const float* beta, const float* running_mean, const float* running_var,
                            void* y) override {
    cuda::batch_norm_inference(stream_, norm, rows, x, residual, gamma, beta, running_mean, running_var, y);
  }
  void batch_norm_backward(const BatchNorm& norm, std::span<const Segment> segments, const void* x, const void* y,
                           const void* dy, const float* gamma, const float* beta, const float* mean, const float* rstd,
                           void* dx, void* dresidual, float* dgamma, float* dbeta, void* workspace) override {
    cuda::batch_norm_backward(stream_, norm, segments, x, y, dy, gamma, beta, mean, rstd, dx, dresidual, dgamma, dbeta,
                              workspace);
  }

  void global_avg_pool_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void* x,
                               void* pooled) override {
    cuda::global_avg_pool_forward(stream_, segments, channels, dtype, x, pooled);
  }
  void global_avg_pool_backward(std::span<const Segment> segments, int64_t channels, DType dtype, const void* dpooled,
                                void* dx) override {
    cuda::global_avg_pool_backward(stream_, segments, channels, dtype, dpooled, dx);
  }
  void channel_scale_forward(std::span<const Segment> segments, int64_t channels, DType dtype, const void* x,
                             const void* scale, void* y) override {
    cuda::channel_scale_forward(stream_, segments, channels, dtype, x, scale, y);
  }
  void channel_scale_backward_scale(std::span<const Segment> segments, int64_t channels, DType dtype, const void* x,
                                    const void* dy, void* dscale) override {
    cuda::channel_scale_backward_scale(stream_, segments, channels, dtype, x, dy, dscale);
  }
  void channel_scale_backward_input(std::span<const Segment> segments, int64_t channels, DType dtype, const void* dy,
                                    const void* scale, const void* dpooled, void* dx) override {
    cuda::channel_scale_backward_input(stream_, segments, channels, dtype, dy, scale, dpooled, dx);
  }
  void max_pool_forward(const Conv2d& window, std::span<const Segment> in, const void* x, void* y,
                        uint8_t* argmax) override {
    cuda::max_pool_forward(stream_, window, in, x, y, argmax);
  }
  void max_pool_backward(const Conv2d& window, std::span<const Segment> in, const void* dy, const uint8_t* argmax,
                         void* dx) override {
    cuda::max_pool_backward(stream_, window, in, dy, argmax, dx);
  }

  void fill(DType dtype, int64_t n, float value, void* y) override { cuda::fill(stream_, dtype, n, value, y); }
  void copy(size_t bytes, const void* x, void* y) override {
    if (bytes > 0) check(cudaMemcpyAsync(y, x, bytes, cudaMemcpyDeviceToDevice, stream_), "copy");
  }
  void to_host(size_t bytes, const void* x, void* host) override {
    if (bytes > 0) check(cudaMemcpyAsync(host, x, bytes, cudaMemcpyDeviceToHost, stream_), "copy to the host");
    synchronize();
  }
  void from_host(size_t bytes, const void* host, void* y) override {
    if (bytes > 0) check(cudaMemcpyAsync(y, host, bytes, cudaMemcpyHostToDevice, stream_), "copy from the host");
    synchronize();  // the memory may be pinned, and the caller may change it next
  }
  void synchronize() override { check(cudaStreamSynchronize(stream_), "finish its work"); }
  void cast(DType from, DType to, int64_t n, const void* x, void* y) override {
    cuda::cast(stream_, from, to, n, x, y);
  }
  void add(DType dtype, int64_t n, const void* a, const void* b, void* y) override {
    cuda::add(stream_, dtype, n, a, b, y);
  }
  void scale(DType dtype, int64_t n, const void* x, float factor, void* y) override {
    cuda::scale(stream_, dtype, n, x, factor, y);
  }
  void scale_by(DType dtype, int64_t n, const void* x, const float* factor, void* y) override {
    cuda::scale_by(stream_, dtype, n, x, factor, y);
  }
  void multiply(DType dtype, int64_t n, const void* a, const void* b, void* y) override {
    cuda::multiply(stream_, dtype, n, a, b, y);
  }
  void relu_forward(DType dtype, int64_t n, const void* x, void* y) override {
    cuda::relu_forward(stream_, dtype, n, x, y);
  }
  void relu_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) override {
    cuda::relu_backward(stream_, dtype, n, y, dy, dx);
  }
  void sigmoid_forward(DType dtype, int64_t n, const void* x, void* y) override {
    cuda::sigmoid_forward(stream_, dtype, n, x, y);
  }
  void sigmoid_backward(DType dtype, int64_t n, const void* y, const void* dy, void* dx) override {
    cuda::sigmoid_backward(stream_, dtype, n, y, dy, dx);
  }
  void column_sum(DType dtype, int64_t rows, int64_t channels, const void* x, float* out) override {
    cuda::column_sum(stream_, dtype, rows, channels, x, out,
                     scratch_.at_least(cuda::column_sum_workspace(dtype, rows, channels)));
  }
  void sum(DType dtype, int64_t n, const void* x, float* out) override {
    cuda::sum(stream_, dtype, n, x, out, scratch_.at_least(cuda::sum_workspace(n)));
  }
  void l2_normalize_forward(DType dtype, int64_t rows, int64_t channels, float eps, const void* x, void* y,
                            float* norm) override {
    cuda::l2_normalize_forward(stream_, dtype, rows, channels, eps, x, y, norm);
  }
  void l2_normalize_backward(DType dtype, int64_t rows, int64_t channels, float eps, const void* y, const float* norm,
                             const void* dy, void* dx) override {
    cuda::l2_normalize_backward(stream_, dtype, rows, channels, eps, y, norm, dy, dx);
  }

  size_t sinkhorn_workspace(const Sinkhorn& problem) const override { return cuda::sinkhorn_workspace(problem); }
  void sinkhorn_potentials(const Sinkhorn& problem, const float* scores, float* potentials, void* workspace) override {
    cuda::sinkhorn_potentials(stream_, problem, scores, potentials, workspace);
  }
  void sinkhorn_assign(const Sinkhorn& problem, const float* scores, const float* potentials, float* q) override {
    cuda::sinkhorn_assign(stream_, problem, scores, potentials, q);
  }
  void swapped_prediction(const SwappedPrediction& problem, const float* scores, const float* q, float* loss,
                          float* dscores) override {
    cuda::swapped_prediction(stream_, problem, scores, q, loss, dscores,
                             scratch_.at_least(cuda::swapped_prediction_workspace(problem)));
  }
  void cross_entropy(int64_t rows, int64_t classes, const float* logits, const int32_t* labels, float* loss,
                     float* dlogits) override {
    cuda::cross_entropy(stream_, rows, classes, logits, labels, loss, dlogits,
                        scratch_.at_least(cuda::cross_entropy_workspace(rows)));
  }

  void sgd(const Sgd& settings, std::span<const ParameterSlot> slots) override {
    cuda::sgd(stream_, settings, slots, scratch_.at_least(cuda::sgd_workspace(settings, slots)));
  }
  void adamw(const AdamW& settings, std::span<const ParameterSlot> slots) override {
    cuda::adamw(stream_, settings, slots);
  }
  void unscale(float factor, std::span<const GradientSlot> slots, float* nonfinite) override {
    cuda::unscale(stream_, factor, slots, nonfinite);
  }
  void crops_to_batch(std::span<const Segment> crops, int64_t channels, const uint8_t* bytes, const PixelScale& scale,
                      DType dtype, void* y) override {
    auto* to = static_cast<std::byte*>(y);
    for (const Segment& s : crops) {
      // They were mirrored before colour was touched, which is where it costs nothing.
      cuda::crops_to_batch(stream_, s.n, s.h, s.w, channels, bytes, nullptr, scale, dtype, to);
      bytes += s.rows() * channels;
      to += static_cast<size_t>(s.rows() * channels) * size_of(dtype);
    }
  }

 private:
  Runtime& runtime_ = runtime();
  const cudaStream_t stream_ = runtime_.compute.get();
  mutable CudnnConvolutions convolutions_{runtime_.cudnn, stream_};
  MatrixProducts products_{runtime_.cublas, cuda::matmul_workspace(runtime_.properties.major)};
  Scratch scratch_;
};

}  // namespace
}  // namespace cuda

Backend& cuda_backend() {
  // Never destroyed, like the device it works on.
  static Backend& backend = *new cuda::CudaBackend;
  return backend;
}

void begin_cuda_range(const char* name) { nvtxRangePushA(name); }
void end_cuda_range() { nvtxRangePop(); }

}  // namespace saccade::kernels
