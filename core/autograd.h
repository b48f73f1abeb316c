#pragma once

#include <saccade/core/tensor.h>

#include <functional>
#include <initializer_list>
#include <string>

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

namespace autograd {

/// True when recording is on and one of the inputs (undefined ones are passed over) leads to a leaf that wants a
/// gradient.
bool recording(std::initializer_list<Tensor> inputs);

/// A tensor kept for backward. It holds the memory, not the tape behind the tensor, and the version it was saved at:
/// get() throws, naming op and layer, when the tensor was modified in place since.
class Saved {
 public:
  Saved() = default;
  explicit Saved(const Tensor& tensor);
  Tensor get() const;
  bool defined() const { return tensor_.defined(); }

 private:
  Tensor tensor_;
  uint64_t version_ = 0;
};

/// Where a backward function delivers the gradients of its inputs.
class Gradients {
 public:
  virtual ~Gradients() = default;
  /// Does anyone want the gradient of input i?
  virtual bool wanted(size_t i) const = 0;
  /// Delivers it, once an input and backward; a leaf's gradient is complete, and its hooks run, at that moment.
  virtual void give(size_t i, Tensor gradient) = 0;
};

/// Given the output's gradient (which it may overwrite if owns_memory_alone()), delivers those of the inputs.
using Backward = std::function<void(Tensor dy, Gradients& to)>;

/// Puts an op on the tape: `output` was computed from `inputs`; `backward` undoes it. Call only if recording(inputs).
/// Outputs are one tensor an op; inputs that may be absent are passed undefined and keep their index.
void record(const Tensor& output, const char* op, std::initializer_list<Tensor> inputs, Backward backward);

}  // namespace autograd
}  // namespace saccade
