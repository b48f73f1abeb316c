#pragma once

#include <saccade/kernels/backend.h>
#include <saccade/kernels/memory.h>

#include <string>

/// @file
/// The way to the GPU. Builds without the CUDA toolkit have the same functions; theirs say that.

namespace saccade::kernels {

struct CudaStatus {
  int devices = 0;
  std::string why_none;  ///< a sentence, where there is no device
};
/// What this process could compute on. Never throws, and opens nothing.
CudaStatus cuda_status();

/// Which device this process uses (0 otherwise). Throws Error where there is no such device, or another is in use.
void select_cuda_device(int index);

/// The selected device, opened. Bytes.
struct CudaDevice {
  std::string name;
  size_t memory = 0;  ///< in all
  size_t free = 0;    ///< neither other processes, nor CUDA itself, nor the arena have it
};
CudaDevice cuda_device();

/// The backend of the selected device, opened at the first call: streams, cuBLASLt and cuDNN. Throws Error where there
/// is no device. All its calls go to one stream, in order, and return before they are done; to_host() and
/// synchronize() wait. One thread at a time may use it.
Backend& cuda_backend();
/// Likewise its memory: 2 MiB pieces, mapped where they are needed.
Memory& cuda_memory();

/// A way for batches to the device: copied from pinned memory by a stream of its own, beside what is computed.
class CudaUpload {
 public:
  CudaUpload();
  ~CudaUpload();
  CudaUpload(const CudaUpload&) = delete;
  CudaUpload& operator=(const CudaUpload&) = delete;
  /// Pinned memory of at least so many bytes, to be filled by the caller. Waits until an earlier copy has read it.
  void* staging(size_t bytes);
  /// Where the copies go is free once all that was asked of the backend so far is done: begin() waits for that.
  void released();
  /// Begins the copy of what is in staging to y. The host does not wait.
  void begin(size_t bytes, void* y);
  /// What is asked of the backend from now on sees the copy. The host does not wait.
  void join();

 private:
  struct Impl;
  Impl* impl_;
};

/// Marks what the host asks of the GPU from now on as of that name, for profilers that show NVTX ranges.
void begin_cuda_range(const char* name);
void end_cuda_range();

}  // namespace saccade::kernels
