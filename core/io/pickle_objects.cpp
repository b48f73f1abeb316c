#include <fmt/format.h>
#include <saccade/core/io/element_type.h>
#include <saccade/core/io/pickle.h>
#include <saccade/core/io/pickle_names.h>
#include <saccade/core/io/quoted_text.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>

namespace saccade::io {
namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

struct Named {
  std::string_view name, type;
};
constexpr Named kStorages[] = {{"Float", "F32"}, {"Double", "F64"}, {"Half", "F16"},  {"BFloat16", "BF16"},
                               {"Long", "I64"},  {"Int", "I32"},    {"Short", "I16"}, {"Char", "I8"},
                               {"Byte", "U8"},   {"Bool", "BOOL"},  {"Untyped", ""}};
constexpr Named kTorchTypes[] = {{"torch.float32", "F32"},   {"torch.float64", "F64"}, {"torch.float16", "F16"},
                                 {"torch.bfloat16", "BF16"}, {"torch.int64", "I64"},   {"torch.int32", "I32"},
                                 {"torch.int16", "I16"},     {"torch.int8", "I8"},     {"torch.uint8", "U8"},
                                 {"torch.uint16", "U16"},    {"torch.uint32", "U32"},  {"torch.uint64", "U64"},
                                 {"torch.bool", "BOOL"}};
constexpr Named kNumpyTypes[] = {{"f4", "F32"}, {"f8", "F64"}, {"f2", "F16"}, {"i8", "I64"},
                                 {"i4", "I32"}, {"i2", "I16"}, {"i1", "I8"},  {"u1", "U8"},
                                 {"u2", "U16"}, {"u4", "U32"}, {"u8", "U64"}, {"b1", "BOOL"}};

template <size_t n>
const Named* named(const Named (&table)[n], std::string_view name) {
  const auto* at = std::find_if(table, table + n, [&](const Named& each) { return each.name == name; });
  return at == table + n ? nullptr : at;
}

/// The arguments of one call, each asked for by place and kind.
class Arguments {
 public:
  Arguments(std::string_view name, std::span<const Value> values) : name_(name), values_(values) {}

  [[noreturn]] void wrong(std::string_view what) const {
    throw Error(fmt::format("it calls {} with {}", in_quotes(name_), what));
  }
  size_t size() const { return values_.size(); }
  const Value& at(size_t i) const {
    if (i >= values_.size()) wrong(fmt::format("{} arguments only", values_.size()));
    return values_[i];
  }
  const Value& at(size_t i, Kind kind) const {
    if (at(i).kind != kind) wrong(fmt::format("an argument {} that is of another kind", i + 1));
    return values_[i];
  }
  int64_t whole(size_t i) const {
    const int64_t value = at(i, Kind::integer).integer;
    if (value < 0) wrong(fmt::format("the negative number {}", value));
    return value;
  }
  std::span<const Value> sequence(size_t i) const {
    if (at(i).kind != Kind::tuple && at(i).kind != Kind::list) wrong(fmt::format("no sequence as argument {}", i + 1));
    return values_[i].items->values;
  }
  /// Sizes or strides.
  std::vector<int64_t> extents(size_t i) const {
    constexpr size_t highest_rank = 64;
    const std::span<const Value> values = sequence(i);
    if (values.size() > highest_rank) wrong(fmt::format("more than {} dimensions", highest_rank));
    std::vector<int64_t> result;
    for (const Value& value : values) {
      if (value.kind != Kind::integer || value.integer < 0) wrong("a size or stride that is no whole number");
      result.push_back(value.integer);
    }
    return result;
  }

