#pragma once

#include <saccade/kernels/backend.h>
#include <saccade/kernels/rehearsal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace saccade::plan {

/// A call made ready to run: what memory it touches, and itself.
struct Prepared {
  struct Operand {
    size_t bytes = 0;
    bool fresh = false;  ///< the op before has just written it
    bool index = false;  ///< of integers, which may count something: zeros
  };
  std::vector<Operand> operands = {};
  std::function<void(std::span<void* const>)> run = {};  ///< takes the operands' addresses
};
Prepared prepare(kernels::Backend& backend, const kernels::Call& call);

/// True of calls that neither segments nor arithmetic tell one from another: their time grows with an extent, of rows
/// or elements.
bool grows(const kernels::Call& call);
int64_t extent_of(const kernels::Call& call);
/// The same call, one that grows, of another extent.
kernels::Call with_extent(const kernels::Call& call, int64_t extent);

/// All that the time of a call depends on.
std::string key_of(const kernels::Call& call);

/// Makes it the same call on less: fewer images, channels or rows. False when there is nothing left to halve.
bool halve(kernels::Call& call);

/// Runs calls on a backend in scratch memory of its own and times them.
class CallTimer {
 public:
  /// @param memory  scratch at most, in bytes
  CallTimer(kernels::Backend& backend, int64_t memory);
  ~CallTimer();
  CallTimer(const CallTimer&) = delete;
  CallTimer& operator=(const CallTimer&) = delete;

  /// Median of a few runs, each with caches as a training step leaves them. A call that does not fit is measured
  /// smaller, and its time scaled by arithmetic, or by traffic where there is none.
  double seconds(const kernels::Call& call);
  void release();
  int64_t most_bytes() const { return most_bytes_; }

 private:
  std::byte* memory(size_t bytes);
  void set_caches(const Prepared& prepared, std::span<void* const> addresses);

  kernels::Backend& backend_;
  size_t limit_, eviction_bytes_;
  std::byte* base_ = nullptr;
  size_t held_ = 0;
  int64_t most_bytes_ = 0;
};

}  // namespace saccade::plan
