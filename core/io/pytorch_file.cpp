#include <fmt/format.h>
#include <saccade/core/io/element_type.h>
#include <saccade/core/io/pickle.h>
#include <saccade/core/io/pickle_opcodes.h>
#include <saccade/core/io/pytorch_file.h>
#include <saccade/core/io/quoted_text.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

namespace saccade::io {
namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

constexpr int kDeepest = 100;
constexpr size_t kLongestName = 4096, kLongestText = 65536, kMostMetadata = 65536, kLongestList = 64;

/// Where a storage's bytes lie.
struct Extent {
  uint64_t offset = 0, bytes = 0;
};
using FindStorage = std::function<Extent(const PickleStorage&)>;

std::string_view truth(int64_t value) { return value != 0 ? "true" : "false"; }

/// Numbers and texts, and short lists of them; empty for anything else.
std::string as_text(const Value& value, bool inner = false) {
  switch (value.kind) {
    case Kind::boolean:
      return std::string(truth(value.integer));
    case Kind::integer:
      return fmt::format("{}", value.integer);
    case Kind::real:
      return fmt::format("{}", value.real);
    case Kind::text:
      return value.length > kLongestText ? "" : std::string(value.text());
    case Kind::list:
    case Kind::tuple: {
      if (inner || value.items->values.size() > kLongestList) return "";
      std::string text;
      for (const Value& each : value.items->values) {
        const std::string one = as_text(each, true);
        if (one.empty()) return "";
        text += (text.empty() ? "" : ",") + one;
      }
      return text;
    }
    default:
      return "";
  }
}

/// Elements that do not lie one behind the other in the file become so. `from` are those from the first to the last.
template <size_t bytes>
void gather(const char* from, char* to, std::span<const int64_t> shape, std::span<const int64_t> strides) {
  std::vector<int64_t> index(shape.size(), 0);
  int64_t at = 0;
  for (;;) {
    const int64_t inner = shape.back(), stride = strides.back();
    for (int64_t i = 0; i < inner; ++i, to += bytes) std::memcpy(to, from + (at + i * stride) * int64_t{bytes}, bytes);
    size_t d = shape.size() - 1;
    for (; d > 0; --d) {
      at += strides[d - 1];
      if (++index[d - 1] < shape[d - 1]) break;
      at -= strides[d - 1] * shape[d - 1];
      index[d - 1] = 0;
    }
    if (d == 0) return;
  }
}

/// Walks through what a pickle holds and takes the tensors out, under the names of the keys on the way.
class Taker {
 public:
  Taker(const ByteSource& source, MemoryBudget& budget, FindStorage find)
      : source_(source), budget_(budget), find_(std::move(find)) {}

  void take(const Value& root) {
    if (root.kind == Kind::tensor) return take_tensor("tensor", *root.tensor);
    std::string name;
    walk(root, name, 0);
  }
  WeightFile result() {
    if (file_.tensors.empty() && file_.metadata.empty()) throw Error("it holds no tensor, nor numbers or texts");
    file_.words = casts_.words();
    return std::move(file_);
  }

 private:
  /// What one dictionary holds may be reached on many ways, so the ways are counted and not the dictionaries. Numbers
  /// and texts of long lists are passed over.
  void walk(const Value& value, std::string& name, int depth) {
    constexpr uint64_t cost = 256;  // of the time it takes, counted as memory
    budget_.charge(cost + (value.has_items() ? value.items->values.size() : 0));
    if (depth > kDeepest) throw Error(fmt::format("it nests more than {} deep, or holds itself", kDeepest));
    if (value.kind == Kind::tensor) return take_tensor(name, *value.tensor);
    if (!name.empty())
      if (const std::string text = as_text(value); !text.empty()) return take_metadata(name, text);
    if (!value.has_items()) return;
    const auto& values = value.items->values;
    const bool keyed = value.kind == Kind::dictionary;
    const size_t length = name.size();
    for (size_t i = 0; i < values.size(); i += keyed ? 2 : 1) {
      if (!keyed && values.size() > kLongestList && !values[i].has_items() && values[i].kind != Kind::tensor) continue;
      if (!name.empty()) name += '.';
      name += keyed ? key_text(values[i]) : fmt::format("{}", i);
      walk(values[keyed ? i + 1 : i], name, depth + 1);
      name.resize(length);
    }
  }
  static std::string key_text(const Value& key) {
    if (key.has_text()) return std::string(key.text().substr(0, kLongestName + 1));
    const std::string text = as_text(key);
    return text.empty() ? "?" : text;
  }
  void take_metadata(const std::string& name, const std::string& text) {
    if (name.size() > kLongestName || file_.metadata.size() >= kMostMetadata) return;
    budget_.charge(name.size() + text.size() + 128);
    file_.metadata[name] = text;
  }
  void take_tensor(const std::string& name, const PickleTensor& tensor);
  Tensor read(const PickleTensor& tensor, const ElementType& type, const Shape& shape);

