#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/nn/module.h>

#include <algorithm>

namespace saccade::nn {
namespace {

using Visitor = std::function<void(const std::string& path, const Module& module)>;

const OutputWatch* only(const OutputWatch& watch) {
  if (Context::current().watch != nullptr) fail("module: an OutputHook lives on this thread already");
  return &watch;
}

std::string join(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

void walk(const std::string& path, const Module& module, const Visitor& visitor) {
  visitor(path, module);
  for (const auto& [name, child] : module.children()) walk(join(path, name), *child, visitor);
}

}  // namespace

OutputHook::OutputHook(OutputWatch function) : function_(std::move(function)), scope_(only(function_)) {}

Tensor Module::operator()(const Tensor& x) {
  const LayerScope layer(name_);
  return shown(forward(x));
}

Tensor Module::shown(Tensor output) {
  if (const OutputWatch* watch = Context::current().watch) (*watch)(LayerScope::current(), output);
  return output;
}

std::vector<NamedTensor> Module::named(bool with_parameters, bool with_buffers) const {
  std::vector<NamedTensor> result;
  walk("", *this, [&](const std::string& path, const Module& module) {
    if (with_parameters)
      for (const NamedTensor& t : module.parameters_) result.push_back({join(path, t.name), t.tensor});
    if (with_buffers)
      for (const NamedTensor& t : module.buffers_) result.push_back({join(path, t.name), t.tensor});
  });
  return result;
}

std::vector<NamedTensor> Module::named_parameters() const { return named(true, false); }
std::vector<NamedTensor> Module::named_buffers() const { return named(false, true); }
std::vector<NamedTensor> Module::named_tensors() const { return named(true, true); }

std::vector<Tensor> Module::parameters() const {
  std::vector<Tensor> result;
  for (NamedTensor& t : named_parameters()) result.push_back(std::move(t.tensor));
  return result;
}

Device Module::device() const {
  const std::vector<Tensor> all = parameters();
  return all.empty() ? Device::cpu : all.front().device();
}

int64_t Module::parameter_count() const {
  int64_t count = 0;
  for (const NamedTensor& t : named_parameters()) count += t.tensor.numel();
  return count;
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) child->train(on);
}

void Module::requires_grad(bool on) {
  for (Tensor& t : parameters()) t.requires_grad_(on);
}

void Module::visit(const std::function<void(const std::string& path, Module& module)>& visitor) {
  walk("", *this, [&](const std::string& path, const Module& module) { visitor(path, const_cast<Module&>(module)); });
}

void Module::check_free(const std::string& name) const {
  const auto taken = [&](const NamedTensor& t) { return t.name == name; };
  if (name.empty() || std::any_of(parameters_.begin(), parameters_.end(), taken) ||
      std::any_of(buffers_.begin(), buffers_.end(), taken) ||
      std::any_of(children_.begin(), children_.end(), [&](const auto& child) { return child.first == name; }))
    fail(fmt::format("module: the name \"{}\" is empty or taken already", name));
}

Tensor Module::add_parameter(std::string name, Tensor tensor) {
  check_free(name);
  tensor.requires_grad_();
  parameters_.push_back({std::move(name), tensor});
  return tensor;
}

Tensor Module::add_buffer(std::string name, Tensor tensor) {
  check_free(name);
  buffers_.push_back({std::move(name), tensor});
  return tensor;
}

void Module::adopt(const std::string& name, std::shared_ptr<Module> child) {
  check_free(name);
  if (!child) fail(fmt::format("module: no module was given for the name \"{}\"", name));
  if (!child->name_.empty() && child->name_ != name)
    fail(fmt::format("module: the child \"{}\" already belongs to a parent, as \"{}\"", name, child->name_));
  child->name_ = name;
  child->train(training_);
  children_.emplace_back(name, std::move(child));
}

}  // namespace saccade::nn