 private:
  std::string_view name_;
  std::span<const Value> values_;
};

Value opaque() { return {.kind = Kind::opaque, .integer = 0}; }

Value dictionary(Pickle& pickle, const Arguments& arguments, size_t first) {
  Value result = pickle.container(Kind::dictionary, {});
  if (arguments.size() <= first) return result;
  auto& values = result.items->values;
  if (arguments.at(first).kind == Kind::dictionary) {
    const auto& given = arguments.at(first).items->values;
    values.assign(given.begin(), given.end());
    return result;
  }
  for (const Value& pair : arguments.sequence(first)) {  // Python 2 gives [[key, value], ...]
    if ((pair.kind != Kind::tuple && pair.kind != Kind::list) || pair.items->values.size() != 2)
      arguments.wrong("what are no keys and values");
    values.insert(values.end(), pair.items->values.begin(), pair.items->values.end());
  }
  return result;
}

/// A defaultdict's first argument makes values for keys that are not there. It is never called; a type of Python's is
/// what it should be all the same.
void check_factory(const Arguments& arguments) {
  if (arguments.size() == 0 || arguments.at(0).kind == Kind::none) return;
  const std::string_view name = arguments.at(0, Kind::name).text();
  const std::string factory = name_today(name);
  if (!made_for(name) && factory != "builtins.int" && factory != "builtins.float" && factory != "builtins.str")
    refuse_call(name, false);
}

Value sequence(Pickle& pickle, const Arguments& arguments, Kind kind) {
  return pickle.container(kind, arguments.size() == 0 ? std::span<const Value>{} : arguments.sequence(0));
}

Value joined_path(Pickle& pickle, const Arguments& arguments) {
  std::string path;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!path.empty() && !path.ends_with('/')) path += '/';
    path += arguments.at(i, Kind::text).text();
    if (path.size() > 65536) arguments.wrong("a path of more than 64 KiB");
  }
  return pickle.owned_text(Kind::text, {path});
}

Value device(Pickle& pickle, const Arguments& arguments) {
  const std::string_view type = arguments.at(0, Kind::text).text();
  if (arguments.size() == 1) return pickle.text(Kind::text, type);
  return pickle.owned_text(Kind::text, {type, ":", std::to_string(arguments.whole(1))});
}

/// Protocol 2 writes bytes as a text whose characters they are.
Value latin1_bytes(Pickle& pickle, const Arguments& arguments) {
  if (arguments.size() == 0) return pickle.text(Kind::bytes, {});
  const Value& given = arguments.at(0);
  if (given.kind == Kind::bytes) return given;
  if (given.kind != Kind::text) arguments.wrong("what is no text");
  if (arguments.size() > 1 && arguments.at(1, Kind::text).text() != "latin1" && arguments.at(1).text() != "latin-1")
    arguments.wrong(fmt::format("the encoding {}, not latin1", in_quotes(arguments.at(1).text())));
  const std::string_view text = given.text();
  // Bytes below 128 are themselves; no copy where all are.
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<signed char>(c) >= 0; }))
    return pickle.text(Kind::bytes, text);
  const Value result = pickle.owned_text(Kind::bytes, {text});
  char* const begin = const_cast<char*>(result.data);
  char* to = begin;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto first = static_cast<uint8_t>(text[i]);
    if (first < 0x80) {
      *to++ = text[i];
      continue;
    }
    const auto second = i + 1 < text.size() ? static_cast<uint8_t>(text[i + 1]) : uint8_t{0};
    if ((first != 0xc2 && first != 0xc3) || (second & 0xc0) != 0x80) arguments.wrong("a text that is not Latin 1");
    *to++ = static_cast<char>((first << 6) | (second & 0x3f));
    ++i;
  }
  return pickle.text(Kind::bytes, {begin, static_cast<size_t>(to - begin)});
}

/// offset + sum((size - 1) * stride) must lie among the elements there are.
void check_extents(const PickleTensor& tensor, int64_t elements, const Arguments& arguments) {
  if (tensor.shape.size() != tensor.strides.size()) arguments.wrong("more or fewer strides than sizes");
  if (std::find(tensor.shape.begin(), tensor.shape.end(), 0) != tensor.shape.end()) return;
  int64_t last = tensor.offset;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    int64_t step = 0;
    if (__builtin_mul_overflow(tensor.shape[d] - 1, tensor.strides[d], &step) ||
        __builtin_add_overflow(last, step, &last))
      arguments.wrong("sizes and strides that no memory has room for");
  }
  if (last >= elements)
    arguments.wrong(fmt::format("a storage of {} elements for a tensor that takes element {}", elements, last));
}

