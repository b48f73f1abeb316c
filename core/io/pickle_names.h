#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// What a pickle may want called, by name. Private to the reader of pickles.
namespace saccade::io {

/// What is made instead.
enum class Make : uint8_t {
  dictionary,
  default_dictionary,
  record,
  list,
  tuple,
  text,
  path,
  device,
  opaque,
  latin1_bytes,
  tensor,
  tensor_of_any_type,
  parameter,
  tensor_subclass,
  numpy_type,
  numpy_scalar,
  numpy_array,
  numpy_array_of_buffer,
};

/// Empty for what is in no list and so is not done.
std::optional<Make> made_for(std::string_view name);

/// Throws Error: what is wanted, why it is not done, and what to do.
/// @param instance  wanted built, not called
[[noreturn]] void refuse_call(std::string_view name, bool instance);

/// Builtins' and copyreg's names in Python 3's words.
std::string name_today(std::string_view name);

}  // namespace saccade::io