  const ByteSource& source_;
  MemoryBudget& budget_;
  FindStorage find_;
  WeightFile file_;
  CastCount casts_;
  std::set<std::string, std::less<>> names_;
};

void Taker::take_tensor(const std::string& name, const PickleTensor& tensor) {
  if (name.size() > kLongestName)
    throw Error(fmt::format("it has a tensor whose name is longer than {} bytes", kLongestName));
  if (std::any_of(name.begin(), name.end(), [](char c) { return (c >= 0 && c < 0x20) || c == 0x7f; }))
    throw Error(fmt::format("it has a tensor called {}, with control characters", in_quotes(name)));
  if (tensor.type.empty()) return;  // a NumPy array without a state
  if (!names_.insert(name).second) throw Error(fmt::format("it has two tensors called {}", in_quotes(name)));
  const ElementType* type = element_type(tensor.type);
  if (!type)
    throw Error(fmt::format("its tensor {} has the type {}, which no tensor here can hold: save tensor.float()",
                            in_quotes(name), in_quotes(tensor.type)));
  uint64_t bytes = size_of(type->becomes);
  for (const int64_t extent : tensor.shape)
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(extent), &bytes) && extent != 0)
      throw Error(fmt::format("its tensor {} has more elements than can be counted", in_quotes(name)));
  budget_.charge(3 * name.size() + sizeof(NamedTensor) + 512);
  casts_.add(*type);
  const Shape shape(tensor.shape.begin(), tensor.shape.end());
  const Device device = DeviceScope::current();
  if (device == Device::meta) {
    file_.tensors.push_back({name, Tensor::empty(shape, type->becomes)});
    return;
  }
  budget_.charge(bytes);
  const DeviceScope here(Device::cpu);
  try {
    file_.tensors.push_back({name, read(tensor, *type, shape).to(device)});
  } catch (const Error& error) {
    throw Error(fmt::format("its tensor {}: {}", in_quotes(name), error.what()));
  }
}

Tensor Taker::read(const PickleTensor& tensor, const ElementType& type, const Shape& shape) {
  const Tensor result = Tensor::empty(shape, type.becomes);
  if (result.numel() == 0) return result;
  // Dimensions of one element have strides that say nothing.
  std::vector<int64_t> extents, strides;
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1) {
      extents.push_back(shape[d]);
      strides.push_back(tensor.strides[d]);
    }
  bool dense = true;
  int64_t expected = 1, last = 0;
  for (size_t d = extents.size(); d-- > 0; expected *= extents[d]) {
    dense = dense && strides[d] == expected;
    last += (extents[d] - 1) * strides[d];
  }
  const ByteSource of_array(std::span<const char>(tensor.data.data(), tensor.data.size()));
  const ByteSource& from = tensor.storage ? source_ : of_array;
  const Extent extent = tensor.storage ? find_(*tensor.storage) : Extent{0, tensor.data.size()};
  // Checked before against the number of elements that the pickle gives the storage; here against the bytes there are.
  const uint64_t there = extent.bytes / type.bytes;
  const uint64_t first = static_cast<uint64_t>(tensor.offset), count = static_cast<uint64_t>(last) + 1;
  if (first > there || count > there - first)
    throw Error(fmt::format("it takes elements up to {} of a storage that has {}", first + count, there));
  const uint64_t begin = extent.offset + first * type.bytes;
  if (dense) {
    read_elements(type, from, begin, count, result.raw());
    return result;
  }
  const size_t each = size_of(type.becomes);
  std::pmr::vector<char> span(static_cast<size_t>(count) * each, &budget_);
  read_elements(type, from, begin, count, span.data());
  char* const to = static_cast<char*>(result.raw());
  if (each == 8) gather<8>(span.data(), to, extents, strides);
  if (each == 4) gather<4>(span.data(), to, extents, strides);
  if (each == 2) gather<2>(span.data(), to, extents, strides);
  if (each == 1) gather<1>(span.data(), to, extents, strides);
  return result;
}

