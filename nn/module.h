#pragma once

#include <saccade/core/named_tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace saccade::nn {

using saccade::NamedTensor;

/// Sees what every module returns, on this thread, while it lives: called with the layer's full name (see LayerScope)
/// and its result, the inner layers before the outer; not once more where backward recomputes. One at a time.
class [[nodiscard]] OutputHook {
 public:
  explicit OutputHook(OutputWatch function);

 private:
  OutputWatch function_;
  FieldScope<&Context::watch> scope_;
};

/// A layer or a tree of layers: named parameters (which want gradients), named buffers (which do not), named children.
/// Calling a module runs its forward under a LayerScope of its name, so errors, tape and memory reports can name it.
///
/// Parameters are made on the current DeviceScope: a module built under DeviceScope(Device::meta) has shapes only.
class Module {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Input and output are described by each module.
  Tensor operator()(const Tensor& x);

  /// In the order of registration, depth first: own tensors before those of children.
  std::vector<NamedTensor> named_parameters() const;
  std::vector<NamedTensor> named_buffers() const;
  /// Parameters and buffers together, in the order a state dict lists them.
  std::vector<NamedTensor> named_tensors() const;
  std::vector<Tensor> parameters() const;
  int64_t parameter_count() const;
  /// Where its first parameter lies, as all do that were made together; cpu without any.
  Device device() const;

  /// Training or evaluation mode, of the whole tree (batch norm is what differs).
  void train(bool on = true);
  bool is_training() const { return training_; }
  /// Whether parameters want gradients, of the whole tree.
  void requires_grad(bool on);

  const std::vector<std::pair<std::string, std::shared_ptr<Module>>>& children() const { return children_; }
  /// Calls `visitor(path, module)` for this module (path "") and all below it.
  void visit(const std::function<void(const std::string& path, Module& module)>& visitor);

 protected:
  Module() = default;
  /// The name under which the parent registered this module; empty for a root.
  const std::string& name() const { return name_; }
  virtual Tensor forward(const Tensor& x) = 0;
  /// Hands a result to the OutputHook, if there is one, and back: for modules that are called in other ways as well.
  static Tensor shown(Tensor output);

  /// @name Registration, for constructors. A name that is taken already is an error; a name may hold dots ("f.a.0").
  /// @{
  Tensor add_parameter(std::string name, Tensor tensor);
  Tensor add_buffer(std::string name, Tensor tensor);
  template <class M>
  std::shared_ptr<M> add_child(const std::string& name, std::shared_ptr<M> child) {
    adopt(name, child);
    return child;
  }
  /// @}

 private:
  void adopt(const std::string& name, std::shared_ptr<Module> child);
  void check_free(const std::string& name) const;
  std::vector<NamedTensor> named(bool with_parameters, bool with_buffers) const;

  std::string name_;
  bool training_ = true;
  std::vector<NamedTensor> parameters_, buffers_;
  std::vector<std::pair<std::string, std::shared_ptr<Module>>> children_;
};

}  // namespace saccade::nn
