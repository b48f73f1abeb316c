#pragma once

#include <saccade/kernels/device.h>
#include <saccade/kernels/dtype.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace saccade {

class Tensor;

namespace dist {
struct Ranks;
}

/// What a piece of memory is for. Every allocation carries one; statistics and reports are kept by it.
enum class Tag : uint8_t { parameters, gradients, optimizer, activations, workspace, batch };
inline constexpr size_t kTags = 6;

/// The part of a training step in which memory was asked for: reports say when, besides what for.
enum class Phase : uint8_t { setup, forward, backward, recompute, optimizer, data };
inline constexpr size_t kPhases = 6;

/// What an op keeps of a result that could be made again from things kept anyway (a normalised map from the
/// convolution's output, an attended map from the normalised one): the memory, or how to make it again, with the same
/// bits, when backward asks for it.
enum class Keep : uint8_t {
  eager,  ///< all that backward reads
  lean,   ///< only what cannot be made again elementwise
};

/// Sees what a module returns, with the layer's full name.
using OutputWatch = std::function<void(const std::string& layer, const Tensor& output)>;

/// What holds for the work of a thread beside the arguments of its calls: all that scopes have set, as one value. Who
/// does a part of that work later (a recomputation) keeps a copy, and puts it in force again by a ContextScope.
struct Context {
  Device device = Device::cpu;            ///< where tensors are made (DeviceScope)
  DType precision = DType::f32;           ///< of convolutions and products (AutocastScope)
  Keep keep = Keep::eager;                ///< what ops keep for backward (KeepScope)
  Tag tag = Tag::activations;             ///< of allocations (TagScope)
  Phase phase = Phase::setup;             ///< of allocations (PhaseScope)
  bool recording = true;                  ///< ops go on the tape (NoGradScope)
  bool frozen_statistics = false;         ///< batch norm counts nothing (FrozenStatisticsScope)
  const std::string* layer = nullptr;     ///< full name, kept for good; null outside any (LayerScope)
  const char* op = nullptr;               ///< whose backward runs; null outside any
  std::vector<Tensor>* leaves = nullptr;  ///< collects those that ops use (autograd::run_unrecorded)
  const dist::Ranks* ranks = nullptr;     ///< processes that compute together (dist::RanksScope)
  const OutputWatch* watch = nullptr;     ///< sees what modules return (nn::OutputHook)

  /// This thread's.
  static const Context& current();
  /// What holds when work that was done in this context is done a second time, for the op whose backward runs now:
  /// all the same, but as Phase::recompute; what the first time was counted or watched is not a second time.
  Context again(bool record) const;
  bool operator==(const Context&) const = default;
};

/// While it lives, another context is this thread's.
class [[nodiscard]] ContextScope {
 public:
  explicit ContextScope(const Context& context) : before_(std::exchange(current_, context)) {}
  ~ContextScope() { current_ = before_; }
  ContextScope(const ContextScope&) = delete;
  ContextScope& operator=(const ContextScope&) = delete;

 private:
  friend struct Context;
  template <auto field>
  friend class FieldScope;
  static inline constinit thread_local Context current_ = {};
  Context before_;
};

/// While it lives, one field of this thread's context has another value: FieldScope<&Context::device>.
template <auto field>
class [[nodiscard]] FieldScope {
 public:
  using Value = std::remove_cvref_t<decltype(std::declval<Context>().*field)>;
  explicit FieldScope(Value value) : before_(std::exchange(ContextScope::current_.*field, value)) {}
  ~FieldScope() { ContextScope::current_.*field = before_; }
  FieldScope(const FieldScope&) = delete;
  FieldScope& operator=(const FieldScope&) = delete;
  static Value current() { return ContextScope::current_.*field; }

 private:
  Value before_;
};

inline const Context& Context::current() { return ContextScope::current_; }

inline Context Context::again(bool record) const {
  Context second = *this;
  second.phase = Phase::recompute;
  second.recording = record;
  second.frozen_statistics = true;
  second.op = current().op;
  second.leaves = nullptr;
  second.watch = nullptr;
  return second;
}

}  // namespace saccade