WeightFile take_all(const ByteSource& source, MemoryBudget& budget, const Value& root, FindStorage find) {
  Taker taker(source, budget, std::move(find));
  taker.take(root);
  return taker.result();
}

[[noreturn]] void refuse_missing(const PickleStorage& storage) {
  throw Error(fmt::format("its storage {} is not in the file", in_quotes(storage.key)));
}

std::string read_pickle(const ByteSource& source, uint64_t begin, uint64_t bytes, MemoryBudget& budget) {
  budget.charge(bytes);
  return source.text(begin, static_cast<size_t>(bytes));
}

std::string checksum_word(const std::vector<std::string>& differing) {
  return fmt::format(
      "the checksum of {} entr{} differs from what the file says of {} ({}{}): unless it was written "
      "without checksums, it is damaged",
      differing.size(), differing.size() == 1 ? "y" : "ies", differing.size() == 1 ? "it" : "them", differing[0],
      differing.size() > 1 ? ", ..." : "");
}

constexpr std::string_view kLegacyMagic("\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 13);

/// Pickles of the magic number, the protocol, the system, the object, the keys of the storages in their order; then
/// each storage's number of elements and these themselves.
WeightFile read_legacy(const ByteSource& source, MemoryBudget& budget) {
  uint64_t at = 0;
  const auto next = [&] {
    const uint64_t begin = at;
    at = pickle_end(source, begin);
    return read_pickle(source, begin, at - begin, budget);
  };
  next();
  const std::string protocol_bytes = next();
  if (const Pickle protocol(protocol_bytes, budget);
      protocol.root().kind != Kind::integer || protocol.root().integer != 1001)
    throw Error("it was written by a PyTorch whose files are not known");
  const std::string system_bytes = next();
  const Pickle system(system_bytes, budget);
  if (system.root().kind == Kind::dictionary) {
    const auto& pairs = system.root().items->values;
    for (size_t i = 0; i + 1 < pairs.size(); i += 2)
      if (pairs[i].kind == Kind::text && pairs[i].text() == "little_endian" && pairs[i + 1].kind == Kind::boolean &&
          pairs[i + 1].integer == 0)
        throw Error("it was saved on a big-endian machine: load and save it once in PyTorch");
  }
  const std::string object_bytes = next();
  const Pickle object(object_bytes, budget);
  const std::string key_bytes = next();
  const Pickle keys(key_bytes, budget);
  if (keys.root().kind != Kind::list) throw Error("it lacks the list of its storages");

  // Element sizes are known from the storages that the tensors name.
  std::map<std::string_view, const PickleStorage*> by_key;
  for (const PickleStorage& storage : object.storages()) {
    const auto [place, is_new] = by_key.emplace(storage.key, &storage);
    if (!is_new && (place->second->type != storage.type || place->second->numel != storage.numel))
      throw Error(fmt::format("it describes storage {} in two ways that differ", in_quotes(storage.key)));
  }
  std::map<std::string_view, Extent> places;
  for (const Value& key : keys.root().items->values) {
    const auto storage = key.kind == Kind::text ? by_key.find(key.text()) : by_key.end();
    if (storage == by_key.end()) throw Error("it lists a storage that nothing in it uses");
    const ElementType* type = element_type(storage->second->type);
    const uint64_t each = type ? type->bytes : 1;
    if (!type && !storage->second->type.empty())
      throw Error(fmt::format("it holds a {}, which no tensor here can hold: save tensor.float()",
                              in_quotes(storage->second->type)));
    uint64_t count = 0;
    source.read(at, &count, sizeof(count));
    at += sizeof(count);
    if (count != static_cast<uint64_t>(storage->second->numel))
      throw Error(fmt::format("it gives storage {} {} elements, and {} in another place", in_quotes(key.text()), count,
                              storage->second->numel));
    if (count > (source.size() - at) / each)
      throw Error(fmt::format("it ends within storage {} ({} elements): the file is cut off, fetch or copy it again",
                              in_quotes(key.text()), count));
    if (!places.emplace(key.text(), Extent{at, count * each}).second)
      throw Error(fmt::format("it lists storage {} twice", in_quotes(key.text())));
    at += count * each;
  }
  return take_all(source, budget, object.root(), [&](const PickleStorage& storage) {
    const auto place = places.find(storage.key);
    if (place == places.end()) refuse_missing(storage);
    return place->second;
  });
}

}  // namespace

