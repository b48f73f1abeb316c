#pragma once

#include <saccade/kernels/backend.h>

#include <functional>
#include <span>
#include <string_view>
#include <variant>

/// @file
/// What the meta backend tells whoever listens: each call of a rehearsed program.

namespace saccade::kernels {

/// The backend of Device::meta.
Backend& meta_backend();

/// Which device the meta backend rehearses, of this process: its calls ask for that one's workspaces. The CPU at first.
void rehearse(Device device);
/// As the other, for a device that is not here: what convolutions need of it is the function's to say, the rest is as
/// on the CPU.
void rehearse(std::function<size_t(const Conv2d&, std::span<const Segment>, ConvPass)> conv2d_workspace);

/// Any call. Its pointers are those of a rehearsal, not to be read.
using Call = Calls::with<std::variant>;
std::string_view name_of(const Call& call);
Cost cost_of(const Call& call);

/// Hears of each call on the meta backend from the thread that installed it.
class MetaListener {
 public:
  virtual void on_call(const Call& call) = 0;

 protected:
  ~MetaListener() = default;
};

/// `listener` hears of this thread's calls while the scope lives; of nested scopes the innermost does.
class MetaListenScope {
 public:
  explicit MetaListenScope(MetaListener& listener);
  ~MetaListenScope();
  MetaListenScope(const MetaListenScope&) = delete;
  MetaListenScope& operator=(const MetaListenScope&) = delete;

 private:
  MetaListener* previous_;
};

}  // namespace saccade::kernels
