#pragma once

/// @file
/// Whether the numbers that flags are given make sense, before any work.

#include <fmt/format.h>
#include <saccade/kernels/error.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <string>
#include <utility>

namespace saccade::program {

/// Accepts finite numbers for which `good` holds. What is no number is left for CLI11 to refuse.
template <class Good>
CLI::Validator number(Good good, std::string expected) {
  const auto check = [good, expected = std::move(expected)](std::string& text) -> std::string {
    double value = 0;
    if (!CLI::detail::lexical_cast(text, value) || (std::isfinite(value) && good(value))) return "";
    return fmt::format("expected {}, got {}", expected, text);
  };
  return CLI::Validator(check, "");
}

inline CLI::Validator between(double low, double high) {
  return number([=](double v) { return v >= low && v <= high; }, fmt::format("a number from {} to {}", low, high));
}
inline CLI::Validator at_least(double low) {
  return number([=](double v) { return v >= low && v <= 1e15; }, fmt::format("a number, at least {}", low));
}
/// CLI11 takes -1 for the largest of the numbers without a sign.
inline CLI::Validator not_negative() {
  return number([](double v) { return v >= 0; }, "a number, at least 0");
}
inline CLI::Validator above_zero() {
  return number([](double v) { return v >= 1e-30 && v <= 1e30; }, "a number above 0");
}

/// Of a colour in [0, 1], and of its deviation.
inline CLI::Validator colour_mean() {
  return number([](double v) { return v >= 0 && v <= 1; },
                "numbers from 0 to 1 (of colours from 0 to 255: divide by 255)");
}
inline CLI::Validator colour_deviation() {
  return number([](double v) { return v >= 1e-6 && v <= 1; },
                "numbers above 0, at most 1 (of colours from 0 to 255: divide by 255)");
}

/// What `work` returns; an Error that it throws is said of a flag.
template <class Work>
auto of_flag(const std::string& flag, const std::string& value, Work work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(fmt::format("{} {}: {}", flag, value, error.what()));
  }
}

}  // namespace saccade::program