WeightFile read_pytorch_archive(const ByteSource& source, std::vector<ZipEntry> entries, MemoryBudget& budget) {
  locate_zip_entries(source, entries);
  constexpr std::string_view pickle_name = "data.pkl";
  const ZipEntry* data = nullptr;
  for (const ZipEntry& entry : entries) {
    if (entry.name != pickle_name && !entry.name.ends_with("/data.pkl")) continue;
    if (data) throw Error(fmt::format("its zip archive has two {}", pickle_name));
    data = &entry;
  }
  if (!data) throw Error(fmt::format("its zip archive has no {}", pickle_name));
  const std::string stem = data->name.substr(0, data->name.size() - pickle_name.size());
  if (const ZipEntry* order = find_zip_entry(entries, stem + "byteorder");
      order && (order->size != 6 || source.text(order->offset, 6) != "little"))
    throw Error("it was saved on a big-endian machine: load and save it once in PyTorch");

  const std::string bytes = read_pickle(source, data->offset, data->size, budget);
  const Pickle pickle(bytes, budget);
  std::vector<std::string> differing;
  std::map<const ZipEntry*, bool> checked;
  const auto check = [&](const ZipEntry& entry) {
    if (checked.emplace(&entry, true).second && !zip_checksum_agrees(source, entry)) differing.push_back(entry.name);
  };
  check(*data);
  const auto entry_of = [&](const PickleStorage& storage) -> const ZipEntry& {
    const ZipEntry* entry = find_zip_entry(entries, fmt::format("{}data/{}", stem, storage.key));
    if (!entry) refuse_missing(storage);
    const ElementType* type = element_type(storage.type);
    if (static_cast<uint64_t>(storage.numel) > entry->size / (type ? type->bytes : 1))
      throw Error(fmt::format("its storage {} of {} elements has {} bytes only", in_quotes(storage.key), storage.numel,
                              entry->size));
    return *entry;
  };
  for (const PickleStorage& storage : pickle.storages()) entry_of(storage);
  WeightFile result = take_all(source, budget, pickle.root(), [&](const PickleStorage& storage) {
    const ZipEntry& entry = entry_of(storage);
    check(entry);
    return Extent{entry.offset, entry.size};
  });
  if (!differing.empty()) result.words.push_back(checksum_word(differing));
  return result;
}

WeightFile read_pickles(const ByteSource& source, MemoryBudget& budget) {
  const uint64_t end = pickle_end(source, 0);
  const uint64_t tail = std::min<uint64_t>(end, kLegacyMagic.size());
  if (source.text(end - tail, static_cast<size_t>(tail)) == kLegacyMagic) return read_legacy(source, budget);
  const std::string bytes = read_pickle(source, 0, end, budget);
  const Pickle pickle(bytes, budget);
  if (end != source.size()) throw Error(fmt::format("it goes on for {} bytes behind its pickle", source.size() - end));
  return take_all(source, budget, pickle.root(),
                  [](const PickleStorage& storage) -> Extent { refuse_missing(storage); });
}

}  // namespace saccade::io
