// Device memory as ranges of addresses (CUDA's virtual memory management): addresses are reserved once, and memory is
// mapped behind them piece by piece. So the same arena serves the CPU and the GPU, to the byte, with neither the holes
// of cudaMalloc's blocks nor the unknown reserve of cudaMallocAsync's pool.

#include <cuda.h>
#include <saccade/kernels/cuda/runtime.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <map>
#include <mutex>
#include <string>

namespace saccade::kernels {
namespace cuda {
namespace {

/// A function of the driver, by way of the run time: nothing links the driver, which many machines do not have.
template <class Function>
Function driver(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  check(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found),
        std::string("find the driver's ") + name);
  if (found != cudaDriverEntryPointSuccess || function == nullptr)
    throw Error(std::string("the NVIDIA driver is too old: it has no ") + name);
  return reinterpret_cast<Function>(function);
}

class CudaMemory final : public Memory {
 public:
  CudaMemory() : total_(runtime().properties.totalGlobalMem) {
    where_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    where_.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = runtime().device};
    size_t granularity = 0;
    if (granularity_(&granularity, &where_, CU_MEM_ALLOC_GRANULARITY_MINIMUM) != CUDA_SUCCESS ||
        kPiece % granularity != 0)
      throw Error("this CUDA device cannot map memory in pieces of 2 MiB");
  }

  size_t total() const override { return total_; }
  size_t step() const override { return kPiece; }

  void* reserve(size_t bytes) override {
    CUdeviceptr base = 0;
    return reserve_(&base, bytes, kPiece, 0, 0) == CUDA_SUCCESS ? reinterpret_cast<void*>(base) : nullptr;
  }

  void unreserve(void* base, size_t bytes) noexcept override {
    give_back(base, bytes);
    unreserve_(address(base), bytes);
  }

  bool commit(void* at, size_t bytes) override {
    const std::lock_guard lock(mutex_);
    const CUdeviceptr first = address(at);
    CUdeviceptr next = first;
    const auto undo = [&] {
      while (next > first) unmap(pieces_.find(next -= kPiece));
      return false;
    };
    for (; next < first + bytes; next += kPiece) {
      CUmemGenericAllocationHandle piece = 0;
      if (create_(&piece, kPiece, &where_, 0) != CUDA_SUCCESS) return undo();
      if (map_(next, kPiece, 0, piece, 0) != CUDA_SUCCESS) {
        release_(piece);
        return undo();
      }
      pieces_[next] = piece;
    }
    const CUmemAccessDesc access{.location = where_.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    return access_(first, bytes, &access, 1) == CUDA_SUCCESS || undo();
  }

  void give_back(void* at, size_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    const CUdeviceptr first = (address(at) + kPiece - 1) / kPiece * kPiece,
                      end = (address(at) + bytes) / kPiece * kPiece;
    auto piece = pieces_.lower_bound(first);
    if (piece == pieces_.end() || piece->first >= end) return;
    cudaDeviceSynchronize();  // the stream may not have come to what was asked before the memory was released
    while (piece != pieces_.end() && piece->first < end) piece = unmap(piece);
  }

 private:
  static constexpr size_t kPiece = size_t{2} << 20;
  using Pieces = std::map<CUdeviceptr, CUmemGenericAllocationHandle>;

  static CUdeviceptr address(void* at) { return reinterpret_cast<CUdeviceptr>(at); }
  Pieces::iterator unmap(Pieces::iterator piece) {
    unmap_(piece->first, kPiece);
    release_(piece->second);
    return pieces_.erase(piece);
  }

  const size_t total_;
  CUmemAllocationProp where_ = {};
  std::mutex mutex_;
  Pieces pieces_;  // that are mapped, by address
  decltype(&cuMemGetAllocationGranularity) granularity_ =
      driver<decltype(&cuMemGetAllocationGranularity)>("cuMemGetAllocationGranularity");
  decltype(&cuMemAddressReserve) reserve_ = driver<decltype(&cuMemAddressReserve)>("cuMemAddressReserve");
  decltype(&cuMemAddressFree) unreserve_ = driver<decltype(&cuMemAddressFree)>("cuMemAddressFree");
  decltype(&cuMemCreate) create_ = driver<decltype(&cuMemCreate)>("cuMemCreate");
  decltype(&cuMemRelease) release_ = driver<decltype(&cuMemRelease)>("cuMemRelease");
  decltype(&cuMemMap) map_ = driver<decltype(&cuMemMap)>("cuMemMap");
  decltype(&cuMemUnmap) unmap_ = driver<decltype(&cuMemUnmap)>("cuMemUnmap");
  decltype(&cuMemSetAccess) access_ = driver<decltype(&cuMemSetAccess)>("cuMemSetAccess");
};

}  // namespace
}  // namespace cuda

Memory& cuda_memory() {
  // Never destroyed: tensors with static storage duration may outlive any order of destruction.
  static Memory& memory = *new cuda::CudaMemory;
  return memory;
}

}  // namespace saccade::kernels