/// _rebuild_tensor(storage, offset, size, stride), with _v2 (..., requires_grad, hooks, metadata), with _v3 the type
/// before the metadata.
Value tensor(Pickle& pickle, const Arguments& arguments, bool any_type) {
  PickleTensor result;
  result.storage = arguments.at(0, Kind::storage).storage;
  const PickleStorage& storage = *result.storage;
  result.type = storage.type;
  int64_t elements = storage.numel;
  if (any_type) {
    const std::string_view name = arguments.at(6, Kind::name).text();
    const Named* type = named(kTorchTypes, name);
    result.type = type ? type->type : name;
    if (!storage.type.empty() && storage.type != result.type) arguments.wrong("a storage of another type");
    if (const ElementType* known = element_type(result.type))
      if (storage.type.empty()) elements /= static_cast<int64_t>(known->bytes);
  } else if (storage.type.empty()) {
    arguments.wrong("a storage without a type");
  }
  if (__builtin_add_overflow(arguments.whole(1), storage.begin, &result.offset))
    arguments.wrong("an offset that no memory has room for");
  result.shape = arguments.extents(2);
  result.strides = arguments.extents(3);
  check_extents(result, elements, arguments);
  const size_t metadata = any_type ? 7 : 6;
  if (arguments.size() > metadata && arguments.at(metadata).kind == Kind::dictionary) {
    const auto& pairs = arguments.at(metadata).items->values;
    for (size_t i = 0; i < pairs.size(); i += 2)
      if (pairs[i + 1].kind == Kind::boolean && pairs[i + 1].integer != 0)
        throw Error("it holds a tensor whose sign is turned when it is read: save tensor.resolve_neg().resolve_conj()");
  }
  return pickle.tensor(std::move(result));
}

/// (function, type, its arguments, attributes): the type adds nothing to the values.
Value tensor_subclass(Pickle& pickle, const Arguments& arguments) {
  const std::string_view function = arguments.at(0, Kind::name).text();
  const std::optional<Make> make = made_for(function);
  if (make != Make::tensor && make != Make::tensor_of_any_type && make != Make::parameter) refuse_call(function, false);
  return make_pickled_object(pickle, function, arguments.sequence(2), false);
}

/// "f4" with or without its byte order in front. Times, texts, objects and records are no numbers: opaque.
Value numpy_type(Pickle& pickle, const Arguments& arguments) {
  std::string_view text = arguments.at(0).has_text() ? arguments.at(0).text() : "";
  if (text.starts_with('>')) throw Error("it holds a big-endian NumPy array: save array.astype(\"<f4\")");
  if (text.starts_with('<') || text.starts_with('|') || text.starts_with('=')) text.remove_prefix(1);
  const Named* type = named(kNumpyTypes, text);
  return type ? pickle.text(Kind::element_type, type->type) : opaque();
}

template <class T>
T number_from(std::string_view bytes) {
  T number;
  std::memcpy(&number, bytes.data(), sizeof(T));
  return number;
}
Value whole(int64_t number, Kind kind = Kind::integer) { return {.kind = kind, .integer = number}; }
Value real(double number) { return {.kind = Kind::real, .real = number}; }

