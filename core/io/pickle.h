#pragma once

#include <saccade/core/io/memory_budget.h>

#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory_resource>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// @file
/// Python's pickles, as data. A pickle is a program that imports and calls what it likes; here it can make numbers,
/// texts, lists, dictionaries and tensors. Names stay names: nothing is ever imported, looked up or called.

namespace saccade::io {

struct PickleItems;
struct PickleStorage;
struct PickleTensor;

/// What `kind` says decides which of the others holds it. Texts and what is pointed to belong to the Pickle.
struct PickleValue {
  enum class Kind : uint8_t {
    none,
    boolean,       ///< integer
    integer,       ///< integer
    real,          ///< real
    text,          ///< text(): UTF-8, or any bytes of Python 2
    bytes,         ///< text()
    name,          ///< text(): what the pickle wanted imported, "torch.FloatStorage"
    element_type,  ///< text(): NumPy's, in the words of safetensors ("F32")
    list,          ///< items; sets too
    tuple,         ///< items
    dictionary,    ///< items: keys and values by turns
    storage,       ///< storage
    tensor,        ///< tensor
    opaque         ///< harmless, and nothing that weights need
  };

  Kind kind = Kind::none;
  uint32_t length = 0;
  union {
    int64_t integer = 0;
    double real;
    const char* data;
    PickleItems* items;
    const PickleStorage* storage;
    PickleTensor* tensor;
  };

  std::string_view text() const { return {data, length}; }
  bool has_text() const {
    return kind == Kind::text || kind == Kind::bytes || kind == Kind::name || kind == Kind::element_type;
  }
  bool has_items() const { return kind == Kind::list || kind == Kind::tuple || kind == Kind::dictionary; }
};

struct PickleItems {
  std::pmr::vector<PickleValue> values;
  bool record = false;  ///< an object whose attributes are these: BUILD adds to them
};

/// Where a tensor's elements lie outside the pickle: PyTorch's persistent id.
struct PickleStorage {
  std::string_view key;
  std::string_view type;  ///< "F32"; PyTorch's own name for it when no tensor can hold it; empty: bytes
  int64_t numel = 0;      ///< elements, or bytes where the type is empty
  int64_t begin = 0;      ///< elements before the first: a view of another storage, in files before 1.6
};

struct PickleTensor {
  const PickleStorage* storage = nullptr;  ///< null: the elements are `data`
  std::string_view data;                   ///< NumPy's
  std::string_view type;                   ///< "F32"; PyTorch's own name for it when no tensor can hold it
  int64_t offset = 0;                      ///< elements
  std::vector<int64_t> shape, strides;     ///< strides in elements
};

/// Carries out a pickle of protocol 0 to 5. Names that may be "called" are those of weights files and of plain data
/// beside them (see pickle_objects.cpp); what they stand for is made by this code, without Python's.
///
/// Throws Error, saying which byte or name, on: any other name called, built or instantiated; instructions that want
/// what is not there; containers that are none; numbers too large; more memory than the budget has.
class Pickle {
 public:
  using Value = PickleValue;

  /// `bytes` end with STOP or go on behind it. Both must outlive this.
  Pickle(std::string_view bytes, MemoryBudget& budget);
  Pickle(const Pickle&) = delete;
  Pickle& operator=(const Pickle&) = delete;

  const Value& root() const { return root_; }
  const std::pmr::deque<PickleStorage>& storages() const { return storages_; }

  /// @name Making values; all belong to this
  /// @{
  Value text(Value::Kind kind, std::string_view lasting);  ///< of characters that outlive this
  Value owned_text(Value::Kind kind, std::initializer_list<std::string_view> parts);
  Value container(Value::Kind kind, std::span<const Value> values);
  Value storage(const PickleStorage& storage);
  Value tensor(PickleTensor tensor);
  /// Counts the sizes and strides of that many dimensions.
  void charge_extents(size_t rank) { budget_.charge(rank * 2 * sizeof(int64_t) + 32); }
  /// @}

 private:
  MemoryBudget& budget_;
  std::pmr::deque<std::pmr::string> texts_;
  std::pmr::deque<PickleItems> containers_;
  std::pmr::deque<PickleStorage> storages_;
  std::pmr::deque<PickleTensor> tensors_;
  Value root_;
};

/// What the name, called with these, stands for. `instance`: a class is instantiated, not a function called. Throws
/// Error with the name when it is not in the list.
PickleValue make_pickled_object(Pickle& pickle, std::string_view name, std::span<const PickleValue> arguments,
                                bool instance);
/// Gives an object its state, as BUILD does.
void build_pickled_object(Pickle& pickle, PickleValue& object, const PickleValue& state);
/// What a persistent id stands for: PyTorch's ('storage', type, key, device, numel).
PickleValue make_pickled_storage(Pickle& pickle, const PickleValue& id);

}  // namespace saccade::io
