#include <fmt/format.h>
#include <saccade/core/io/pickle.h>
#include <saccade/core/io/pickle_opcodes.h>
#include <saccade/core/io/quoted_text.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>
#include <type_traits>

namespace saccade::io {
namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

constexpr size_t kDeepest = 1000;

Value of_integer(int64_t integer, Kind kind = Kind::integer) { return {.kind = kind, .integer = integer}; }

Value of_real(double real) { return {.kind = Kind::real, .real = real}; }

std::string_view word_for(Kind kind) {
  constexpr std::string_view words[] = {"None",         "a boolean", "a number",     "a number", "a text",
                                        "bytes",        "a name",    "a NumPy type", "a list",   "a tuple",
                                        "a dictionary", "a storage", "a tensor",     "an object"};
  return words[static_cast<size_t>(kind)];
}

/// The machine that pickles are programs for: a stack with marks, and a memo.
class Machine {
 public:
  Machine(Pickle& pickle, std::string_view bytes, MemoryBudget& budget)
      : pickle_(pickle), bytes_(bytes), stack_(&budget), marks_(&budget), memo_(&budget) {}

  Value run() {
    const ByteSource source(std::span<const char>(bytes_.data(), bytes_.size()));
    PickleReader reader(source);
    for (;;) {
      now_ = reader.next();
      argument_ = bytes_.substr(static_cast<size_t>(now_.argument), static_cast<size_t>(now_.bytes));
      if (now_.opcode->code == '.') {
        const Value result = pop();
        if (!marks_.empty()) wrong("stops between a MARK and what takes it");
        return result;
      }
      carry_out(now_.opcode->code);
    }
  }

 private:
  template <class What>
  [[noreturn]] void wrong(const What& what) const {
    throw Error(fmt::format("byte {} of its pickle ({}) {}", now_.at, now_.opcode->name, what));
  }

  void push(const Value& value) { stack_.push_back(value); }
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  Value& top() {
    if (stack_.size() <= floor()) wrong("takes a value where there is none");
    return stack_.back();
  }
  Value pop() {
    const Value value = top();
    stack_.pop_back();
    return value;
  }
  /// What lies above the last mark, which goes with them once `done` is called.
  std::span<const Value> marked() const {
    if (marks_.empty()) wrong("takes what follows a MARK where there is none");
    return std::span<const Value>(stack_).subspan(marks_.back());
  }
  void drop_marked() {
    stack_.resize(marks_.back());
    marks_.pop_back();
  }
  Value from_marked(Kind kind) {
    const std::span<const Value> values = marked();
    if (kind == Kind::dictionary && values.size() % 2 != 0) wrong("has a key without a value");
    const Value result = pickle_.container(kind, values);
    drop_marked();
    return result;
  }
  void push_tuple(size_t count) {
    if (stack_.size() - floor() < count) wrong("takes a value where there is none");
    const Value result = pickle_.container(Kind::tuple, std::span<const Value>(stack_).last(count));
    stack_.resize(stack_.size() - count);
    push(result);
  }

  template <class T>
  T number() const {
    T value;
    std::memcpy(&value, argument_.data(), sizeof(T));
    return value;
  }
  /// Little-endian two's complement of any length. What an int64 cannot hold (states of random numbers) is not needed.
  Value long_integer() const {
    if (argument_.empty()) return of_integer(0);
    if (argument_.size() > sizeof(int64_t)) return of_integer(0, Kind::opaque);
    int64_t value = static_cast<signed char>(argument_.back()) < 0 ? -1 : 0;
    std::memcpy(&value, argument_.data(), argument_.size());
    return of_integer(value);
  }
  template <class T>
  T parsed(std::string_view text) const {
    T value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size())
      wrong(fmt::format("has {} for a number", in_quotes(text)));
    return value;
  }
  Value text_integer() const {
    std::string_view text = argument_;
    if (now_.opcode->code == 'I' && text == "00") return of_integer(0, Kind::boolean);
    if (now_.opcode->code == 'I' && text == "01") return of_integer(1, Kind::boolean);
    if (text.ends_with('L')) text.remove_suffix(1);
    return of_integer(parsed<int64_t>(text));
  }
  Value text_line(bool quoted) {
    std::string_view text = argument_;
    if (quoted) {
      if (text.size() < 2 || (text[0] != '\'' && text[0] != '"') || text.back() != text[0]) wrong("lacks its quotes");
      text = text.substr(1, text.size() - 2);
    }
    if (text.find('\\') != text.npos)
      wrong("has a text with escapes, as protocol 0 writes them: save it with protocol 2, as torch.save does");
    return pickle_.text(Kind::text, text);
  }

