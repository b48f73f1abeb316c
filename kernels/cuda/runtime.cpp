#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <atomic>
#include <string>

namespace saccade::kernels {
namespace cuda {
namespace {

std::atomic<int> selected{0};
std::atomic<bool> opened{false};

[[noreturn]] void refuse(std::string_view what, const char* why) {
  throw Error("CUDA could not " + std::string(what) + ": " + why);
}

int index_of_open_device() {
  opened = true;
  if (const CudaStatus status = cuda_status(); status.devices == 0) throw Error(status.why_none);
  check(cudaSetDevice(selected), "select the device");
  return selected;
}

}  // namespace

void check(cudaError_t status, std::string_view what) {
  if (status != cudaSuccess) refuse(what, cudaGetErrorString(status));
}
void check(cublasStatus_t status, std::string_view what) {
  if (status != CUBLAS_STATUS_SUCCESS) refuse(what, cublasLtGetStatusString(status));
}
void check(cudnnStatus_t status, std::string_view what) {
  if (status == CUDNN_STATUS_SUCCESS) return;
  char detail[512] = "";
  cudnnGetLastErrorString(detail, sizeof detail);
  refuse(what, (std::string(cudnnGetErrorString(status)) + (*detail ? ", " : "") + detail).c_str());
}

OwnedStream::OwnedStream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream"); }
OwnedStream::~OwnedStream() { cudaStreamDestroy(stream_); }

Event::Event(unsigned flags) { check(cudaEventCreateWithFlags(&event_, flags), "make an event"); }
Event::~Event() { cudaEventDestroy(event_); }
void Event::record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "record an event"); }
void Event::make_wait(cudaStream_t stream) const { check(cudaStreamWaitEvent(stream, event_, 0), "wait for an event"); }
void Event::synchronize() const { check(cudaEventSynchronize(event_), "wait for an event"); }
float Event::milliseconds_until(const Event& later) const {
  float time = 0;
  later.synchronize();
  check(cudaEventElapsedTime(&time, event_, later.event_), "measure time");
  return time;
}

Runtime::Runtime() : device(index_of_open_device()) {
  check(cudaGetDeviceProperties(&properties, device), "ask for the device's properties");
  check(cublasLtCreate(&cublas), "open cuBLASLt");
  check(cudnnCreate(&cudnn), "open cuDNN");
  check(cudnnSetStream(cudnn, compute.get()), "give cuDNN a stream");
}

Runtime::~Runtime() {
  cudnnDestroy(cudnn);
  cublasLtDestroy(cublas);
}

Runtime& runtime() {
  // Never destroyed: CUDA may be gone before objects with static storage duration are.
  static Runtime& one = *new Runtime;
  return one;
}

int selected_device() { return selected; }

}  // namespace cuda

CudaStatus cuda_status() {
  int devices = 0;  // a failing call leaves it alone
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status == cudaSuccess && devices > 0) return {.devices = devices, .why_none = ""};
  cudaGetLastError();  // it was heard: no later call should report it
  if (status == cudaSuccess) return {.devices = 0, .why_none = "there is no CUDA device on this machine"};
  std::string why = cudaGetErrorString(status);
  if (status == cudaErrorInsufficientDriver)  // it says so where there is no driver at all, too
    why = "no NVIDIA driver, or one older than CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
          std::to_string(CUDART_VERSION % 1000 / 10) + " needs";
  return {.devices = 0, .why_none = "there is no CUDA device to be used on this machine: " + why};
}

void select_cuda_device(int index) {
  const CudaStatus status = cuda_status();
  if (status.devices == 0) throw Error(status.why_none);
  if (index < 0 || index >= status.devices)
    throw Error("CUDA device " + std::to_string(index) + " was asked for; this machine has " +
                std::to_string(status.devices) + ", counted from 0");
  if (cuda::opened && index != cuda::selected)
    throw Error("CUDA device " + std::to_string(index) + " was asked for while another is in use");
  cuda::selected = index;
}

CudaDevice cuda_device() {
  const cuda::Runtime& runtime = cuda::runtime();
  CudaDevice device{.name = runtime.properties.name};
  cuda::check(cudaMemGetInfo(&device.free, &device.memory), "ask how much memory is free");
  return device;
}

}  // namespace saccade::kernels
