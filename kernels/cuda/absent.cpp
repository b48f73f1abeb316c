// What stands in for the backend in builds without the CUDA toolkit.

#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

namespace saccade::kernels {
namespace {
constexpr const char* kSentence = "this build of Saccade has no CUDA: it was made without the CUDA toolkit";
}

CudaStatus cuda_status() { return {.devices = 0, .why_none = kSentence}; }
void select_cuda_device(int) { throw Error(kSentence); }
CudaDevice cuda_device() { throw Error(kSentence); }
Backend& cuda_backend() { throw Error(kSentence); }
Memory& cuda_memory() { throw Error(kSentence); }

CudaUpload::CudaUpload() : impl_(nullptr) { throw Error(kSentence); }
CudaUpload::~CudaUpload() = default;
void* CudaUpload::staging(size_t) { return nullptr; }
void CudaUpload::released() {}
void CudaUpload::begin(size_t, void*) {}
void CudaUpload::join() {}

void begin_cuda_range(const char*) {}
void end_cuda_range() {}

}  // namespace saccade::kernels