  Value name(std::string_view module, std::string_view name) {
    return pickle_.owned_text(Kind::name, {module, ".", name});
  }
  Value name_of_lines() {
    const size_t middle = argument_.find('\n');
    return name(argument_.substr(0, middle), argument_.substr(middle + 1));
  }
  Value name_of_stack() {
    const Value last = pop(), module = pop();
    if (last.kind != Kind::text || module.kind != Kind::text) wrong("wants a name that is no text imported");
    return name(module.text(), last.text());
  }

  Value make(const Value& what, std::span<const Value> arguments, bool instance) {
    if (what.kind != Kind::name) wrong(fmt::format("wants {} called, which is no name", word_for(what.kind)));
    return make_pickled_object(pickle_, what.text(), arguments, instance);
  }
  std::span<const Value> arguments_of(const Value& tuple) const {
    if (tuple.kind != Kind::tuple) wrong(fmt::format("gives {} for arguments", word_for(tuple.kind)));
    return tuple.items->values;
  }

  void append(Value& to, std::span<const Value> values) {
    if (to.kind == Kind::opaque) return;
    if (to.kind != Kind::list) wrong(fmt::format("appends to {}", word_for(to.kind)));
    to.items->values.insert(to.items->values.end(), values.begin(), values.end());
  }
  void set_items(Value& to, std::span<const Value> values) {
    if (to.kind != Kind::dictionary)
      wrong(fmt::format("sets an item of {}, which is no dictionary", word_for(to.kind)));
    if (values.size() % 2 != 0) wrong("has a key without a value");
    to.items->values.insert(to.items->values.end(), values.begin(), values.end());
  }
  /// The container that items above the last mark go to.
  Value& below_mark() {
    marked();
    const size_t mark = marks_.back(), below = marks_.size() > 1 ? marks_[marks_.size() - 2] : 0;
    if (mark <= below) wrong("takes a value where there is none");
    return stack_[mark - 1];
  }

  void memorize(uint64_t index) {
    const Value value = top();
    if (index >= memo_.size()) {
      // Writers number from 0 on; a memo of 2^32 places is an attack.
      if (index > 2 * memo_.size() + 1024)
        wrong(fmt::format("puts something into place {} of its memo, where {} are taken", index, memo_.size()));
      memo_.resize(static_cast<size_t>(index) + 1, Value{Kind::opaque, kNothing, {}});
    }
    memo_[static_cast<size_t>(index)] = value;
  }
  void recall(uint64_t index) {
    if (index >= memo_.size() || memo_[static_cast<size_t>(index)].length == kNothing)
      wrong(fmt::format("gets what place {} of its memo holds: nothing", index));
    push(memo_[static_cast<size_t>(index)]);
  }
  void carry_out(char code);

  static constexpr uint32_t kNothing = std::numeric_limits<uint32_t>::max();  // the length of no value

  Pickle& pickle_;
  std::string_view bytes_, argument_;
  PickleInstruction now_{};
  std::pmr::vector<Value> stack_;
  std::pmr::vector<size_t> marks_;
  std::pmr::vector<Value> memo_;
};

