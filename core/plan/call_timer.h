#pragma once

#include <saccade/kernels/backend.h>
#include <saccade/kernels/rehearsal.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace saccade::plan {

/// A call made ready to run: what memory it touches, and itself.
struct Prepared {
  struct Operand {
    size_t bytes = 0;
    bool warm = false;  ///< the op before has just written it
  };
  std::vector<Operand> operands = {};
  std::function<void(std::span<void* const>)> run = {};  ///< takes the operands' addresses
};
/// @param call  its segments must live as long as the result
Prepared prepare(kernels::Backend& backend, const kernels::Call& call);

/// The same call on less: fewer images, channels or rows. False when there is nothing left to halve.
/// @param segments  those of `call`, which are made smaller in place
bool halve(kernels::Call& call, Segments& segments);

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
