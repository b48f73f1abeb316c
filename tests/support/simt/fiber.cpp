#include "fiber.h"

#include <cstdint>
#include <cstdlib>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(SACCADE_SIMT_TSAN)  // this file itself is not instrumented, so the compiler's own macro is not defined
extern "C" {
void* __tsan_get_current_fiber(void);
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

#if defined(__x86_64__)
// Saves what a call must preserve, changes the stack, and returns on the other one.
extern "C" void simt_switch_stack(void** from, void* to);
asm(R"(
.text
.globl simt_switch_stack
.type simt_switch_stack, @function
simt_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch_stack, .-simt_switch_stack
)");
#endif

namespace simt {

#if defined(__SANITIZE_ADDRESS__) || defined(SACCADE_SIMT_TSAN)
constexpr size_t stack_bytes = 256 << 10;
#else
constexpr size_t stack_bytes = 64 << 10;
#endif

struct Fiber::State {
  char* stack = static_cast<char*>(std::malloc(stack_bytes));
  void (*entry)(void*) = nullptr;
  void* argument = nullptr;
#if defined(__x86_64__)
  void *here = nullptr, *caller = nullptr;
#else
  ucontext_t here, caller;
#endif
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  const void* caller_stack = nullptr;
  size_t caller_stack_bytes = 0;
#endif
#if defined(SACCADE_SIMT_TSAN)
  void *fiber = nullptr, *caller_fiber = nullptr;
#endif
};

namespace {

thread_local Fiber::State* running = nullptr;

void start() {
  Fiber::State& self = *running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &self.caller_stack, &self.caller_stack_bytes);
#endif
  self.entry(self.argument);
  std::abort();  // entry must not return
}

}  // namespace

Fiber::Fiber() : state_(std::make_unique<State>()) {}

Fiber::~Fiber() {
#if defined(SACCADE_SIMT_TSAN)
  if (state_->fiber) __tsan_destroy_fiber(state_->fiber);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(state_->stack, stack_bytes);
#endif
  std::free(state_->stack);
}

void Fiber::prepare(void (*entry)(void*), void* argument) {
  State& s = *state_;
  s.entry = entry;
  s.argument = argument;
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(s.stack, stack_bytes);  // frames of a run that was given up
  s.fake_stack = nullptr;
#endif
#if defined(SACCADE_SIMT_TSAN)
  if (s.fiber) __tsan_destroy_fiber(s.fiber);
  s.fiber = __tsan_create_fiber(0);
#endif
#if defined(__x86_64__)
  const auto top = reinterpret_cast<uintptr_t>(s.stack + stack_bytes) & ~uintptr_t{15};
  auto* frame = reinterpret_cast<void**>(top) - 8;  // six registers, the address to return to, and alignment
  for (int i = 0; i < 8; ++i) frame[i] = nullptr;
  frame[6] = reinterpret_cast<void*>(&start);
  s.here = frame;
#else
  getcontext(&s.here);
  s.here.uc_stack.ss_sp = s.stack;
  s.here.uc_stack.ss_size = stack_bytes;
  s.here.uc_link = nullptr;
  makecontext(&s.here, start, 0);
#endif
}

void Fiber::resume() {
  State& s = *state_;
  running = &s;
#if defined(__SANITIZE_ADDRESS__)
  void* own_fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&own_fake_stack, s.stack, stack_bytes);
#endif
#if defined(SACCADE_SIMT_TSAN)
  s.caller_fiber = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(s.fiber, 1);  // 1: the switch itself orders nothing
#endif
#if defined(__x86_64__)
  simt_switch_stack(&s.caller, s.here);
#else
  swapcontext(&s.caller, &s.here);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(own_fake_stack, nullptr, nullptr);
#endif
  running = nullptr;
}

void Fiber::yield([[maybe_unused]] bool last) {
  State& s = *running;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &s.fake_stack, s.caller_stack, s.caller_stack_bytes);
#endif
#if defined(SACCADE_SIMT_TSAN)
  __tsan_switch_to_fiber(s.caller_fiber, 1);
#endif
#if defined(__x86_64__)
  simt_switch_stack(&s.here, s.caller);
#else
  swapcontext(&s.here, &s.caller);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(s.fake_stack, &s.caller_stack, &s.caller_stack_bytes);
#endif
}

#if defined(SACCADE_SIMT_TSAN)
void happens_before_release(void* token) { __tsan_release(token); }
void happens_before_acquire(void* token) { __tsan_acquire(token); }
#else
void happens_before_release(void*) {}
void happens_before_acquire(void*) {}
#endif

}  // namespace simt
