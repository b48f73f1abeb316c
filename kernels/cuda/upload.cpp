#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/cuda_device.h>

namespace saccade::kernels {

struct CudaUpload::Impl {
  void* pinned = nullptr;
  size_t bytes = 0;
  cuda::Event free, arrived;
  ~Impl() { cudaFreeHost(pinned); }
};

CudaUpload::CudaUpload() : impl_(new Impl) {}
CudaUpload::~CudaUpload() {
  cudaStreamSynchronize(cuda::runtime().copy.get());  // it may still read what is released here
  delete impl_;
}

void* CudaUpload::staging(size_t bytes) {
  impl_->arrived.synchronize();
  if (bytes > impl_->bytes) {
    cuda::check(cudaFreeHost(impl_->pinned), "release pinned memory");
    impl_->pinned = nullptr;
    impl_->bytes = 0;
    cuda::check(cudaHostAlloc(&impl_->pinned, bytes, cudaHostAllocDefault), "allocate pinned memory");
    impl_->bytes = bytes;
  }
  return impl_->pinned;
}

void CudaUpload::released() { impl_->free.record(cuda::runtime().compute.get()); }

void CudaUpload::begin(size_t bytes, void* y) {
  const cudaStream_t copy = cuda::runtime().copy.get();
  impl_->free.make_wait(copy);
  cuda::check(cudaMemcpyAsync(y, impl_->pinned, bytes, cudaMemcpyHostToDevice, copy), "copy from the host");
  impl_->arrived.record(copy);
}

void CudaUpload::join() { impl_->arrived.make_wait(cuda::runtime().compute.get()); }

}  // namespace saccade::kernels
