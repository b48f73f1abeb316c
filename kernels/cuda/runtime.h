#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cudnn.h>

#include <string_view>

/// What the files of the backend share: the device of the process, its streams, and the libraries' handles.
namespace saccade::kernels::cuda {

/// Throws Error with what CUDA says where a call failed; `what` completes "CUDA could not ...".
void check(cudaError_t status, std::string_view what);
void check(cublasStatus_t status, std::string_view what);
void check(cudnnStatus_t status, std::string_view what);

/// A stream that waits for no other of its own accord.
class OwnedStream {
 public:
  OwnedStream();
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  cudaStream_t get() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

/// A point in a stream that another one, or the host, waits for; with cudaEventDefault it notes the time.
class Event {
 public:
  explicit Event(unsigned flags = cudaEventDisableTiming);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream);
  /// What is put into the stream from now on runs after the point.
  void make_wait(cudaStream_t stream) const;
  /// The host waits.
  void synchronize() const;
  /// Waits for the later one.
  float milliseconds_until(const Event& later) const;

 private:
  cudaEvent_t event_ = nullptr;
};

/// The open device. One a process, made at the first use.
struct Runtime {
  Runtime();
  ~Runtime();
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  int device = 0;
  cudaDeviceProp properties = {};
  /// All of a training step runs in `compute`; batches arrive by `copy`; `communication` is for the exchange
  /// of gradients between GPUs, which does not exist yet.
  OwnedStream compute, copy, communication;
  cublasLtHandle_t cublas = nullptr;
  cudnnHandle_t cudnn = nullptr;  ///< its work goes to `compute`
};
Runtime& runtime();
/// The device's index, before anything is opened.
int selected_device();

}  // namespace saccade::kernels::cuda
