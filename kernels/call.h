#pragma once

#include <saccade/kernels/dtype.h>

#include <cstddef>
#include <cstdint>

/// @file
/// A call of a kernel is a value: a struct of shapes, options and pointers, each named for what it is. The same struct
/// goes to the kernels of every device, to the meta device's costs and to the timer of calibrations. A call has
/// - `name`;
/// - `operands(call, visit)`: visit(pointer, bytes, Use) for each array that it touches.
///   An optional one that is null was not given;
///   of a rehearsal, which has no memory, all pointers may be null;
/// - `shape(call, visit)`: visit(member) for all else that its time depends on. Where neither segments nor arithmetic
///   tell one from another, time grows with the first member;
/// - `flops()`, 2 a multiply-accumulate, of matrix products and convolutions;
/// - `workspace`, where a device may need scratch: Backend::workspace(call) bytes, which the caller provides.
///
/// Pointers are the device's, dense and row-major; an image argument is the rows of all its segments, one after the
/// other, each row `channels` elements (NHWC). Outputs never alias inputs unless a comment allows it.

namespace saccade::kernels {

/// What a call does with an operand.
enum class Use : uint8_t {
  read,
  fresh,   ///< read, and what the call before has just written, as a rule: the caches hold it
  shared,  ///< of an op in several calls: what the call that completes it counts
  write,
  update,  ///< read and written
};

/// The same of an operand that may be left out.
constexpr Use optional(Use use) { return static_cast<Use>(static_cast<uint8_t>(use) | 16); }
constexpr bool is_optional(Use use) { return (static_cast<uint8_t>(use) & 16) != 0; }
constexpr Use without_optional(Use use) { return static_cast<Use>(static_cast<uint8_t>(use) & 15); }

constexpr int64_t bytes_of(DType dtype, int64_t elements) { return static_cast<int64_t>(size_of(dtype)) * elements; }
constexpr int64_t bytes_of_floats(int64_t elements) { return bytes_of(DType::f32, elements); }

/// Several operands of as many bytes.
void visit_each(auto&& visit, int64_t bytes, Use use, auto&... pointers) { (visit(pointers, bytes, use), ...); }

/// What a device computes: run() for each call of the list, and the bytes of workspace that it wants.
template <class... Calls>
class Computes;
template <>
class Computes<> {
 public:
  virtual ~Computes() = default;
  void run() = delete;
  void workspace() = delete;
};
template <class First, class... Rest>
class Computes<First, Rest...> : public Computes<Rest...> {
 public:
  using Computes<Rest...>::run;
  using Computes<Rest...>::workspace;
  virtual void run(const First& call) = 0;
  virtual size_t workspace(const First&) const { return 0; }
};

/// Implements Computes<Calls...>, from which Base derives, by `compute(call)` and `scratch(call)` of Device, which may
/// be templates.
template <class Device, class Base, class... Calls>
class ComputesBy : public Base {};
template <class Device, class Base, class First, class... Rest>
class ComputesBy<Device, Base, First, Rest...> : public ComputesBy<Device, Base, Rest...> {
 public:
  using ComputesBy<Device, Base, Rest...>::run;
  using ComputesBy<Device, Base, Rest...>::workspace;
  void run(const First& call) override { static_cast<Device*>(this)->compute(call); }
  size_t workspace(const First& call) const override { return static_cast<const Device*>(this)->scratch(call); }
};

/// The types of all calls: with<Template> is Template<Calls...>.
template <class... Calls>
struct CallList {
  template <template <class...> class Template, class... Before>
  using with = Template<Before..., Calls...>;
};

}  // namespace saccade::kernels
