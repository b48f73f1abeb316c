#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/layer.h>
#include <saccade/kernels/backend.h>

#include <algorithm>
#include <atomic>
#include <queue>
#include <unordered_map>
#include <utility>
#include <vector>

namespace saccade {
namespace autograd {

/// Where an input's gradient goes: to the op that computed it, or to a leaf. Neither: nobody wants it.
struct Edge {
  std::shared_ptr<Node> node;
  Tensor leaf;
};

/// One op on the tape. It holds edges, not input tensors, so that memory which backward does not need is freed.
struct Node {
  const char* op;
  std::string layer;
  uint64_t sequence;
  std::vector<Edge> edges;
  Backward backward;
  bool freed = false;
};

}  // namespace autograd

namespace {

using autograd::Edge;
using autograd::Node;

thread_local bool grad_mode = true;
thread_local bool statistics_frozen = false;
thread_local Keep keep_mode = Keep::eager;
thread_local const Node* running = nullptr;
thread_local std::vector<Tensor>* watched_leaves = nullptr;  // what run_unrecorded() collects
std::atomic<uint64_t> next_sequence{0};

Tensor sum_of(Tensor a, const Tensor& b) {
  Tensor y = a.owns_memory_alone() ? a : Tensor::empty_like(a);
  kernels::backend(y.device()).add(y.dtype(), y.numel(), a.raw(), b.raw(), y.raw());
  return y;
}

/// One run of backward: how many gradients each op and leaf still waits for, and what has come so far.
class Engine {
 public:
  explicit Engine(const std::shared_ptr<Node>& root) { count(root); }
  /// A nested run: gradients of leaves, by their index, go to `outer` instead of into the leaves.
  Engine(const std::shared_ptr<Node>& root, const std::vector<Tensor>& leaves, autograd::Gradients& outer)
      : Engine(root) {
    outer_ = &outer;
    for (size_t i = 0; i < leaves.size(); ++i)
      if (const auto used = leaves_.find(leaves[i].impl()); used != leaves_.end()) used->second.index = i;
    for (const auto& [leaf, state] : leaves_)
      if (state.index == LeafState::unlisted)
        fail(
            fmt::format("checkpoint: a tensor of shape {} wants a gradient from the recomputation, but the first "
                        "computation did not use it",
                        to_string(leaf->shape)));
  }

  void run(const std::shared_ptr<Node>& root, Tensor gradient) {
    ops_[root.get()].gradient = std::move(gradient);
    ready_.push(root.get());
    while (!ready_.empty()) {
      Node* node = ready_.top();
      ready_.pop();
      step(*node);
    }
  }

 private:
  struct OpState {
    int pending = 0;
    Tensor gradient;
    std::shared_ptr<Node> keep;  // the edge that led here is cleared before this op runs
  };
  struct LeafState {
    static constexpr size_t unlisted = SIZE_MAX;
    int pending = 0;
    size_t index = unlisted;  // in a nested run
    Tensor gradient;          // likewise; else it collects in the leaf
  };
  struct Later {
    bool operator()(const Node* a, const Node* b) const { return a->sequence < b->sequence; }
  };

  void count(const std::shared_ptr<Node>& root) {
    std::vector<Node*> stack{root.get()};
    ops_[root.get()].keep = root;
    while (!stack.empty()) {
      Node* node = stack.back();
      stack.pop_back();
      if (node->freed)
        fail(fmt::format("backward: the tape of {} was freed by an earlier backward(); compute the forward again",
                         node->op));
      for (const Edge& edge : node->edges) {
        if (edge.node) {
          auto [it, fresh] = ops_.try_emplace(edge.node.get());
          ++it->second.pending;
          if (fresh) {
            it->second.keep = edge.node;
            stack.push_back(edge.node.get());
          }
        } else if (edge.leaf.defined()) {
          ++leaves_[edge.leaf.impl()].pending;
        }
      }
    }
  }

