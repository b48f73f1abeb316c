#include <saccade/kernels/error.h>
#include <saccade/kernels/rehearsal.h>

#include <utility>

namespace saccade::kernels {
namespace {

thread_local MetaListener* listener = nullptr;

/// Bytes are the operands read once and the results written once; an optional one counts where its pointer is given.
template <class OneCall>
Cost cost_of_one(const OneCall& call) {
  Cost cost;
  if constexpr (requires { call.flops(); }) cost.flops = call.flops();
  OneCall::operands(call, [&](const void* pointer, int64_t bytes, Use use) {
    if (pointer == nullptr && is_optional(use)) return;
    use = without_optional(use);
    if (use != Use::shared) cost.bytes_moved += static_cast<double>(use == Use::update ? 2 * bytes : bytes);
  });
  return cost;
}

/// A rehearsal of another backend: computes nothing, asks the rehearsed backend for its workspaces, adds up what each
/// call would cost (meta_cost()), and tells the listener.
class MetaBackend final : public Calls::with<ComputesBy, MetaBackend, Backend> {
 public:
  using ConvWorkspace = std::function<size_t(const Conv2d&, std::span<const Segment>, ConvPass)>;
  /// From now on that one is rehearsed, whose convolutions need what the function says, if there is one.
  void rehearse(const Backend& other, ConvWorkspace conv2d_workspace = {}) {
    rehearsed_ = &other;
    conv2d_workspace_ = std::move(conv2d_workspace);
  }

  Device device() const override { return Device::meta; }
  void to_host(size_t, const void*, void*) override {}
  void from_host(size_t, const void*, void*) override {}
  void synchronize() override {}

  template <class OneCall>
  void compute(const OneCall& call) {
    if constexpr (requires { call.refusal(); })
      if (const auto refusal = call.refusal(); !refusal.empty()) throw Error(refusal);
    const Cost cost = cost_of_one(call);
    meta_cost().flops += cost.flops;
    meta_cost().bytes_moved += cost.bytes_moved;
    if (listener != nullptr) listener->on_call(call);
  }
  template <class OneCall>
  size_t scratch(const OneCall& call) const {
    if constexpr (requires { OneCall::pass; })
      if (conv2d_workspace_) return conv2d_workspace_(call.conv, call.segments, OneCall::pass);
    return rehearsed_->workspace(call);
  }

 private:
  const Backend* rehearsed_ = &backend(Device::cpu);
  ConvWorkspace conv2d_workspace_;
};

MetaBackend& the_meta_backend() {
  static MetaBackend meta;
  return meta;
}

}  // namespace

Backend& meta_backend() { return the_meta_backend(); }

Cost& meta_cost() {
  thread_local Cost cost;
  return cost;
}

void rehearse(Device device) {
  if (device == Device::meta) throw Error("rehearse: the meta backend cannot rehearse itself");
  the_meta_backend().rehearse(backend(device));
}

void rehearse(std::function<size_t(const Conv2d&, std::span<const Segment>, ConvPass)> conv2d_workspace) {
  the_meta_backend().rehearse(backend(Device::cpu), std::move(conv2d_workspace));
}

std::string_view name_of(const Call& call) {
  return std::visit([](const auto& c) { return c.name; }, call);
}

Cost cost_of(const Call& call) {
  return std::visit([](const auto& c) { return cost_of_one(c); }, call);
}

MetaListenScope::MetaListenScope(MetaListener& to) : previous_(std::exchange(listener, &to)) {}
MetaListenScope::~MetaListenScope() { listener = previous_; }

}  // namespace saccade::kernels
