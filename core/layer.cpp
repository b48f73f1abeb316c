#include <fmt/format.h>
#include <saccade/core/layer.h>
#include <saccade/core/tensor.h>
#include <saccade/kernels/cuda_device.h>
#include <saccade/kernels/error.h>

#include <utility>

namespace saccade {
namespace {
std::string& path() {
  thread_local std::string text;
  return text;
}
}  // namespace

LayerScope::LayerScope(std::string_view name) : previous_length_(path().size()) {
  if (name.empty()) return;
  if (!path().empty()) path() += '.';
  path() += name;
  mark();
}

LayerScope::LayerScope(std::string_view full_name, int)
    : replaced_(std::exchange(path(), std::string(full_name))), absolute_(true) {
  mark();
}

void LayerScope::mark() {
  marked_ = DeviceScope::current() == Device::cuda;
  if (marked_) kernels::begin_cuda_range(path().c_str());
}

LayerScope::~LayerScope() {
  if (marked_) kernels::end_cuda_range();
  if (absolute_)
    path() = std::move(replaced_);
  else
    path().resize(previous_length_);
}

const std::string& LayerScope::current() { return path(); }

void fail(const std::string& sentence) {
  throw Error(path().empty() ? sentence : fmt::format("{} (layer {})", sentence, path()));
}

}  // namespace saccade
