#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

/// Strict doubles of the CUDA run time, of the driver's functions for virtual memory and of cuBLASLt, on the host's
/// memory. An executable that has their object files runs code written for CUDA without CUDA: kernels come from the
/// emulator (tests/support/simt), which hands its launches to the streams here.
///
/// What the contract leaves open is chosen against the caller:
/// - Streams are lazy. Nothing runs before something synchronises; then the entries of all streams run in a random
///   order that stream order and waits for events allow, as far as was asked for, or some way further. Queries force
///   nothing: a loop that polls does not end.
/// - Device memory faults whenever the host touches it (SIGSEGV, with a sentence on stderr that begins with
///   "cuda_doubles:"), begins as NaN, and once freed is gone for good: no address is handed out twice.
/// - Copies to and from pinned memory read and write it when their entry runs, no sooner.
///
/// A call that breaks the contract returns the documented code, and last_complaint() says in a sentence what was wrong.
/// What goes wrong in a stream is returned by the next call, and by all that follow, as on a device.
/// All functions may be called from any thread.
namespace cuda_doubles {

struct Options {
  uint32_t seed = 1;                      ///< of the order in which streams run
  size_t memory_bytes = size_t{1} << 30;  ///< of each device; allocations beyond it fail
  int devices = 1;                        ///< 0 is a machine without any
};
/// The seed counts from the next reset() on, the rest at once.
Options& options();

/// As if the process had just started: drops all queues, memory, handles, counts, complaints and planned failures.
/// Handles and addresses from before stay invalid.
void reset();

/// What was made and not yet destroyed.
struct Live {
  int streams = 0, events = 0;
  int host_allocations = 0;    ///< cudaHostAlloc, cudaMallocHost
  int device_allocations = 0;  ///< cudaMalloc, cudaMallocAsync
  int reservations = 0;        ///< cuMemAddressReserve
  int mappings = 0;            ///< cuMemMap
  int chunks = 0;              ///< cuMemCreate, until cuMemRelease
  int cublaslt = 0;            ///< handles, descriptors, layouts, preferences
  int cudnn = 0;               ///< handles, descriptors
  size_t device_bytes = 0;     ///< of memory in use
  bool operator==(const Live&) const = default;
};
Live live();
/// In words, what there is of each kind: "1 stream, 3 mappings"; empty when there is nothing.
std::string describe(const Live&);

/// The last sentence about what broke a contract, here or in the doubles of other libraries; empty when nothing did.
std::string last_complaint();
/// cudaStreamWaitEvent calls on events that were never recorded: legal, no wait at all, and seldom meant.
int unrecorded_waits();
/// Entries that wait in the streams.
size_t pending();

/// Makes a call of this function (its name without any version: "cuMemCreate") return this code and do nothing: the
/// next one, or the one after `skip` more.
void fail_next(const std::string& function, int code, int skip = 0);

/// @name For doubles of further libraries
/// @{

/// Puts work into a stream, by the same rules as everything else. Device memory is open to it while it runs. What it
/// throws (std::exception) becomes the complaint, and the stream's error. False, with a complaint, if there is no such
/// stream.
bool enqueue(cudaStream_t stream, std::function<void()> work, std::string name);
/// True when these bytes are all device memory that work in a stream may read and write at this moment.
bool readable(const void* address, size_t bytes);
/// A sentence that says why not; to be asked when readable() is false. "16 bytes at 0x7f..: freed by cudaFree".
std::string why_not_readable(const void* address, size_t bytes);
/// True when the address is, or ever was, the device's.
bool is_device_address(const void* address);
/// True when this stream was made and not destroyed, or is the default stream.
bool is_stream(cudaStream_t stream);
void complain(std::string sentence);
/// The code that fail_next() planned for this call; 0 for none.
int planned_failure(const char* function);
/// Live::cudnn, for the double of cuDNN to count.
int& live_cudnn();
/// An address for a handle: dereferencing it faults, and it is never given out again.
void* new_handle();
/// @}

}  // namespace cuda_doubles
