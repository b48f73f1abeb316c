#pragma once

#include <cstddef>
#include <memory>

/// A function with a stack of its own, which runs until it yields and goes on where it left off. Switches tell the
/// address and thread sanitizers what happens; to the latter each fiber is a thread.
namespace simt {

class Fiber {
 public:
  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Prepares to call entry(argument) on this stack; what ran there before is given up. entry must call yield() as its
  /// last act and never returns.
  void prepare(void (*entry)(void*), void* argument);
  /// Runs it until it yields. To be called from the thread's own stack.
  void resume();
  /// From inside a fiber: back to whoever resumed it. `last`: it will not be resumed any more.
  static void yield(bool last = false);

  struct State;

 private:
  std::unique_ptr<State> state_;
};

/// @name What one thread did before release() is seen by those that acquire() the same token later. Without the thread
/// sanitizer they do nothing.
/// @{
void happens_before_release(void* token);
void happens_before_acquire(void* token);
/// @}

}  // namespace simt
