#include <saccade/kernels/memory.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <mutex>

namespace saccade::kernels {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

class CpuMemory final : public Memory {
 public:
  size_t total() const override { return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * page_; }
  size_t step() const override { return size_t{64} << 20; }

  void* reserve(size_t bytes) override {
    void* mapping = mmap(nullptr, bytes + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) return nullptr;
    // Pages of 2 MiB: one that is in part free, in part used, would stay in memory whole.
    void* base =
        static_cast<char*>(mapping) + (kHugePage - reinterpret_cast<uintptr_t>(mapping) % kHugePage) % kHugePage;
    const std::lock_guard lock(mutex_);
    mappings_[base] = mapping;
    return base;
  }

  void unreserve(void* base, size_t bytes) noexcept override {
    const std::lock_guard lock(mutex_);
    if (const auto found = mappings_.extract(base)) munmap(found.mapped(), bytes + kHugePage);
  }

  bool commit(void* at, size_t bytes) override {
    if (mprotect(at, bytes, PROT_READ | PROT_WRITE) != 0) return false;
    madvise(at, bytes, MADV_HUGEPAGE);
    return true;
  }

  void give_back(void* at, size_t bytes) noexcept override {
    const auto first = (reinterpret_cast<uintptr_t>(at) + page_ - 1) / page_ * page_;
    const auto last = (reinterpret_cast<uintptr_t>(at) + bytes) / page_ * page_;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }

 private:
  const size_t page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  std::mutex mutex_;
  std::map<void*, void*> mappings_;  // base -> what mmap gave
};

}  // namespace

Memory& cpu_memory() {
  // Never destroyed: tensors with static storage duration may outlive any order of destruction.
  static Memory& memory = *new CpuMemory;
  return memory;
}

}  // namespace saccade::kernels
