#pragma once

#include <saccade/core/io/byte_source.h>

#include <cstdint>
#include <string_view>
#include <vector>

/// @file
/// The instructions of Python's pickles, protocols 0 to 5 (Lib/pickletools.py describes them).

namespace saccade::io {

/// What follows an instruction: that many bytes; a text behind its length; lines.
enum class PickleArgument : uint8_t { none, bytes1, bytes2, bytes4, bytes8, text1, text4, text8, line, two_lines };

struct PickleOpcode {
  char code;
  std::string_view name;  ///< as pickletools has it: "BINPUT"
  PickleArgument argument;
};

struct PickleInstruction {
  const PickleOpcode* opcode;
  uint64_t at;               ///< of its first byte
  uint64_t argument, bytes;  ///< without the length and the ends of lines
};

/// Takes pickles apart without carrying anything out.
class PickleReader {
 public:
  /// Begins at byte `from`; the source must outlive this.
  explicit PickleReader(const ByteSource& source, uint64_t from = 0) : source_(source), position_(from) {}
  /// Throws Error where the bytes end or are no instruction.
  PickleInstruction next();
  uint64_t position() const { return position_; }

 private:
  uint8_t byte(uint64_t at);
  uint64_t number(uint64_t at, int bytes);
  uint64_t end_of_line(uint64_t from);

  const ByteSource& source_;
  uint64_t position_;
  std::vector<char> window_;
  uint64_t window_begin_ = 0;
};

/// Where the pickle that begins at `from` ends. Throws Error when it does not.
uint64_t pickle_end(const ByteSource& source, uint64_t from);

}  // namespace saccade::io