Value numpy_scalar(const Arguments& arguments) {
  if (arguments.at(0).kind == Kind::opaque) return opaque();
  const std::string_view type = arguments.at(0, Kind::element_type).text();
  const Value& bytes = arguments.at(1);
  if (!bytes.has_text() || bytes.length != element_type(type)->bytes) arguments.wrong("a number of another size");
  if (type == "F32") return real(number_from<float>(bytes.text()));
  if (type == "F64") return real(number_from<double>(bytes.text()));
  if (type == "I64") return whole(number_from<int64_t>(bytes.text()));
  if (type == "I32") return whole(number_from<int32_t>(bytes.text()));
  if (type == "U8") return whole(number_from<uint8_t>(bytes.text()));
  if (type == "BOOL") return whole(number_from<uint8_t>(bytes.text()), Kind::boolean);
  return opaque();  // others are seldom
}

/// Row-major strides, or column-major. Throws when the elements are not exactly those that there are bytes for.
void set_numpy_array(PickleTensor& array, std::string_view type, std::vector<int64_t> shape, bool column_major,
                     std::string_view data, const Arguments& arguments) {
  const size_t rank = shape.size();
  std::vector<int64_t> strides(rank, 1);
  int64_t count = 1;
  const bool empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
  for (size_t i = 0; i < rank && !empty; ++i) {
    const size_t d = column_major ? i : rank - 1 - i;
    strides[d] = count;
    if (__builtin_mul_overflow(count, shape[d], &count)) arguments.wrong("a shape that no memory has room for");
  }
  if (empty) count = 0;
  const size_t each = element_type(type)->bytes;
  if (data.size() % each != 0 || data.size() / each != static_cast<uint64_t>(count))
    arguments.wrong(fmt::format("{} bytes for {} elements of {}", data.size(), count, type));
  array.type = type;
  array.shape = std::move(shape);
  array.strides = std::move(strides);
  array.data = data;
}

/// _frombuffer(buffer, dtype, shape, order)
Value numpy_array_of_buffer(Pickle& pickle, const Arguments& arguments) {
  if (arguments.at(1).kind == Kind::opaque) return opaque();
  PickleTensor array;
  set_numpy_array(array, arguments.at(1, Kind::element_type).text(), arguments.extents(2),
                  arguments.at(3, Kind::text).text() == "F", arguments.at(0, Kind::bytes).text(), arguments);
  return pickle.tensor(std::move(array));
}

}  // namespace

Value make_pickled_object(Pickle& pickle, std::string_view name, std::span<const Value> values, bool instance) {
  const std::optional<Make> make = made_for(name);
  if (!make) refuse_call(name, instance);
  const Arguments arguments(name, values);
  switch (*make) {
    case Make::dictionary:
      return dictionary(pickle, arguments, 0);
    case Make::default_dictionary:
      check_factory(arguments);
      return dictionary(pickle, arguments, 1);
    case Make::record: {
      const Value result = dictionary(pickle, arguments, 0);
      result.items->record = true;
      return result;
    }
    case Make::list:
      return sequence(pickle, arguments, Kind::list);
    case Make::tuple:
      return sequence(pickle, arguments, Kind::tuple);
    case Make::text:
      return arguments.at(0, Kind::text);
    case Make::path:
      return joined_path(pickle, arguments);
    case Make::device:
      return device(pickle, arguments);
    case Make::opaque:
      return opaque();
    case Make::latin1_bytes:
      return latin1_bytes(pickle, arguments);
    case Make::tensor:
      return tensor(pickle, arguments, false);
    case Make::tensor_of_any_type:
      return tensor(pickle, arguments, true);
    case Make::parameter:
      return arguments.at(0, Kind::tensor);
    case Make::tensor_subclass:
      return tensor_subclass(pickle, arguments);
    case Make::numpy_type:
      return numpy_type(pickle, arguments);
    case Make::numpy_scalar:
      return numpy_scalar(arguments);
    case Make::numpy_array:
      return pickle.tensor({});  // BUILD gives it all it has
    case Make::numpy_array_of_buffer:
      return numpy_array_of_buffer(pickle, arguments);
  }
  refuse_call(name, instance);
}

