#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace saccade {

/// Element types of a tensor.
enum class DType : uint8_t { f32, f16, bf16, i32, i64, u8 };

/// Bytes of one element.
constexpr size_t size_of(DType dtype) {
  constexpr size_t sizes[] = {4, 2, 2, 4, 8, 1};
  return sizes[static_cast<size_t>(dtype)];
}

constexpr std::string_view name_of(DType dtype) {
  constexpr std::string_view names[] = {"f32", "f16", "bf16", "i32", "i64", "u8"};
  return names[static_cast<size_t>(dtype)];
}

constexpr bool is_floating(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

/// bfloat16: the upper half of a float; conversion rounds to nearest even and keeps NaN.
struct BFloat16 {
  uint16_t bits;
  static BFloat16 from(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40)};
    return {static_cast<uint16_t>((u + 0x7fff + ((u >> 16) & 1)) >> 16)};
  }
  float to_float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

/// IEEE binary16: conversion rounds to nearest even, overflows to infinity, keeps subnormals and NaN.
struct Half {
  uint16_t bits;
  static Half from(float value) {
    const uint32_t u = std::bit_cast<uint32_t>(value), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
    if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds above 65504
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns the significand, and the addition rounds
      const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
      return {static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(aligned) - 0x3f000000u))};
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
  }
  float to_float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, m = bits & 0x3ffu;
    if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
    if (exponent == 0) {
      const float f = static_cast<float>(m) * 0x1p-24f;
      return sign ? -f : f;
    }
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (m << 13));
  }
};

template <class T>
struct Type {
  using type = T;
};

/// Calls body(Type<T>), T the type of the elements.
template <class Body>
void with_type(DType dtype, Body body) {
  if (dtype == DType::f32) return body(Type<float>{});
  if (dtype == DType::f16) return body(Type<Half>{});
  if (dtype == DType::bf16) return body(Type<BFloat16>{});
  if (dtype == DType::i32) return body(Type<int32_t>{});
  if (dtype == DType::i64) return body(Type<int64_t>{});
  body(Type<uint8_t>{});
}

}  // namespace saccade
