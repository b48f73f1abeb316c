#pragma once

#include <cudnn.h>

#include <array>
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "state.h"

/// The double of cuDNN's graph API, for graphs of one convolution with f32 arithmetic, for f32, f16 and bf16.
///
/// Written from the documentation; where that leaves open which status is returned, from what cuDNN 9.19 does without a
/// device. It is stricter than cuDNN where cuDNN accepts what it cannot use: duplicate identifiers, missing scales.
namespace cuda_doubles::cudnn {

/// A 4D tensor, (N, C, H, W) or, for filters, (K, C / groups, R, S), in any order of memory.
struct Tensor {
  int64_t id = 0, alignment = 0;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  std::array<int64_t, 4> dims = {}, strides = {};  ///< strides in elements
  size_t bytes() const;                            ///< from the first to the last element
};

/// Height, width.
struct Window {
  std::array<int64_t, 2> before = {}, after = {}, strides = {}, dilations = {};
};

enum class Pass : uint8_t { forward, backward_data, backward_filter };

struct Operation {
  Pass pass = Pass::forward;
  Tensor x, w, y;  ///< of them or of their gradients
  Window window;
  float alpha = 0, beta = 0;
  const Tensor& output() const { return pass == Pass::forward ? y : pass == Pass::backward_data ? x : w; }
  bool is_output(const Tensor& t) const { return &t == &output(); }
  int64_t groups() const { return x.dims[1] / w.dims[1]; }
};

/// What an engine does to its numbers.
struct Engine {
  int64_t index = 0;
  std::vector<cudnnBackendNumericalNote_t> notes;
  int input_bits = 0, result_bits = 0;  ///< of the significand, 0 for all
  bool noise = false;                   ///< another result each time
  bool refuses = false;                 ///< to become a plan
};
/// Throws if there is none of this index. What it promises depends on the type of the inputs.
Engine engine_of(const Operation&, int64_t index);
/// What the heuristics recommend, best first.
std::vector<int64_t> recommended(const Operation&, cudnnBackendHeurMode_t);
size_t workspace_bytes(const Operation&, const Engine&);

struct Descriptor;
using Reference = std::shared_ptr<Descriptor>;

struct Value {
  cudnnBackendAttributeType_t type;
  int64_t count;
  std::vector<std::byte> bytes;
  std::vector<Reference> descriptors;  ///< instead of bytes
};

struct Descriptor {
  cudnnBackendDescriptorType_t type;
  bool finalized = false;
  std::map<cudnnBackendAttributeName_t, Value> values = {};
  /// @name What the values mean, once finalised: for a tensor, for a window, from an operation to the plan, from an
  /// engine to the plan
  /// @{
  Tensor tensor = {};
  Window window = {};
  Operation operation = {};
  Engine engine = {};
  /// @}

  bool has(cudnnBackendAttributeName_t name) const { return values.contains(name); }
  template <class T>
  std::span<const T> all(cudnnBackendAttributeName_t name) const {
    const Value& value = values.at(name);
    return {reinterpret_cast<const T*>(value.bytes.data()), static_cast<size_t>(value.count)};
  }
  template <class T>
  T one(cudnnBackendAttributeName_t name) const {
    return all<T>(name)[0];
  }
  const Descriptor& child(cudnnBackendAttributeName_t name) const { return *values.at(name).descriptors[0]; }
};

enum class Use : uint8_t { required, optional, result };  ///< results are only got
struct Attribute {
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  int64_t least, most;  ///< elements
  Use use;
  int holds = -1;  ///< type of descriptors
};
/// Throws if the double does not know this type of descriptor.
std::span<const Attribute> attributes_of(int descriptor_type);
size_t element_bytes(cudnnBackendAttributeType_t);

/// Checks the values against each other and sets what they mean, and the results.
void finalize(Descriptor&);
void execute(cudaStream_t, const Descriptor& plan, const Descriptor& pack);

/// Does the convolution, in device memory.
void convolve(const Operation&, const Engine&, void* x, void* w, void* y);

template <class... Values>
[[noreturn]] void refuse(cudnnStatus_t code, fmt::format_string<Values...> text, Values&&... values) {
  throw Refusal{code, fmt::format(text, std::forward<Values>(values)...)};
}

}  // namespace cuda_doubles::cudnn
