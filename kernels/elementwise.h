#pragma once

#include <saccade/kernels/call.h>

#include <string_view>

/// @file
/// Calls on elements: memory, conversions, and maps y = f(x).

namespace saccade::kernels {

/// y = value, of any dtype.
struct Fill {
  DType dtype = DType::f32;
  int64_t n = 0;
  float value = 0;
  void* y = nullptr;
  static constexpr std::string_view name = "fill";
  static void operands(auto& c, auto&& visit) { visit(c.y, bytes_of(c.dtype, c.n), Use::write); }
  static void shape(auto& c, auto&& visit) { visit(c.n), visit(c.dtype); }
};

struct Copy {
  int64_t bytes = 0;
  const void* x = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "copy";
  static void operands(auto& c, auto&& visit) { visit(c.x, c.bytes, Use::fresh), visit(c.y, c.bytes, Use::write); }
  static void shape(auto& c, auto&& visit) { visit(c.bytes); }
};

/// From any dtype to any other.
struct Cast {
  DType from = DType::f32, to = DType::f32;
  int64_t n = 0;
  const void* x = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "cast";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, bytes_of(c.from, c.n), Use::fresh);
    visit(c.y, bytes_of(c.to, c.n), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.n), visit(c.from), visit(c.to); }
};

/// Functions of one element.
enum class Unary : uint8_t { relu, sigmoid, gelu };
constexpr std::string_view name_of(Unary function) {
  constexpr std::string_view names[] = {"relu", "sigmoid", "gelu"};
  return names[static_cast<size_t>(function)];
}

/// Whether the gradient is taken from y = f(x), which the next op keeps anyway; else it is from x.
constexpr bool keeps_result(Unary function) { return function != Unary::gelu; }

/// Functions of two elements.
enum class Binary : uint8_t { add, multiply };
constexpr std::string_view name_of(Binary function) { return function == Binary::add ? "add" : "multiply"; }

/// What maps begin with.
template <class Function>
struct OnElements {
  Function function = {};
  DType dtype = DType::f32;
  int64_t n = 0;
  static void shape(auto& c, auto&& visit) { visit(c.n), visit(c.dtype), visit(c.function); }
  int64_t bytes() const { return bytes_of(dtype, n); }
};

/// y = f(x); y may be x.
struct Map : OnElements<Unary> {
  const void* x = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "map";
  static void operands(auto& c, auto&& visit) { visit(c.x, c.bytes(), Use::fresh), visit(c.y, c.bytes(), Use::write); }
};

/// dx = dy f'(x), from `kept`, which is y or x as keeps_result() says; dx may be dy.
struct MapGradient : OnElements<Unary> {
  const void *kept = nullptr, *dy = nullptr;
  void* dx = nullptr;
  static constexpr std::string_view name = "map_gradient";
  static void operands(auto& c, auto&& visit) {
    visit(c.kept, c.bytes(), Use::read);
    visit(c.dy, c.bytes(), Use::fresh);
    visit(c.dx, c.bytes(), Use::write);
  }
};

/// y = f(a, b); y may be a or b.
struct Combine : OnElements<Binary> {
  const void *a = nullptr, *b = nullptr;
  void* y = nullptr;
  static constexpr std::string_view name = "combine";
  static void operands(auto& c, auto&& visit) {
    visit(c.a, c.bytes(), Use::fresh);
    visit(c.b, c.bytes(), Use::read);
    visit(c.y, c.bytes(), Use::write);
  }
};

/// y = factor x, or where `by` is given *by x: a factor that lies on the device (a scalar gradient); y may be x.
struct Scale {
  DType dtype = DType::f32;
  int64_t n = 0;
  const void* x = nullptr;
  float factor = 1;
  void* y = nullptr;
  const float* by = nullptr;
  static constexpr std::string_view name = "scale";
  static void operands(auto& c, auto&& visit) {
    visit(c.x, bytes_of(c.dtype, c.n), Use::fresh);
    visit(c.y, bytes_of(c.dtype, c.n), Use::write);
    visit(c.by, bytes_of_floats(1), optional(Use::read));
  }
  static void shape(auto& c, auto&& visit) { visit(c.n), visit(c.dtype); }
};

}  // namespace saccade::kernels