  void step(Node& node) {
    class Delivery final : public autograd::Gradients {
     public:
      Delivery(Engine& engine, Node& node) : engine_(engine), node_(node), given_(node.edges.size()) {}
      bool wanted(size_t i) const override {
        return i < node_.edges.size() && (node_.edges[i].node || node_.edges[i].leaf.defined());
      }
      void give(size_t i, Tensor gradient) override {
        if (!wanted(i) || given_[i]) return;
        given_[i] = true;
        engine_.deliver(node_.edges[i], std::move(gradient));
      }
      void finish() {
        for (size_t i = 0; i < given_.size(); ++i)
          if (wanted(i) && !given_[i]) engine_.deliver(node_.edges[i], Tensor());
      }

     private:
      Engine& engine_;
      Node& node_;
      std::vector<bool> given_;
    };

    const std::shared_ptr<Node> keep = std::move(ops_[&node].keep);
    Tensor dy = std::move(ops_[&node].gradient);
    Delivery delivery(*this, node);
    if (dy.defined()) {
      const LayerScope scope = LayerScope::absolute(node.layer);
      const DeviceScope device(dy.device());
      const Node* outer = std::exchange(running, &node);
      try {
        node.backward(std::move(dy), delivery);
      } catch (...) {
        running = outer;
        throw;
      }
      running = outer;
    }
    node.backward = nullptr;  // frees what was saved
    delivery.finish();
    node.edges.clear();
    node.freed = true;
  }

  void deliver(const Edge& edge, Tensor gradient) {
    if (edge.node) {
      OpState& op = ops_.at(edge.node.get());
      if (gradient.defined())
        op.gradient = op.gradient.defined() ? sum_of(std::move(op.gradient), gradient) : std::move(gradient);
      if (--op.pending == 0) ready_.push(edge.node.get());
      return;
    }
    Tensor leaf = edge.leaf;
    Tensor::Impl& impl = *leaf.impl();
    LeafState& state = leaves_.at(&impl);
    Tensor& sum = outer_ == nullptr ? impl.grad : state.gradient;
    if (gradient.defined()) {
      if (gradient.numel() != leaf.numel() || gradient.dtype() != leaf.dtype())
        fail(fmt::format("backward: a leaf of shape {} was given a gradient of shape {}", to_string(leaf.shape()),
                         to_string(gradient.shape())));
      sum = sum.defined() ? sum_of(std::move(sum), gradient) : std::move(gradient);
    }
    if (--state.pending > 0 || !sum.defined()) return;
    if (outer_ != nullptr) {
      outer_->give(state.index, std::move(sum));
      return;
    }
    for (const auto& hook : std::vector(impl.hooks)) hook(leaf);
  }

