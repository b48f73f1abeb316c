#pragma once

#include <saccade/core/tensor.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

namespace saccade {

/// While it lives, nothing is recorded on this thread's tape.
class NoGradScope {
 public:
  explicit NoGradScope(bool enabled = true);
  ~NoGradScope();
  NoGradScope(const NoGradScope&) = delete;
  NoGradScope& operator=(const NoGradScope&) = delete;

 private:
  bool previous_;
};

/// What an op keeps of a result that could be made again from things kept anyway (a normalised map from the
/// convolution's output, an attended map from the normalised one): the memory, or how to make it again, with the same
/// bits, when backward asks for it.
enum class Keep : uint8_t {
  eager,  ///< all that backward reads
  lean,   ///< only what cannot be made again elementwise
};

/// What ops of this thread keep while it lives (eager outside of any scope).
class KeepScope {
 public:
  explicit KeepScope(Keep keep);
  ~KeepScope();
  KeepScope(const KeepScope&) = delete;
  KeepScope& operator=(const KeepScope&) = delete;
  static Keep current();

 private:
  Keep previous_;
};

/// While it lives, batch norm in training mode leaves its running statistics alone: for a forward pass that is made a
/// second time.
class FrozenStatisticsScope {
 public:
  FrozenStatisticsScope();
  ~FrozenStatisticsScope();
  FrozenStatisticsScope(const FrozenStatisticsScope&) = delete;
  FrozenStatisticsScope& operator=(const FrozenStatisticsScope&) = delete;
  static bool active();

 private:
  bool previous_;
};

namespace autograd {

struct Remake;

/// False under a NoGradScope.
bool recording_is_on();

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
/// under Keep::lean, before anything saves the output.
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

/// A backward within the backward of another op: records `forward`, then runs that tape from its output's gradient dy.
/// The gradient of leaves[i] goes to to.give(i) when it is complete; a leaf that is not listed is an error.
void run_nested(const std::function<Tensor()>& forward, Tensor dy, const std::vector<Tensor>& leaves, Gradients& to);

}  // namespace autograd
}  // namespace saccade
