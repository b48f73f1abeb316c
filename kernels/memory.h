#pragma once

#include <cstddef>

namespace saccade::kernels {

/// What a device's memory is to an allocator: addresses that are reserved once, and memory that is put behind pieces of
/// them and taken away again. Pieces begin and end at multiples of step().
class Memory {
 public:
  virtual ~Memory() = default;
  /// Bytes that the device has in all.
  virtual size_t total() const = 0;
  /// What commit() is asked for at a time, at least.
  virtual size_t step() const = 0;
  /// Addresses without memory, at a multiple of 2 MiB. Null when there are no more.
  virtual void* reserve(size_t bytes) = 0;
  virtual void unreserve(void* base, size_t bytes) noexcept = 0;
  /// Puts memory behind [at, at + bytes) where there is none. False, and nothing changed, when the device has no more.
  virtual bool commit(void* at, size_t bytes) = 0;
  /// Takes away the memory of all whole pieces in [at, at + bytes) that have any; what it held is lost.
  virtual void give_back(void* at, size_t bytes) noexcept = 0;
};

/// The memory of the process, which appears when it is touched.
Memory& cpu_memory();

}  // namespace saccade::kernels
