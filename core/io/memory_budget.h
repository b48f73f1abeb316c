#pragma once

#include <fmt/format.h>
#include <saccade/kernels/error.h>

#include <cstddef>
#include <cstdint>
#include <memory_resource>

namespace saccade::io {

/// Memory that a parser takes for what a file tells it to make: at most 64 MiB and 4 times the file's size, because a
/// few bytes can ask for any amount. Throws Error beyond. Outlives all that it gave.
class MemoryBudget : public std::pmr::memory_resource {
 public:
  explicit MemoryBudget(uint64_t file_bytes) : most_((uint64_t{64} << 20) + 4 * file_bytes), left_(most_) {}

  /// Counts memory that comes from elsewhere.
  void charge(uint64_t bytes) {
    if (bytes > left_)
      throw Error(
          fmt::format("it would take more than {} MiB of memory, which no file of its size should", most_ >> 20));
    left_ -= bytes;
  }
  void give_back(uint64_t bytes) { left_ += bytes; }

 private:
  static constexpr size_t kOverhead = 16;  // what malloc keeps beside a block

  void* do_allocate(size_t bytes, size_t alignment) override {
    charge(bytes + kOverhead);
    return std::pmr::new_delete_resource()->allocate(bytes, alignment);
  }
  void do_deallocate(void* block, size_t bytes, size_t alignment) override {
    std::pmr::new_delete_resource()->deallocate(block, bytes, alignment);
    give_back(bytes + kOverhead);
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override { return this == &other; }

  uint64_t most_, left_;
};

}  // namespace saccade::io
