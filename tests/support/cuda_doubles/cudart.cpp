#include <cstring>
#include <map>
#include <vector>

#include "state.h"

namespace cuda_doubles {
namespace {

struct State {
  std::string complaint;
  std::map<std::string, std::map<int, int>> planned;  // function -> calls from now -> code
  std::map<std::string, int> calls;
  int cudnn = 0;
};
State& state() {
  static State& state = *new State;
  return state;
}

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

}  // namespace

std::recursive_mutex& mutex() {
  static std::recursive_mutex& mutex = *new std::recursive_mutex;
  return mutex;
}

Options& options() {
  static Options options;
  return options;
}

void reset() {
  const std::lock_guard lock(mutex());
  reset_cublaslt();
  reset_cudnn();
  reset_streams();
  reset_memory();
  state() = {};
  current_device = 0;
  last_error = cudaSuccess;
}

Live live() {
  const std::lock_guard lock(mutex());
  Live live;
  count_streams(live);
  count_memory(live);
  live.cublaslt = live_cublaslt();
  live.cudnn = state().cudnn;
  return live;
}

std::string describe(const Live& live) {
  std::string text;
  const auto add = [&](size_t count, const char* what) {
    if (count > 0) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", count, what);
  };
  add(live.streams, "stream(s)");
  add(live.events, "event(s)");
  add(live.host_allocations, "pinned allocation(s)");
  add(live.device_allocations, "device allocation(s)");
  add(live.reservations, "reservation(s)");
  add(live.mappings, "mapping(s)");
  add(live.chunks, "chunk(s)");
  add(live.cublaslt, "cuBLASLt object(s)");
  add(live.cudnn, "cuDNN object(s)");
  add(live.device_bytes, "bytes");
  return text;
}

std::string last_complaint() {
  const std::lock_guard lock(mutex());
  return state().complaint;
}

void complain(std::string sentence) {
  const std::lock_guard lock(mutex());
  state().complaint = std::move(sentence);
}

void fail_next(const std::string& function, int code, int skip) {
  const std::lock_guard lock(mutex());
  state().planned[function][state().calls[function] + skip] = code;
}

int planned_failure(const char* function) {
  const std::lock_guard lock(mutex());
  const auto found = state().planned.find(function);
  if (found == state().planned.end()) return 0;
  const auto now = found->second.find(state().calls[function]++);
  return now == found->second.end() ? 0 : now->second;
}

int& live_cudnn() { return state().cudnn; }

void* new_handle() {
  static uintptr_t next = 0x1000;  // below what the system maps
  const std::lock_guard lock(mutex());
  // Beyond what a process can address.
  return reinterpret_cast<void*>((uintptr_t{0xdead} << 48) | (next += 16));
}

cudaError_t runtime_call(const char* function, const std::function<void()>& body, AfterError after) {
  cudaError_t code = guarded<cudaError_t>(function, [&] {
    if (options().devices == 0) throw Refusal{cudaErrorNoDevice};
    if (stream_error() == 0 || after == AfterError::work) body();
    if (stream_error() != 0) throw Refusal{stream_error()};
  });
  if (code != cudaSuccess) last_error = code;
  return code;
}

namespace {

enum class Place : uint8_t { device, pinned, pageable };

Place place_of(const void* address) {
  if (is_device_address(address)) return Place::device;
  return host_allocation_of(address) ? Place::pinned : Place::pageable;
}

void require_kind(bool device, Place place, const void* address, const char* what, const char* kind) {
  if (device == (place == Place::device)) return;
  throw Refusal{cudaErrorInvalidValue, fmt::format("the {} {} is {}, but the kind of the copy is {}", what, address,
                                                   device ? "the host's" : "the device's", kind)};
}

/// Throws unless the bytes may be read and written now.
void require(const void* address, size_t bytes, Place place, uint64_t allocation, const char* what) {
  if (place == Place::device) require_readable(address, bytes, what);
  if (place == Place::pinned) require_pinned(address, bytes, allocation, what);
}

/// True when the host has to wait for it: it writes memory that is not pinned.
bool copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Place target = place_of(to), source = place_of(from);
  if (kind != cudaMemcpyDefault) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    const char* name = std::array{"host to host", "host to device", "device to host", "device to device"}.at(kind);
    require_kind(to_device, target, to, "target", name);
    require_kind(from_device, source, from, "source", name);
  }
  if (bytes == 0) return false;
  const uint64_t to_allocation = host_allocation_of(to), from_allocation = host_allocation_of(from);
  if (target == Place::pinned) require_pinned(to, bytes, to_allocation, "the target");
  if (source == Place::pinned) require_pinned(from, bytes, from_allocation, "the source");
  std::vector<char> staged;  // the caller may change pageable memory as soon as the call has returned
  if (source == Place::pageable) staged.assign(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  enqueue_or_throw(
      stream,
      [=, staged = std::move(staged)] {
        require(to, bytes, target, to_allocation, "the target");
        require(from, bytes, source, from_allocation, "the source");
        std::memmove(to, staged.empty() ? from : staged.data(), bytes);
      },
      "copy");
  return target == Place::pageable;
}

cudaError_t new_allocation(const char* function, void** address, size_t bytes,
                           const std::function<void(std::function<void()>)>& when) {
  return runtime_call(function, [=] {
    if (!address) throw Refusal{cudaErrorInvalidValue, "no place for the address"};
    *address = nullptr;
    if (bytes == 0) return;
    const Allocation fresh = allocate(bytes, function);
    if (fresh.address == 0) throw Refusal{cudaErrorMemoryAllocation};
    *address = reinterpret_cast<void*>(fresh.address);
    when([=] { map_allocation(fresh, bytes); });
  });
}

cudaError_t new_pinned(const char* function, void** address, size_t bytes) {
  return runtime_call(function, [=] {
    if (!address) throw Refusal{cudaErrorInvalidValue, "no place for the address"};
    *address = bytes == 0 ? nullptr : new_host_memory(bytes);
    if (bytes > 0 && !*address) throw Refusal{cudaErrorMemoryAllocation};
  });
}

}  // namespace
}  // namespace cuda_doubles