void Machine::carry_out(char code) {
  switch (code) {
    case '\x80':  // PROTO
      if (number<uint8_t>() > 5) wrong(fmt::format("has protocol {}; 0 to 5 are known", number<uint8_t>()));
      return;
    case '\x95':  // FRAME
      if (number<uint64_t>() > bytes_.size() - now_.argument - now_.bytes) wrong("has a frame that ends behind it");
      return;
    case '(':  // MARK
      if (marks_.size() == kDeepest) wrong(fmt::format("nests more than {} deep", kDeepest));
      marks_.push_back(stack_.size());
      return;
    case '0':  // POP: a mark when nothing lies above it
      if (!marks_.empty() && stack_.size() == marks_.back())
        marks_.pop_back();
      else
        pop();
      return;
    case '1':  // POP_MARK
      marked();
      return drop_marked();
    case '2':  // DUP
      return push(Value(top()));

    case 'N':  // NONE
      return push({});
    case '\x88':  // NEWTRUE
      return push(of_integer(1, Kind::boolean));
    case '\x89':  // NEWFALSE
      return push(of_integer(0, Kind::boolean));
    case 'J':  // BININT
      return push(of_integer(number<int32_t>()));
    case 'K':  // BININT1
      return push(of_integer(number<uint8_t>()));
    case 'M':  // BININT2
      return push(of_integer(number<uint16_t>()));
    case '\x8a':  // LONG1
    case '\x8b':  // LONG4
      return push(long_integer());
    case 'I':  // INT
    case 'L':  // LONG
      return push(text_integer());
    case 'F':  // FLOAT
      return push(of_real(parsed<double>(argument_)));
    case 'G':  // BINFLOAT: big-endian
      return push(of_real(std::bit_cast<double>(__builtin_bswap64(number<uint64_t>()))));

    case 'X':     // BINUNICODE
    case '\x8c':  // SHORT_BINUNICODE
    case '\x8d':  // BINUNICODE8
    case 'T':     // BINSTRING
    case 'U':     // SHORT_BINSTRING
      return push(pickle_.text(Kind::text, argument_));
    case 'B':     // BINBYTES
    case 'C':     // SHORT_BINBYTES
    case '\x8e':  // BINBYTES8
    case '\x96':  // BYTEARRAY8
      return push(pickle_.text(Kind::bytes, argument_));
    case 'S':  // STRING
      return push(text_line(true));
    case 'V':  // UNICODE
      return push(text_line(false));

    case ']':     // EMPTY_LIST
    case '\x8f':  // EMPTY_SET
      return push(pickle_.container(Kind::list, {}));
    case '}':  // EMPTY_DICT
      return push(pickle_.container(Kind::dictionary, {}));
    case ')':  // EMPTY_TUPLE
      return push(pickle_.container(Kind::tuple, {}));
    case '\x85':  // TUPLE1
    case '\x86':  // TUPLE2
    case '\x87':  // TUPLE3
      return push_tuple(static_cast<size_t>(static_cast<uint8_t>(code) - 0x84));
    case 't':  // TUPLE
      return push(from_marked(Kind::tuple));
    case 'l':     // LIST
    case '\x91':  // FROZENSET
      return push(from_marked(Kind::list));
    case 'd':  // DICT
      return push(from_marked(Kind::dictionary));
    case 'a': {  // APPEND
      const Value value = pop();
      return append(top(), {&value, 1});
    }
    case 'e':     // APPENDS
    case '\x90':  // ADDITEMS
      append(below_mark(), marked());
      return drop_marked();
    case 's': {  // SETITEM
      const Value value = pop(), key = pop();
      const Value pair[] = {key, value};
      return set_items(top(), pair);
    }
    case 'u':  // SETITEMS
      set_items(below_mark(), marked());
      return drop_marked();

    case 'p':  // PUT
      return memorize(parsed<uint64_t>(argument_));
    case 'q':  // BINPUT
      return memorize(number<uint8_t>());
    case 'r':  // LONG_BINPUT
      return memorize(number<uint32_t>());
    case '\x94':  // MEMOIZE
      return memorize(memo_.size());
    case 'g':  // GET
      return recall(parsed<uint64_t>(argument_));
    case 'h':  // BINGET
      return recall(number<uint8_t>());
    case 'j':  // LONG_BINGET
      return recall(number<uint32_t>());

    case 'c':  // GLOBAL
      return push(name_of_lines());
    case '\x93':  // STACK_GLOBAL
      return push(name_of_stack());
    case 'R':       // REDUCE
    case '\x81': {  // NEWOBJ
      const Value arguments = pop(), what = pop();
      return push(make(what, arguments_of(arguments), code == '\x81'));
    }
    case '\x92': {  // NEWOBJ_EX: arguments by name as well
      const Value named = pop(), arguments = pop(), what = pop();
      if (named.kind != Kind::dictionary) wrong(fmt::format("gives {} for named arguments", word_for(named.kind)));
      if (!named.items->values.empty() && what.kind == Kind::name)
        wrong(fmt::format("wants {} built with arguments by name", in_quotes(what.text())));
      return push(make(what, arguments_of(arguments), true));
    }
    case 'i': {  // INST
      const Value what = name_of_lines(), result = make(what, marked(), true);
      drop_marked();
      return push(result);
    }
    case 'o': {  // OBJ
      const std::span<const Value> values = marked();
      if (values.empty()) wrong("takes a value where there is none");
      const Value result = make(values[0], values.subspan(1), true);
      drop_marked();
      return push(result);
    }
    case 'b': {  // BUILD
      const Value state = pop();
      if (top().kind == Kind::name)
        wrong(fmt::format("wants the state of {} changed, which is a name only", in_quotes(top().text())));
      return build_pickled_object(pickle_, top(), state);
    }
    case 'Q': {  // BINPERSID
      const Value id = pop();
      return push(make_pickled_storage(pickle_, id));
    }
    case 'P':  // PERSID
      wrong(fmt::format("refers to {}, which is no storage of PyTorch's", in_quotes(argument_)));
    case '\x82':  // EXT1
    case '\x83':  // EXT2
    case '\x84':  // EXT4
      wrong("wants something called that only the program knows which wrote it (an extension code)");
    default:  // NEXT_BUFFER, READONLY_BUFFER
      wrong("takes a buffer from outside the file: save it without buffer_callback");
  }
}

}  // namespace

