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

void* align(void* workspace) {
  return reinterpret_cast<void*>(aligned_workspace(reinterpret_cast<uintptr_t>(workspace)));
}

/// Convolutions by cuDNN, matrix products (and 1x1 convolutions, which are products) by cuBLASLt, the rest by our own
/// kernels (launch.h). Everything goes to one stream.
class CudaBackend final : public Calls::with<ComputesBy, CudaBackend, Backend> {
 public:
  Device device() const override { return Device::cuda; }

  template <class Call>
  void compute(const Call& call) {
    cuda::run(stream_, call);
  }
  template <class Call>
  size_t scratch(const Call& call) const {
    if constexpr (requires { call.workspace; }) return cuda::workspace(call);
    return 0;
  }
  void compute(const Conv2dForward& c) {
    if (!product(c, c.x, c.w, c.y)) convolutions_.forward(c.conv, c.segments, c.x, c.w, c.y, align(c.workspace));
  }
  void compute(const Conv2dBackwardData& c) {
    if (!product(c, c.dy, c.w, c.dx))
      convolutions_.backward_data(c.conv, c.segments, c.dy, c.w, c.dx, align(c.workspace));
  }
  void compute(const Conv2dBackwardWeight& c) {
    if (!product(c, c.dy, c.x, c.dw))
      convolutions_.backward_weight(c.conv, c.segments, c.x, c.dy, c.dw, align(c.workspace));
  }
  size_t scratch(const Conv2dForward& c) const { return of_convolution(c); }
  size_t scratch(const Conv2dBackwardData& c) const { return of_convolution(c); }
  size_t scratch(const Conv2dBackwardWeight& c) const { return of_convolution(c); }
  void compute(const MatrixProduct& c) { products_.run(stream_, c.product, c.a, c.b, c.bias, c.c, align(c.workspace)); }
  size_t scratch(const MatrixProduct&) const { return with_room_to_align(products_.workspace()); }
  void compute(const Copy& call) {
    if (call.bytes > 0)
      check(cudaMemcpyAsync(call.y, call.x, static_cast<size_t>(call.bytes), cudaMemcpyDeviceToDevice, stream_),
            "copy");
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

 private:
  /// Whether a convolution is a product: then it has been computed.
  template <class Call>
  bool product(const Call& c, const void* a, const void* b, void* out) {
    if (!c.conv.is_matmul()) return false;
    compute(MatrixProduct{product_of(c.conv, total_rows(c.segments), c.pass), a, b, nullptr, out, c.workspace});
    return true;
  }
  template <class Call>
  size_t of_convolution(const Call& c) const {
    return with_room_to_align(c.conv.is_matmul() ? products_.workspace()
                                                 : convolutions_.workspace(c.conv, c.segments, c.pass));
  }

  Runtime& runtime_ = runtime();
  const cudaStream_t stream_ = runtime_.compute.get();
  mutable CudnnConvolutions convolutions_{runtime_.cudnn, stream_};
  MatrixProducts products_{runtime_.cublas, cuda::matmul_workspace(runtime_.properties.major)};
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
