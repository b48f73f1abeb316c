#pragma once

#include <cuda.h>
#include <fmt/format.h>

#include <memory>
#include <mutex>

#include "cuda_doubles.h"

/// What the doubles share among themselves.
namespace cuda_doubles {

/// Thrown within a call: the code that it returns and what to complain of; an empty sentence breaks no contract.
struct Refusal {
  int code;
  std::string sentence = {};
};

/// Held by every call, and by whoever runs what is in the streams.
std::recursive_mutex& mutex();

/// The body of a call of the driver's or of cuBLASLt's; 0 is success in all of them.
template <class Status, class Body>
Status guarded(const char* function, Body body) {
  const std::lock_guard lock(mutex());
  if (const int code = planned_failure(function)) return static_cast<Status>(code);
  try {
    body();
    return static_cast<Status>(0);
  } catch (const Refusal& refusal) {
    if (!refusal.sentence.empty()) complain(fmt::format("{}: {}", function, refusal.sentence));
    return static_cast<Status>(refusal.code);
  }
}

/// What a call of the run time does after an error in a stream, which every call returns: nothing, or still its work
/// (destructors).
enum class AfterError : uint8_t { nothing, work };
/// The body of a call of the run time. Its refusals are also what cudaGetLastError() gives.
cudaError_t runtime_call(const char* function, const std::function<void()>& body,
                         AfterError after = AfterError::nothing);

/// @name memory.cpp. The device's addresses are the host's, closed to it but while something in a stream runs.
/// @{
constexpr size_t granularity = size_t{2} << 20;

/// Addresses for nobody else, ever. 0 if there are none left.
uintptr_t reserve(size_t bytes, size_t alignment, const char* made_by);
/// `ended_by` says what freed them. Throws a Refusal if they are not exactly a reservation of `made_by`.
void unreserve(uintptr_t address, size_t bytes, const char* made_by, const char* ended_by);

/// Memory without an address, filled with NaN; 0 beyond the device's limit.
uint64_t new_chunk(size_t bytes);
/// It lives on while it is mapped. Throws if there is no such chunk, or it was released already.
void release_chunk(uint64_t chunk);
size_t chunk_bytes(uint64_t chunk);
/// Without access. Throws where something is mapped or nothing is reserved. `bytes` may end within the last page.
void map_chunk(uintptr_t address, size_t bytes, uint64_t chunk);
/// Throw unless whole mappings make up the range.
void unmap(uintptr_t address, size_t bytes);
void set_access(uintptr_t address, size_t bytes, bool access);

/// The whole of cudaMalloc but for the mapping: an address, and a chunk for it. Both 0 beyond the limit.
struct Allocation {
  uintptr_t address = 0;
  uint64_t chunk = 0;
};
Allocation allocate(size_t bytes, const char* made_by);
void map_allocation(const Allocation&, size_t bytes);
/// Throws a Refusal if it is none, or not a live one.
void free_allocation(uintptr_t address, const char* ended_by);

/// Opens the device's memory to whoever runs what is in a stream.
class OpenMemory {
 public:
  OpenMemory();
  ~OpenMemory();
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;
};
/// Throws a Refusal (an illegal address) unless readable().
void require_readable(const void* address, size_t bytes, const char* what);

void* new_host_memory(size_t bytes);
void free_host_memory(void* address);
/// The number of the pinned allocation that holds this address; 0 for none.
uint64_t host_allocation_of(const void* address);
/// Throws a Refusal unless these bytes lie in this pinned allocation, and it is live.
void require_pinned(const void* address, size_t bytes, uint64_t allocation, const char* what);
void reset_memory();
void count_memory(Live&);
/// @}

/// @name streams.cpp
/// @{
/// As enqueue(), throws a Refusal instead.
void enqueue_or_throw(cudaStream_t stream, std::function<void()> work, std::string name);
void synchronize(cudaStream_t stream);
void synchronize_device();
/// The error of the streams, 0 for none.
int stream_error();
void reset_streams();
void count_streams(Live&);
/// @}

/// driver.cpp: the driver's function of this name; null if it has no double.
void* driver_function(const std::string& name);
/// cublaslt.cpp
void reset_cublaslt();
int live_cublaslt();
/// cudnn.cpp
void reset_cudnn();

}  // namespace cuda_doubles
