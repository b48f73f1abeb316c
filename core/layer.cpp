#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <mutex>
#include <unordered_set>

namespace saccade {
namespace {

/// The name of a layer within the current one. Each name is kept once, for good: contexts, tape and allocator point to
/// it.
const std::string* inner(std::string_view name) {
  if (name.empty()) return Context::current().layer;
  std::string full = LayerScope::current();
  if (!full.empty()) full += '.';
  full += name;
  static std::mutex mutex;
  static auto& names = *new std::unordered_set<std::string>;  // outlives whoever points to one
  const std::lock_guard lock(mutex);
  return &*names.insert(std::move(full)).first;
}

bool mark(const std::string* layer) {
  if (layer == nullptr || Context::current().device != Device::cuda) return false;
  kernels::begin_cuda_range(layer->c_str());
  return true;
}

}  // namespace

LayerScope::LayerScope(std::string_view name) : scope_(inner(name)), marked_(!name.empty() && mark(scope_.current())) {}

LayerScope::LayerScope(const std::string* layer) : scope_(layer), marked_(mark(layer)) {}

LayerScope::~LayerScope() {
  if (marked_) kernels::end_cuda_range();
}

const std::string& LayerScope::current() {
  static const std::string& none = *new std::string;
  const std::string* layer = Context::current().layer;
  return layer != nullptr ? *layer : none;
}

void fail(const std::string& sentence) {
  const std::string& layer = LayerScope::current();
  throw Error(layer.empty() ? sentence : fmt::format("{} (layer {})", sentence, layer));
}

}  // namespace saccade