using namespace cuda_doubles;

cudaError_t cudaGetDeviceCount(int* count) {
  return runtime_call("cudaGetDeviceCount", [=] { *count = options().devices; });
}

cudaError_t cudaSetDevice(int device) {
  return runtime_call("cudaSetDevice", [=] {
    if (device < 0 || device >= options().devices) {
      throw Refusal{cudaErrorInvalidDevice, fmt::format("device {} of {}", device, options().devices)};
    }
    current_device = device;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return runtime_call("cudaGetDevice", [=] { *device = current_device; });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return runtime_call("cudaGetDeviceProperties", [=] {
    if (device < 0 || device >= options().devices) throw Refusal{cudaErrorInvalidDevice, "no such device"};
    *properties = {};
    std::strncpy(properties->name, "Double of an A100", sizeof(properties->name) - 1);
    properties->totalGlobalMem = options().memory_bytes;
    properties->major = 8;
    properties->minor = 0;
    properties->multiProcessorCount = 108;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 48 << 10;
    properties->l2CacheSize = 40 << 20;
    properties->asyncEngineCount = 2;
    properties->unifiedAddressing = 1;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return runtime_call("cudaDeviceGetAttribute", [=] {
    static const std::map<int, int> values = {
        {cudaDevAttrComputeCapabilityMajor, 8}, {cudaDevAttrComputeCapabilityMinor, 0},
        {cudaDevAttrMultiProcessorCount, 108},  {cudaDevAttrWarpSize, 32},
        {cudaDevAttrMaxThreadsPerBlock, 1024},  {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrMemoryPoolsSupported, 1},   {cudaDevAttrUnifiedAddressing, 1},
        {cudaDevAttrL2CacheSize, 40 << 20},     {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 1}};
    if (device < 0 || device >= options().devices) throw Refusal{cudaErrorInvalidDevice, "no such device"};
    const auto found = values.find(attribute);
    if (found == values.end()) {
      throw Refusal{cudaErrorInvalidValue, fmt::format("the double does not know attribute {}", int{attribute})};
    }
    *value = found->second;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return runtime_call("cudaMemGetInfo", [=] {
    *total = options().memory_bytes;
    *free = *total - std::min(*total, live().device_bytes);
  });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = options().devices == 0 ? 0 : CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* result) {
  return runtime_call("cudaGetDriverEntryPointByVersion", [=] {
    constexpr unsigned with_virtual_memory = 10020;
    if (!symbol || !function || flags > cudaEnablePerThreadDefaultStream) {
      throw Refusal{cudaErrorInvalidValue, "no symbol, no place for the function, or flags unknown"};
    }
    if (version > CUDART_VERSION) throw Refusal{cudaErrorInvalidValue, "a version newer than the driver's"};
    void* found = driver_function(symbol);
    *function = version < with_virtual_memory ? nullptr : found;
    if (!result) return;
    *result = !found       ? cudaDriverEntryPointSymbolNotFound
              : !*function ? cudaDriverEntryPointVersionNotSufficent
                           : cudaDriverEntryPointSuccess;
  });
}

cudaError_t cudaHostAlloc(void** address, size_t bytes, unsigned) {
  return new_pinned("cudaHostAlloc", address, bytes);
}
cudaError_t cudaMallocHost(void** address, size_t bytes) { return new_pinned("cudaMallocHost", address, bytes); }

cudaError_t cudaFreeHost(void* address) {
  return runtime_call(
      "cudaFreeHost",
      [=] {
        if (address) free_host_memory(address);
      },
      AfterError::work);
}

cudaError_t cudaMalloc(void** address, size_t bytes) {
  return new_allocation("cudaMalloc", address, bytes, [](auto map) { map(); });
}

cudaError_t cudaFree(void* address) {
  return runtime_call(
      "cudaFree",
      [=] {
        if (!address) return;
        if (stream_error() == 0) synchronize_device();  // as documented
        free_allocation(reinterpret_cast<uintptr_t>(address), "cudaFree");
      },
      AfterError::work);
}

cudaError_t cudaMallocAsync(void** address, size_t bytes, cudaStream_t stream) {
  return new_allocation("cudaMallocAsync", address, bytes,
                        [=](auto map) { enqueue_or_throw(stream, map, "cudaMallocAsync"); });
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  return runtime_call("cudaFreeAsync", [=] {
    if (!address) return;
    enqueue_or_throw(
        stream, [=] { free_allocation(reinterpret_cast<uintptr_t>(address), "cudaFreeAsync"); }, "cudaFreeAsync");
  });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return runtime_call("cudaMemcpyAsync", [=] {
    if (copy(to, from, bytes, kind, stream)) synchronize(stream);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return runtime_call("cudaMemcpy", [=] {
    copy(to, from, bytes, kind, nullptr);
    // Between two places of the device it does not wait.
    if (!is_device_address(to) || !is_device_address(from)) synchronize(nullptr);
  });
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t bytes, cudaStream_t stream) {
  return runtime_call("cudaMemsetAsync", [=] {
    if (!is_device_address(address)) {
      throw Refusal{cudaErrorInvalidValue, fmt::format("{} is not the device's", address)};
    }
    enqueue_or_throw(
        stream,
        [=] {
          require_readable(address, bytes, "the target");
          std::memset(address, value, bytes);
        },
        "memset");
  });
}

cudaError_t cudaDeviceSynchronize() {
  return runtime_call("cudaDeviceSynchronize", [] { synchronize_device(); });
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(mutex());
  return stream_error() != 0 ? static_cast<cudaError_t>(stream_error()) : last_error;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "unrecognized error code";
  }
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    default:
      return "unrecognized error code";
  }
}
