#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel.h"

/// An emulator of CUDA's threads on the host: each thread is a fiber, warps have 32 lanes, blocks run one after the
/// other. Threads run in an order shuffled by a seed, so that what depends on their order shows. Kernels are the .cu
/// files themselves, compiled by the host compiler.
///
/// In every build it reports: barriers and shuffles that not all their threads reach, deadlock, misaligned vectors,
/// shared arrays overrun; shared memory that was never written reads as NaN. The address sanitizer adds accesses out of
/// bounds, and the thread sanitizer data races: between threads of a launch nothing is ordered but by barriers, warp
/// synchronisation and fences.
namespace simt {

/// What a kernel did wrong, in a sentence.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

enum class Order : uint8_t { forward, reverse, shuffled };

struct Options {
  uint32_t seed = 1;              ///< of the order of threads, and of blocks where they are shuffled
  Order blocks = Order::forward;  ///< in which the blocks run
  bool measure = false;           ///< count memory accesses into reports()
};
Options& options();

/// Accesses of whole warps to global memory.
struct Traffic {
  uint64_t accesses = 0;  ///< warp instructions
  uint64_t sectors = 0;   ///< 32-byte sectors that they touch, each instruction counted by itself
  uint64_t bytes = 0;     ///< asked for by the lanes, each byte once an instruction
  uint64_t partial = 0;   ///< instructions in which some lane took no part
};

/// What one launch did, all blocks together.
struct Report {
  std::string kernel;
  Dim grid, block;
  Traffic loads, stores;
  uint64_t shared_accesses = 0;    ///< warp instructions on shared memory
  uint64_t shared_wavefronts = 0;  ///< passes they take; without conflicts one for 128 bytes
  int worst_conflict = 0;          ///< most passes for what could be one: 1 is free of conflicts
  uint64_t barriers = 0;           ///< a block each
  uint64_t shuffles = 0;           ///< a warp each
  uint64_t atomics = 0;            ///< a lane each
  double sectors() const { return static_cast<double>(loads.sectors + stores.sectors); }
};

/// One for each launch since it was last cleared, in order, while Options::measure is set.
std::vector<Report>& reports();
/// A table, a line for each report.
std::string describe(std::span<const Report> reports);

/// What a launch does with its work: run it at once, unless a stand-in for CUDA's streams takes it over.
using Submit = void (*)(void* stream, std::function<void()> work);
extern Submit submit;

}  // namespace simt
