#include "state.h"

// The driver's functions for virtual memory, to be had from cudaGetDriverEntryPointByVersion.
namespace cuda_doubles {
namespace {

void require_chunks(const char* what, uint64_t number) {
  if (number == 0 || number % granularity != 0) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE,
                  fmt::format("the {} of {} is no multiple of the granularity, {}", what, number, granularity)};
  }
}

void require_flags(unsigned long long flags) {
  if (flags != 0) throw Refusal{CUDA_ERROR_INVALID_VALUE, "flags other than 0"};
}

void require_location(const CUmemLocation& location) {
  if (location.type != CU_MEM_LOCATION_TYPE_DEVICE || location.id < 0 || location.id >= options().devices) {
    throw Refusal{CUDA_ERROR_INVALID_DEVICE, "the location is no device of this machine"};
  }
}

void require_properties(const CUmemAllocationProp* properties) {
  if (!properties || properties->type != CU_MEM_ALLOCATION_TYPE_PINNED) {
    throw Refusal{CUDA_ERROR_INVALID_VALUE, "the type of an allocation must be CU_MEM_ALLOCATION_TYPE_PINNED"};
  }
  require_location(properties->location);
}

CUresult CUDAAPI address_reserve(CUdeviceptr* address, size_t bytes, size_t alignment, CUdeviceptr,
                                 unsigned long long flags) {
  return guarded<CUresult>("cuMemAddressReserve", [=] {
    require_flags(flags);
    require_chunks("size", bytes);
    if (alignment & (alignment - 1)) throw Refusal{CUDA_ERROR_INVALID_VALUE, "the alignment is no power of two"};
    *address = reserve(bytes, std::max(alignment, granularity), "cuMemAddressReserve");
    if (*address == 0) throw Refusal{CUDA_ERROR_OUT_OF_MEMORY};
  });
}

CUresult CUDAAPI address_free(CUdeviceptr address, size_t bytes) {
  return guarded<CUresult>("cuMemAddressFree",
                           [=] { unreserve(address, bytes, "cuMemAddressReserve", "cuMemAddressFree"); });
}

CUresult CUDAAPI create(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp* properties,
                        unsigned long long flags) {
  return guarded<CUresult>("cuMemCreate", [=] {
    require_flags(flags);
    require_properties(properties);
    require_chunks("size", bytes);
    const uint64_t chunk = new_chunk(bytes);
    if (chunk == 0) throw Refusal{CUDA_ERROR_OUT_OF_MEMORY};
    *handle = chunk;
  });
}

CUresult CUDAAPI release(CUmemGenericAllocationHandle handle) {
  return guarded<CUresult>("cuMemRelease", [=] { release_chunk(handle); });
}

CUresult CUDAAPI map(CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,
                     unsigned long long flags) {
  return guarded<CUresult>("cuMemMap", [=] {
    require_flags(flags);
    require_chunks("address", address);
    require_chunks("size", bytes);
    if (offset != 0 || bytes > chunk_bytes(handle)) {
      throw Refusal{CUDA_ERROR_INVALID_VALUE,
                    fmt::format("{} bytes from offset {} of a chunk of {}; the offset must be 0", bytes, offset,
                                chunk_bytes(handle))};
    }
    map_chunk(address, bytes, handle);
  });
}

CUresult CUDAAPI unmap_range(CUdeviceptr address, size_t bytes) {
  return guarded<CUresult>("cuMemUnmap", [=] { unmap(address, bytes); });
}

CUresult CUDAAPI set_range_access(CUdeviceptr address, size_t bytes, const CUmemAccessDesc* access, size_t count) {
  return guarded<CUresult>("cuMemSetAccess", [=] {
    for (size_t i = 0; i < count; ++i) {
      require_location(access[i].location);
      set_access(address, bytes, access[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    }
  });
}

CUresult CUDAAPI allocation_granularity(size_t* bytes, const CUmemAllocationProp* properties,
                                        CUmemAllocationGranularity_flags) {
  return guarded<CUresult>("cuMemGetAllocationGranularity", [=] {
    require_properties(properties);
    *bytes = granularity;
  });
}

CUresult CUDAAPI error_string(CUresult error, const char** text) {
  *text = error == CUDA_SUCCESS                ? "no error"
          : error == CUDA_ERROR_INVALID_VALUE  ? "invalid argument"
          : error == CUDA_ERROR_OUT_OF_MEMORY  ? "out of memory"
          : error == CUDA_ERROR_INVALID_DEVICE ? "invalid device ordinal"
                                               : "another error";
  return CUDA_SUCCESS;
}

}  // namespace

void* driver_function(const std::string& name) {
  const auto pointer = [](auto function) { return reinterpret_cast<void*>(function); };
  if (name == "cuMemAddressReserve") return pointer(static_cast<decltype(&cuMemAddressReserve)>(address_reserve));
  if (name == "cuMemAddressFree") return pointer(static_cast<decltype(&cuMemAddressFree)>(address_free));
  if (name == "cuMemCreate") return pointer(static_cast<decltype(&cuMemCreate)>(create));
  if (name == "cuMemRelease") return pointer(static_cast<decltype(&cuMemRelease)>(release));
  if (name == "cuMemMap") return pointer(static_cast<decltype(&cuMemMap)>(map));
  if (name == "cuMemUnmap") return pointer(static_cast<decltype(&cuMemUnmap)>(unmap_range));
  if (name == "cuMemSetAccess") return pointer(static_cast<decltype(&cuMemSetAccess)>(set_range_access));
  if (name == "cuMemGetAllocationGranularity") {
    return pointer(static_cast<decltype(&cuMemGetAllocationGranularity)>(allocation_granularity));
  }
  if (name == "cuGetErrorString") return pointer(static_cast<decltype(&cuGetErrorString)>(error_string));
  return nullptr;
}

}  // namespace cuda_doubles
