#pragma once

#include <saccade/core/autograd.h>
#include <saccade/core/ops.h>

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace saccade::testing {

/// Sums gradients over two processes that have computed the same: it doubles them. As a real exchange may, it has the
/// sums of up to `under_way` leaves come later than they are asked for.
class StandInExchange {
 public:
  StandInExchange(const std::vector<Tensor>& leaves, size_t under_way) : under_way_(under_way) {
    for (const Tensor& leaf : leaves)
      hooks_.push_back(leaf.on_gradient_ready(autograd::HookStage::reduce,
                                              [this](autograd::GradientReady& ready) { begin(ready); }));
  }
  int exchanged() const { return exchanged_; }

 private:
  struct Sent {
    Tensor leaf;
    std::function<void()> resume;
  };

  void begin(autograd::GradientReady& ready) {
    if (!ready.last) {
      unsent_.insert(ready.leaf.impl());
      return;
    }
    unsent_.erase(ready.leaf.impl());
    if (!std::exchange(ends_, true)) ready.at_end([this] { finish(); });
    sent_.push_back({ready.leaf, ready.postpone()});
    while (sent_.size() > under_way_) arrive();
  }
  void arrive() {
    const Sent first = std::move(sent_.front());
    sent_.pop_front();
    sum(first.leaf);
    first.resume();
  }
  /// Also of leaves that only an earlier backward has reached.
  void finish() {
    while (!sent_.empty()) arrive();
    for (Tensor::Impl* leaf : std::exchange(unsent_, {})) {
      leaf->grad = add(leaf->grad, leaf->grad);
      ++exchanged_;
    }
    ends_ = false;
  }
  void sum(const Tensor& leaf) {
    leaf.set_grad(add(leaf.grad(), leaf.grad()));
    ++exchanged_;
  }

  size_t under_way_;
  int exchanged_ = 0;
  bool ends_ = false;
  std::deque<Sent> sent_;
  std::set<Tensor::Impl*> unsent_;
  std::vector<std::shared_ptr<const autograd::Hook>> hooks_;
};

}  // namespace saccade::testing