  std::unordered_map<Node*, OpState> ops_;
  std::unordered_map<Tensor::Impl*, LeafState> leaves_;
  autograd::Gradients* outer_ = nullptr;
  std::priority_queue<Node*, std::vector<Node*>, Later> ready_;  // latest op first: a fixed order
};

}  // namespace

NoGradScope::NoGradScope(bool enabled) : previous_(grad_mode) {
  if (enabled) grad_mode = false;
}
NoGradScope::~NoGradScope() { grad_mode = previous_; }

KeepScope::KeepScope(Keep wanted) : previous_(std::exchange(keep_mode, wanted)) {}
KeepScope::~KeepScope() { keep_mode = previous_; }
Keep KeepScope::current() { return keep_mode; }

FrozenStatisticsScope::FrozenStatisticsScope() : previous_(std::exchange(statistics_frozen, true)) {}
FrozenStatisticsScope::~FrozenStatisticsScope() { statistics_frozen = previous_; }
bool FrozenStatisticsScope::active() { return statistics_frozen; }

namespace autograd {

/// How a tensor is made again, and what was made, while somebody who keeps it is still there.
struct Remake {
  std::function<Tensor()> make;
  int users = 0;
  Tensor made;
};

/// One Saved and its copies.
struct Saved::User {
  explicit User(std::shared_ptr<Remake> of) : remake(std::move(of)) { ++remake->users; }
  ~User() {
    if (--remake->users == 0) remake->made = Tensor();
  }
  User(const User&) = delete;
  User& operator=(const User&) = delete;
  std::shared_ptr<Remake> remake;
};

void remakeable(const Tensor& output, std::function<Tensor()> make) {
  auto remake = std::make_shared<Remake>();
  remake->make = std::move(make);
  output.impl()->remake = std::move(remake);
}

bool recording_is_on() { return grad_mode; }

bool recording(std::initializer_list<Tensor> inputs) {
  if (watched_leaves != nullptr)
    for (const Tensor& t : inputs)
      if (t.requires_grad() && t.is_leaf() &&
          std::none_of(watched_leaves->begin(), watched_leaves->end(),
                       [&](const Tensor& seen) { return seen.impl() == t.impl(); }))
        watched_leaves->push_back(t);
  if (!grad_mode) return false;
  for (const Tensor& t : inputs)
    if (t.defined() && t.requires_grad()) return true;
  return false;
}

Saved::Saved(const Tensor& tensor) {
  if (tensor.impl()->remake) {
    user_ = std::make_shared<User>(tensor.impl()->remake);
    return;
  }
  tensor_ = tensor.detach();
  version_ = tensor.version();
}

Tensor Saved::get() const {
  if (user_) {
    Remake& remake = *user_->remake;
    if (remake.made.defined()) return remake.made;
    const PhaseScope phase(Phase::recompute);
    Tensor made = remake.make();
    if (remake.users > 1) remake.made = made;
    return made;
  }
  if (tensor_.version() != version_)
    fail(fmt::format(
        "backward of {}: a tensor of shape {} saved for it was modified in place afterwards (version {}, "
        "saved at {})",
        running == nullptr ? "an op" : running->op, to_string(tensor_.shape()), tensor_.version(), version_));
  return tensor_;
}

void record(const Tensor& output, const char* op, const std::vector<Tensor>& inputs, Backward backward) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->layer = LayerScope::current();
  node->sequence = next_sequence++;
  node->backward = std::move(backward);
  node->edges.reserve(inputs.size());
  for (const Tensor& input : inputs) {
    Edge edge;
    if (input.defined() && input.requires_grad()) {
      if (input.impl()->node)
        edge.node = input.impl()->node;
      else
        edge.leaf = input;
    }
    node->edges.push_back(std::move(edge));
  }
  output.impl()->node = std::move(node);
  output.impl()->requires_grad = true;
}

namespace {

template <class T>
class Restore {
 public:
  Restore(T& variable, T value) : variable_(variable), before_(std::exchange(variable, value)) {}
  ~Restore() { variable_ = before_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T& variable_;
  T before_;
};

}  // namespace

Tensor run_unrecorded(const std::function<Tensor()>& fn, std::vector<Tensor>& leaves) {
  const NoGradScope no_grad;
  const Restore watch(watched_leaves, &leaves);
  return fn();
}

void run_nested(const std::function<Tensor()>& forward, Tensor dy, const std::vector<Tensor>& leaves, Gradients& to) {
  std::shared_ptr<Node> root;
  {
    const Restore recorded(grad_mode, true);
    const PhaseScope phase(Phase::recompute);
    const Tensor y = forward();
    if (y.shape() != dy.shape() || y.dtype() != dy.dtype())
      fail(fmt::format("checkpoint: the recomputation gave a tensor of shape {}, the first computation one of {}",
                       to_string(y.shape()), to_string(dy.shape())));
    root = y.impl()->node;
  }
  if (!root) return;
  Engine engine(root, leaves, to);
  engine.run(std::exchange(root, nullptr), std::move(dy));
}

}  // namespace autograd

bool Tensor::requires_grad() const { return defined() && impl_->requires_grad; }
bool Tensor::is_leaf() const { return defined() && impl_->node == nullptr; }

Tensor& Tensor::requires_grad_(bool on) {
  if (!is_leaf()) fail("requires_grad_: only a leaf can be asked for a gradient; this tensor is the result of an op");
  if (on && !is_floating(dtype())) fail("requires_grad_: only floating-point tensors have gradients");
  impl_->requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const { return defined() ? impl_->grad : Tensor(); }
void Tensor::set_grad(Tensor grad) const { impl_->grad = std::move(grad); }

void Tensor::on_gradient_ready(std::function<void(Tensor&)> hook) const { impl_->hooks.push_back(std::move(hook)); }
void Tensor::clear_hooks() const { impl_->hooks.clear(); }

void Tensor::backward() const {
  if (!requires_grad() || is_leaf())
    fail("backward: this tensor is not the result of a recorded op on anything that wants a gradient");
  if (numel() != 1) fail(fmt::format("backward: expected one element, got shape {}", to_string(shape())));
  Tensor one;
  {
    const DeviceScope scope(device());
    one = full(shape(), 1.f, dtype());
  }
  const NoGradScope no_grad;
  const PhaseScope phase(Phase::backward);
  Engine(impl_->node).run(impl_->node, std::move(one));
}

}  // namespace saccade
