#include <fmt/format.h>
#include <saccade/core/io/pickle_opcodes.h>

#include <algorithm>
#include <array>

namespace saccade::io {
namespace {

using A = PickleArgument;

constexpr PickleOpcode kOpcodes[] = {
    {'(', "MARK", A::none},
    {'.', "STOP", A::none},
    {'0', "POP", A::none},
    {'1', "POP_MARK", A::none},
    {'2', "DUP", A::none},
    {'F', "FLOAT", A::line},
    {'I', "INT", A::line},
    {'J', "BININT", A::bytes4},
    {'K', "BININT1", A::bytes1},
    {'L', "LONG", A::line},
    {'M', "BININT2", A::bytes2},
    {'N', "NONE", A::none},
    {'P', "PERSID", A::line},
    {'Q', "BINPERSID", A::none},
    {'R', "REDUCE", A::none},
    {'S', "STRING", A::line},
    {'T', "BINSTRING", A::text4},
    {'U', "SHORT_BINSTRING", A::text1},
    {'V', "UNICODE", A::line},
    {'X', "BINUNICODE", A::text4},
    {'a', "APPEND", A::none},
    {'b', "BUILD", A::none},
    {'c', "GLOBAL", A::two_lines},
    {'d', "DICT", A::none},
    {'}', "EMPTY_DICT", A::none},
    {'e', "APPENDS", A::none},
    {'g', "GET", A::line},
    {'h', "BINGET", A::bytes1},
    {'i', "INST", A::two_lines},
    {'j', "LONG_BINGET", A::bytes4},
    {'l', "LIST", A::none},
    {']', "EMPTY_LIST", A::none},
    {'o', "OBJ", A::none},
    {'p', "PUT", A::line},
    {'q', "BINPUT", A::bytes1},
    {'r', "LONG_BINPUT", A::bytes4},
    {'s', "SETITEM", A::none},
    {'t', "TUPLE", A::none},
    {')', "EMPTY_TUPLE", A::none},
    {'u', "SETITEMS", A::none},
    {'G', "BINFLOAT", A::bytes8},
    {'\x80', "PROTO", A::bytes1},
    {'\x81', "NEWOBJ", A::none},
    {'\x82', "EXT1", A::bytes1},
    {'\x83', "EXT2", A::bytes2},
    {'\x84', "EXT4", A::bytes4},
    {'\x85', "TUPLE1", A::none},
    {'\x86', "TUPLE2", A::none},
    {'\x87', "TUPLE3", A::none},
    {'\x88', "NEWTRUE", A::none},
    {'\x89', "NEWFALSE", A::none},
    {'\x8a', "LONG1", A::text1},
    {'\x8b', "LONG4", A::text4},
    {'B', "BINBYTES", A::text4},
    {'C', "SHORT_BINBYTES", A::text1},
    {'\x8c', "SHORT_BINUNICODE", A::text1},
    {'\x8d', "BINUNICODE8", A::text8},
    {'\x8e', "BINBYTES8", A::text8},
    {'\x8f', "EMPTY_SET", A::none},
    {'\x90', "ADDITEMS", A::none},
    {'\x91', "FROZENSET", A::none},
    {'\x92', "NEWOBJ_EX", A::none},
    {'\x93', "STACK_GLOBAL", A::none},
    {'\x94', "MEMOIZE", A::none},
    {'\x95', "FRAME", A::bytes8},
    {'\x96', "BYTEARRAY8", A::text8},
    {'\x97', "NEXT_BUFFER", A::none},
    {'\x98', "READONLY_BUFFER", A::none},
};

constexpr std::array<const PickleOpcode*, 256> kByCode = [] {
  std::array<const PickleOpcode*, 256> table = {};
  for (const PickleOpcode& opcode : kOpcodes) table[static_cast<uint8_t>(opcode.code)] = &opcode;
  return table;
}();

constexpr size_t kWindow = 65536;

}  // namespace

uint8_t PickleReader::byte(uint64_t at) {
  if (at < window_begin_ || at - window_begin_ >= window_.size()) {
    if (at >= source_.size()) throw Error("its pickle ends before it stops: the file is cut off or damaged");
    window_.resize(static_cast<size_t>(std::min<uint64_t>(kWindow, source_.size() - at)));
    source_.read(at, window_.data(), window_.size());
    window_begin_ = at;
  }
  return static_cast<uint8_t>(window_[static_cast<size_t>(at - window_begin_)]);
}

uint64_t PickleReader::number(uint64_t at, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= uint64_t{byte(at + static_cast<uint64_t>(i))} << (8 * i);
  return value;
}

uint64_t PickleReader::end_of_line(uint64_t from) {
  while (byte(from) != '\n') ++from;
  return from;
}

PickleInstruction PickleReader::next() {
  const uint64_t at = position_;
  const uint8_t code = byte(at);
  const PickleOpcode* opcode = kByCode[code];
  if (!opcode) throw Error(fmt::format("byte {} of its pickle is {:#04x}, which is no instruction", at, code));
  constexpr struct {
    uint8_t bytes = 0, length_bytes = 0, lines = 0;
  } kinds[] = {{}, {1}, {2}, {4}, {8}, {0, 1}, {0, 4}, {0, 8}, {0, 0, 1}, {0, 0, 2}};  // in the order of PickleArgument
  const auto [bytes, length_bytes, lines] = kinds[static_cast<size_t>(opcode->argument)];
  PickleInstruction result{opcode, at, at + 1 + length_bytes, bytes};
  if (length_bytes > 0) result.bytes = number(at + 1, length_bytes);
  for (int line = 0; line < lines; ++line) result.bytes = end_of_line(at + 1 + result.bytes + (line > 0)) - (at + 1);
  if (result.bytes > source_.size() - result.argument)
    throw Error(
        fmt::format("byte {} of its pickle ({}) wants {} bytes more, where it has {}: the file is cut off or "
                    "damaged",
                    at, opcode->name, result.bytes, source_.size() - result.argument));
  position_ = result.argument + result.bytes + (lines > 0);
  return result;
}

uint64_t pickle_end(const ByteSource& source, uint64_t from) {
  PickleReader reader(source, from);
  while (reader.next().opcode->code != '.') {
  }
  return reader.position();
}

}  // namespace saccade::io
