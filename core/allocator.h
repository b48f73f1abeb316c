#pragma once

#include <saccade/kernels/device.h>
#include <saccade/kernels/error.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace saccade {

/// What a piece of memory is for. Every allocation carries one; statistics and reports are kept by it.
enum class Tag : uint8_t { parameters, gradients, optimizer, activations, workspace, batch };
inline constexpr size_t kTags = 6;
std::string_view name_of(Tag tag);

/// Bytes in use, as the allocator counts them: sizes rounded up to 64.
struct MemoryStats {
  struct Counter {
    int64_t live = 0, peak = 0;
  };
  std::array<Counter, kTags> by_tag;  ///< each tag's own peak (they need not coincide in time)
  Counter total;
  int64_t reserved = 0;  ///< end of the arena in use so far: what the process really occupies
  int64_t cached() const { return reserved - total.live; }
  int64_t allocations = 0;  ///< number of allocations so far
  const Counter& operator[](Tag tag) const { return by_tag[static_cast<size_t>(tag)]; }
};

/// Thrown when an allocation would take the arena over its budget, or over what the machine gives.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

/// One arena a device, reused from step to step: blocks are cut from one range of addresses, best fit first, lowest
/// address first, and neighbours merge when freed. The range's physical pages are touched once and stay, because page
/// faults are a first-order cost of a training step. The meta device runs the same arithmetic with no memory behind it,
/// so that a rehearsed program predicts the real one's bytes exactly.
///
/// Thread-safe.
class Allocator {
 public:
  /// @param backed  false: bookkeeping only, addresses are null (meta)
  explicit Allocator(bool backed);
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  struct Block {
    void* data = nullptr;
    size_t offset = 0, bytes = 0;
    Tag tag = Tag::activations;
  };
  /// 64-byte aligned memory, contents undefined. Zero bytes are legal. Throws OutOfMemory.
  Block allocate(size_t bytes, Tag tag);
  void release(const Block& block) noexcept;

  MemoryStats stats() const;
  /// Starts the peaks anew from what is live now.
  void reset_peaks();
  /// The arena never grows beyond this many bytes; 0 is no limit.
  void set_budget(size_t bytes);
  size_t budget() const;
  /// Gives the physical pages of all free blocks back to the system.
  void trim();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The allocator of a device: one a process.
Allocator& allocator(Device device);

/// A table of live and peak bytes by tag, for people.
std::string describe(const MemoryStats& stats);

/// Allocations of this thread get `tag` while the scope lives (activations otherwise).
class TagScope {
 public:
  explicit TagScope(Tag tag);
  ~TagScope();
  TagScope(const TagScope&) = delete;
  TagScope& operator=(const TagScope&) = delete;
  static Tag current();

 private:
  Tag previous_;
};

}  // namespace saccade
