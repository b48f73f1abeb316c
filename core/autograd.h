#pragma once

#include <saccade/core/tensor.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

namespace saccade {

/// While it lives, nothing is recorded on this thread's tape.
class [[nodiscard]] NoGradScope {
 public:
  explicit NoGradScope(bool enabled = true) : scope_(Context::current().recording && !enabled) {}

 private:
  FieldScope<&Context::recording> scope_;
};

/// What ops of this thread keep while it lives (eager outside of any scope).
using KeepScope = FieldScope<&Context::keep>;

/// While it lives, batch norm in training mode leaves its running statistics alone: for a forward pass that is made a
/// second time.
class [[nodiscard]] FrozenStatisticsScope {
 public:
  FrozenStatisticsScope() : scope_(true) {}
  static bool active() { return Context::current().frozen_statistics; }

 private:
  FieldScope<&Context::frozen_statistics> scope_;
};

namespace autograd {

struct Remake;
struct BackwardRun;

/// When a hook runs: of a leaf's hooks all of one stage before those of the next, within one in the order in which they
/// were registered.
enum class HookStage : uint8_t {
  reduce,  ///< changes the gradient: summed over processes
  update,  ///< uses it: an optimiser within backward
};

/// What a leaf's hooks are told, and what they can ask of the backward that runs. An exchange of gradients starts in
/// HookStage::reduce when `last` is true, calls postpone() if it is not done at once, and waits at_end() for what is
/// still on its way: so backward() ends, and an optimiser within it updates the leaf, with the sum over all processes.
class GradientReady {
 public:
  Tensor leaf;  ///< its grad() is complete; a hook may change or drop it
  bool last;    ///< no other backward will add to it (see BackwardOptions)

  /// The leaf's later stages wait until the function that is returned was called: once, on this thread, before
  /// backward() ends. They run within that call.
  std::function<void()> postpone();
  /// `finish` is called before this backward returns (not when it throws), in the order of these calls: also the place
  /// to see to leaves that only the earlier ones of several backwards have reached.
  void at_end(std::function<void()> finish);

 private:
  friend struct BackwardRun;
  GradientReady(Tensor of, HookStage stage, std::shared_ptr<BackwardRun> run);
  void run_hooks();
  void release();
  HookStage stage_;
  std::shared_ptr<BackwardRun> run_;
  std::shared_ptr<int> holds_;  ///< how many wait for: those that postponed it, and the stage itself until it has run
};

/// True when recording is on and one of the inputs (undefined ones are passed over) leads to a leaf that wants a
/// gradient.
bool recording(std::initializer_list<Tensor> inputs);

/// A tensor kept for backward. It holds the memory, not the tape behind the tensor, and the version it was saved at:
/// get() throws, naming op and layer, when the tensor was modified in place since. Of a remakeable() tensor it holds no
/// memory: get() makes it again, once for all that keep it and have not been dropped.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  Tensor get() const;
  bool defined() const { return tensor_.defined() || user_ != nullptr; }

 private:
  struct User;
  Tensor tensor_;
  uint64_t version_ = 0;
  std::shared_ptr<User> user_;
};

/// Says how an op's output can be made again, bit for bit, from what the op keeps for its own backward. To be called
/// under Keep::lean, before anything saves the output. `make` runs in the context of this call (see Context::again).
void remakeable(const Tensor& output, std::function<Tensor()> make);

/// Where a backward function delivers the gradients of its inputs.
class Gradients {
 public:
  virtual ~Gradients() = default;
  /// Does anyone want the gradient of input i?
  virtual bool wanted(size_t i) const = 0;
  /// Delivers it, once an input and backward; a leaf's gradient is complete, and its hooks run, at that moment. They
  /// may change the leaf: give a parameter's gradient when the parameter was read for the last time.
  virtual void give(size_t i, Tensor gradient) = 0;
};

/// Given the output's gradient (which it may overwrite if owns_memory_alone()), delivers those of the inputs.
using Backward = std::function<void(Tensor dy, Gradients& to)>;

/// Puts an op on the tape: `output` was computed from `inputs`; `backward` undoes it. Call only if recording(inputs).
/// Outputs are one tensor an op; inputs that may be absent are passed undefined and keep their index.
void record(const Tensor& output, const char* op, const std::vector<Tensor>& inputs, Backward backward);

/// Runs fn without recording, and lists the leaves that want a gradient and that its ops used, in order of first use.
Tensor run_unrecorded(const std::function<Tensor()>& fn, std::vector<Tensor>& leaves);

/// A backward within the backward of another op: records `forward`, run once more in the context of its `first` run,
/// then runs that tape from its output's gradient dy. The gradient of leaves[i] goes to to.give(i) when it is complete;
/// a leaf that is not listed is an error.
void run_nested(const Context& first, const std::function<Tensor()>& forward, Tensor dy,
                const std::vector<Tensor>& leaves, Gradients& to);

}  // namespace autograd
}  // namespace saccade
