#pragma once

#include <saccade/kernels/call.h>

#include <type_traits>

namespace saccade::test {

/// The call with all its operands given, each at an address of its own that nobody reads: for the meta backend, which
/// counts them.
template <class Call>
Call given(Call call) {
  static uint64_t somewhere[64];
  uint64_t* next = somewhere;
  Call::operands(call, [&](auto& pointer, int64_t, kernels::Use) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(next++);
  });
  return call;
}

}  // namespace saccade::test
