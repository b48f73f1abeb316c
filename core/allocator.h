#pragma once

#include <saccade/core/context.h>
#include <saccade/kernels/device.h>
#include <saccade/kernels/dtype.h>
#include <saccade/kernels/error.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace saccade {

namespace kernels {
class Memory;
}

std::string_view name_of(Tag tag);
std::string_view name_of(Phase phase);

/// Bytes in use, as the allocator counts them: sizes rounded up to 64.
struct MemoryStats {
  struct Counter {
    int64_t live = 0, peak = 0;
  };
  std::array<Counter, kTags> by_tag;  ///< each tag's own peak (they need not coincide in time)
  Counter total;
  int64_t reserved = 0;       ///< what the process really occupies, free memory included; what a budget limits
  int64_t peak_reserved = 0;  ///< its highest; never below total.peak, and equal to it without fragmentation
  int64_t cached() const { return reserved - total.live; }
  int64_t largest_free = 0;  ///< the largest piece that is free for what passes
  int64_t allocations = 0;   ///< number of allocations so far
  const Counter& operator[](Tag tag) const { return by_tag[static_cast<size_t>(tag)]; }
};

/// One block in use, and who asked for it.
struct LiveBlock {
  size_t bytes = 0;   ///< as asked
  size_t offset = 0;  ///< in its range
  Tag tag = Tag::activations;
  Phase phase = Phase::setup;
  std::string layer;  ///< the LayerScope it was made in; empty outside any
  std::string shape;  ///< "(64, 3, 3, 8) f32"; empty for memory that is no tensor
};

/// Thrown when an allocation would take the arena over its budget, or over what the machine gives. what() is a
/// sentence: what was asked, for what, by which layer in which phase, and the limit; report() has the rest.
class OutOfMemory : public Error {
 public:
  explicit OutOfMemory(const std::string& sentence, MemoryStats stats = {}, std::vector<LiveBlock> largest = {});

  /// Lines for people: bytes by tag, the largest blocks in use with who asked for them, and the advice.
  std::string report() const;
  const MemoryStats& stats() const { return stats_; }                 ///< when it happened
  const std::vector<LiveBlock>& largest() const { return largest_; }  ///< at most ten, largest first
  /// What a program knows would help (another plan, a smaller batch): a sentence that ends the report. Catch by
  /// reference, advise, and throw on.
  void advise(std::string sentence) { advice_ = std::move(sentence); }
  const std::string& advice() const { return advice_; }

 private:
  MemoryStats stats_;
  std::vector<LiveBlock> largest_;
  std::string advice_;
};

/// One arena a device, reused from step to step, in two ranges of addresses: one for what lasts (parameters, optimizer,
/// batch), one for what passes. Left among each other, states made in the first backward would sit where activations
/// passed, and the next step's activations would find the room in pieces. What lasts takes the tightest place that is
/// free; of what passes, a forward's takes the lowest, a backward's the tightest. Neighbours merge when freed. Physical
/// pages are touched once and stay, because page faults are a first-order cost of a training step; only where a budget
/// leaves no other room, those of free memory are given back to be used elsewhere. On CUDA a released block may be
/// reused at once: one stream computes, and what is asked of it later runs later. The meta device runs the same
/// arithmetic with no memory behind it, so that a rehearsed program predicts the real one's bytes exactly.
///
/// Thread-safe.
class Allocator {
 public:
  /// @param memory  null: bookkeeping only, addresses are null (meta)
  explicit Allocator(kernels::Memory* memory);
  ~Allocator();
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  struct Block {
    void* data = nullptr;
    size_t offset = 0, bytes = 0;
    Tag tag = Tag::activations;
    uint32_t record = 0;  ///< where the allocator remembers who asked
  };
  /// 64-byte aligned memory, contents undefined. Zero bytes are legal. Throws OutOfMemory, and then has changed
  /// nothing. Layer and phase of the calling thread are remembered with it.
  /// @param shape,dtype  of the tensor it is for, if it is for one
  Block allocate(size_t bytes, Tag tag, std::span<const int64_t> shape = {}, std::optional<DType> dtype = {});
  void release(const Block& block) noexcept;

  MemoryStats stats() const;
  /// The n largest blocks in use, largest first; of equals, the one at the lowest address first.
  std::vector<LiveBlock> largest(size_t n) const;
  /// Starts the peaks anew from what is now.
  void reset_peaks();
  /// The arena never occupies more than this many bytes; 0 is no limit.
  void set_budget(size_t bytes);
  size_t budget() const;
  /// Ends each range behind its last block in use, and gives the physical pages of all free memory back to the system.
  void trim();
  /// The n-th allocation from now throws OutOfMemory, once; 0: none does. For tests of what a failure leaves behind.
  void fail_at(int64_t n);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The allocator of a device: one a process.
Allocator& allocator(Device device);

/// Live and peak bytes by tag in one line, for people.
std::string describe(const MemoryStats& stats);

/// Allocations of this thread get `tag` while the scope lives (activations otherwise).
using TagScope = FieldScope<&Context::tag>;

/// Allocations of this thread are remembered as of `phase` while the scope lives (setup otherwise).
using PhaseScope = FieldScope<&Context::phase>;

}  // namespace saccade