Pickle::Pickle(std::string_view bytes, MemoryBudget& budget)
    : budget_(budget), texts_(&budget), containers_(&budget), storages_(&budget), tensors_(&budget) {
  root_ = Machine(*this, bytes, budget).run();
}

Value Pickle::text(Kind kind, std::string_view lasting) {
  if (lasting.size() >= std::numeric_limits<uint32_t>::max()) throw Error("its pickle has a text of 4 GiB or more");
  return {.kind = kind, .length = static_cast<uint32_t>(lasting.size()), .data = lasting.data()};
}

Value Pickle::owned_text(Kind kind, std::initializer_list<std::string_view> parts) {
  std::pmr::string& text = texts_.emplace_back();
  size_t length = 0;
  for (const std::string_view part : parts) length += part.size();
  text.reserve(length);
  for (const std::string_view part : parts) text += part;
  return this->text(kind, text);
}

Value Pickle::container(Kind kind, std::span<const Value> values) {
  PickleItems& items = containers_.emplace_back(
      PickleItems{std::pmr::vector<Value>(values.begin(), values.end(), containers_.get_allocator().resource())});
  return {.kind = kind, .items = &items};
}

Value Pickle::storage(const PickleStorage& storage) {
  return {.kind = Kind::storage, .storage = &storages_.emplace_back(storage)};
}

Value Pickle::tensor(PickleTensor tensor) {
  charge_extents(tensor.shape.capacity());
  return {.kind = Kind::tensor, .tensor = &tensors_.emplace_back(std::move(tensor))};
}

}  // namespace saccade::io
