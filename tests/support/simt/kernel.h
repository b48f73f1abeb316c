#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <source_location>
#include <string_view>

/// What a kernel sees of the emulator; kernels/cuda/simt.h gives it CUDA's meaning.
namespace simt {

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};

/// Where the running thread stands.
struct Here {
  Dim thread, block, block_dim, grid_dim;
};
const Here& here();

using Site = std::source_location;

enum class Access : uint8_t { load, store, atomic };
/// To be called before each access: checks the alignment, and counts it while Options::measure is set.
void touch(const void* address, size_t bytes, Access access, Site where);

/// All threads of the block meet here, on the same line.
void sync_block(Site where);
/// All lanes of the warp meet here.
void sync_warp(uint32_t mask, Site where);
/// What this thread wrote before is seen by whoever passes a fence later.
void fence();

enum class Shuffle : uint8_t { down, exclusive_or, index };
/// The value of lane (own + by), (own ^ by) or by; its own where that lies outside the warp.
uint64_t shuffle(Shuffle kind, uint32_t mask, uint64_t value, int by, Site where);
/// One bit for each lane whose predicate is true.
uint32_t ballot(uint32_t mask, bool predicate, Site where);

/// The block's array for this tag, filled with NaN when it is asked for the first time.
void* shared_array(const void* tag, size_t bytes, const char* name);
/// The block's array whose size the launch gave.
void* dynamic_shared_array();

/// Runs `thread` once for each thread of the grid, through submit().
void run(std::string_view kernel, Dim grid, Dim block, size_t shared_bytes, void* stream, std::function<void()> thread);

template <class To, class From>
To bits_to(From from) {
  static_assert(sizeof(From) <= 8 && sizeof(To) <= 8);
  To to{};
  std::memcpy(&to, &from, sizeof(to) < sizeof(from) ? sizeof(to) : sizeof(from));
  return to;
}

/// "[with auto kernel = ns::f<float>; Args = ...]" -> "f<float>".
constexpr std::string_view kernel_name(std::string_view function) {
  constexpr std::string_view mark = "kernel = ";
  const size_t begin = function.find(mark);
  if (begin == std::string_view::npos) return function;
  function.remove_prefix(begin + mark.size());
  size_t end = 0, after_scope = 0;
  int depth = 0;
  for (; end < function.size() && (depth > 0 || (function[end] != ';' && function[end] != ']')); ++end) {
    if (function[end] == '<' || function[end] == '{' || function[end] == '(') ++depth;
    if (function[end] == '>' || function[end] == '}' || function[end] == ')') --depth;
    if (depth == 0 && end > 0 && function[end] == ':' && function[end - 1] == ':') after_scope = end + 1;
  }
  return function.substr(after_scope, end - after_scope);
}

template <auto kernel, class... Arguments>
void launch(Dim grid, Dim block, size_t shared_bytes, void* stream, Arguments... arguments) {
  run(kernel_name(__PRETTY_FUNCTION__), grid, block, shared_bytes, stream, [=] { kernel(arguments...); });
}

}  // namespace simt
