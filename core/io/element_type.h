#pragma once

#include <saccade/core/io/byte_source.h>
#include <saccade/kernels/dtype.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Element types that files have and tensors need not, and what becomes of them.

namespace saccade::io {

/// Doubles become f32; booleans u8; small integers i32, larger unsigned ones i64; the rest stays as it is.
struct ElementType {
  std::string_view name;  ///< as safetensors says it: "F64"
  size_t bytes;           ///< of one element in the file
  DType becomes;
};

/// Null when no tensor can hold its values.
const ElementType* element_type(std::string_view name);

/// Reads `count` elements that lie one behind the other from `offset`, and writes them as type.becomes. Throws Error
/// when a U64 is larger than an i64 can be.
void read_elements(const ElementType& type, const ByteSource& source, uint64_t offset, uint64_t count, void* to);

/// Counts which types were cast, for the lines to say.
class CastCount {
 public:
  void add(const ElementType& type);
  /// "12 F64 tensors were cast to f32": one line a type, none for those that stay as they are.
  std::vector<std::string> words() const;

 private:
  std::vector<std::pair<const ElementType*, int>> counts_;
};

}  // namespace saccade::io