void build_pickled_object(Pickle& pickle, Value& object, const Value& state) {
  switch (object.kind) {
    case Kind::dictionary: {
      // Attributes beside the items, such as the versions in a state dict, are dropped; of records they are the items.
      if (!object.items->record) return;
      if (state.kind != Kind::dictionary) throw Error("it gives an object attributes that are no dictionary");
      auto& values = object.items->values;
      if (state.items == object.items) throw Error("it gives an object itself for its attributes");
      values.insert(values.end(), state.items->values.begin(), state.items->values.end());
      return;
    }
    case Kind::element_type: {
      const Arguments arguments("numpy.dtype", state.kind == Kind::tuple ? std::span<const Value>(state.items->values)
                                                                         : std::span<const Value>{});
      if (arguments.at(1).has_text() && arguments.at(1).text() == ">")
        throw Error("it holds a big-endian NumPy array: save array.astype(\"<f4\")");
      return;
    }
    case Kind::tensor: {
      PickleTensor& array = *object.tensor;
      if (array.storage || !array.type.empty()) return;  // attributes of a tensor
      const Arguments arguments("numpy.ndarray", state.kind == Kind::tuple ? std::span<const Value>(state.items->values)
                                                                           : std::span<const Value>{});
      if (arguments.at(2).kind == Kind::opaque) {  // of texts or objects
        object = opaque();
        return;
      }
      const Value& data = arguments.at(4);
      if (!data.has_text()) arguments.wrong("data that is no bytes");
      pickle.charge_extents(arguments.sequence(1).size());
      set_numpy_array(array, arguments.at(2, Kind::element_type).text(), arguments.extents(1),
                      arguments.at(3, Kind::boolean).integer != 0, data.text(), arguments);
      return;
    }
    case Kind::opaque:
    case Kind::text:
    case Kind::list:
      return;
    default:
      throw Error("it wants the state of something changed that has none");
  }
}

Value make_pickled_storage(Pickle& pickle, const Value& id) {
  const auto wrong = [](std::string_view what) { throw Error(fmt::format("its persistent id {}", what)); };
  if (id.kind != Kind::tuple || id.items->values.empty() || id.items->values[0].kind != Kind::text)
    wrong("is none of PyTorch's");
  const std::span<const Value> values = id.items->values;
  const std::string_view what = values[0].text();
  if (what == "module" && values.size() >= 2 && values[1].kind == Kind::name) return values[1];  // with source code
  if (what != "storage") wrong(fmt::format("is for {}, not for a storage", in_quotes(what)));
  if (values.size() < 5 || values[1].kind != Kind::name || values[2].kind != Kind::text ||
      values[4].kind != Kind::integer)
    wrong("lacks type, key or number of elements");

  std::string_view type = values[1].text();
  constexpr std::string_view end = "Storage";
  if (!type.starts_with("torch.") || !type.ends_with(end))
    wrong(fmt::format("gives {} for the type of a storage", in_quotes(type)));
  const std::string_view word = type.substr(type.rfind('.') + 1, type.size() - type.rfind('.') - 1 - end.size());
  const Named* known = named(kStorages, word);
  PickleStorage storage{values[2].text(), known ? known->type : type, values[4].integer};
  if (storage.numel < 0) wrong(fmt::format("gives {} elements", storage.numel));
  // Before 1.6 a storage could view another: its key, the first element, the number of elements.
  if (values.size() > 5 && values[5].kind != Kind::none) {
    if (values[5].kind != Kind::tuple || values[5].items->values.size() != 3) wrong("describes no view");
    const Value &begin = values[5].items->values[1], &count = values[5].items->values[2];
    int64_t view_end = 0;
    if (begin.kind != Kind::integer || count.kind != Kind::integer || begin.integer < 0 || count.integer < 0 ||
        __builtin_add_overflow(begin.integer, count.integer, &view_end) || view_end > storage.numel)
      wrong("describes a view beyond its storage");
    storage.begin = begin.integer;
  }
  return pickle.storage(storage);
}

}  // namespace saccade::io
