#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>

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
  const std::string* layer;  // as in Context
  uint64_t sequence;
  std::vector<Edge> edges;
  Backward backward;
  bool freed = false;
};

struct Hook {
  HookStage stage;
  std::function<void(GradientReady&)> function;
};

/// What a backward and the hooks of its leaves have in common.
struct BackwardRun : std::enable_shared_from_this<BackwardRun> {
  void complete(const Tensor& leaf) {
    if (!leaf.impl()->hooks.empty()) GradientReady(leaf, HookStage::reduce, shared_from_this()).run_hooks();
  }
  bool last;
  bool over = false;
  int postponed = 0;
  std::vector<std::function<void()>> at_end = {};
};

GradientReady::GradientReady(Tensor of, HookStage stage, std::shared_ptr<BackwardRun> run)
    : leaf(std::move(of)), last(run->last), stage_(stage), run_(std::move(run)), holds_(std::make_shared<int>(1)) {}

void GradientReady::run_hooks() {
  for (const auto& registered : std::vector(leaf.impl()->hooks))  // as they are now: a hook may register others
    if (const auto hook = registered.lock(); hook && hook->stage == stage_) hook->function(*this);
  release();
}

void GradientReady::release() {
  if (--*holds_ == 0 && stage_ == HookStage::reduce) GradientReady(leaf, HookStage::update, run_).run_hooks();
}

std::function<void()> GradientReady::postpone() {
  ++*holds_;
  ++run_->postponed;
  return [ready = *this]() mutable {
    if (ready.run_->over) return;
    --ready.run_->postponed;
    ready.release();
  };
}

void GradientReady::at_end(std::function<void()> finish) { run_->at_end.push_back(std::move(finish)); }

}  // namespace autograd

namespace {

using autograd::Edge;
using autograd::Node;

std::atomic<uint64_t> next_sequence{0};

Tensor sum_of(Tensor a, const Tensor& b) {
  Tensor y = a.owns_memory_alone() ? a : Tensor::empty_like(a);
  compute(y.device(), kernels::Combine{kernels::Binary::add, y.dtype(), y.numel(), a.raw(), b.raw(), y.raw()});
  return y;
}

/// One run of backward: how many gradients each op and leaf still waits for, and what has come so far.
class Engine {
 public:
  Engine(const std::shared_ptr<Node>& root, autograd::BackwardRun& hooked) : hooked_(&hooked) { count(root); }
  /// A nested run: gradients of leaves, by their index, go to `outer` instead of into the leaves.
  Engine(const std::shared_ptr<Node>& root, const std::vector<Tensor>& leaves, autograd::Gradients& outer)
      : outer_(&outer) {
    count(root);
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
      const LayerScope layer(node.layer);
      const DeviceScope device(dy.device());
      const FieldScope<&Context::op> op(node.op);
      node.backward(std::move(dy), delivery);
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
    hooked_->complete(leaf);
  }

  std::unordered_map<Node*, OpState> ops_;
  std::unordered_map<Tensor::Impl*, LeafState> leaves_;
  autograd::BackwardRun* hooked_ = nullptr;
  autograd::Gradients* outer_ = nullptr;                         // of a nested run, which has no hooks
  std::priority_queue<Node*, std::vector<Node*>, Later> ready_;  // latest op first: a fixed order
};

}  // namespace

namespace autograd {

/// How a tensor is made again, and what was made, while somebody who keeps it is still there.
struct Remake {
  std::function<Tensor()> make;
  Context context;  ///< to make it in
  int users = 0;
  Tensor made = {};
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
  output.impl()->remake = std::make_shared<Remake>(Remake{std::move(make), Context::current()});
}

bool recording(std::initializer_list<Tensor> inputs) {
  const Context& context = Context::current();
  if (context.leaves != nullptr)
    for (const Tensor& t : inputs)
      if (t.requires_grad() && t.is_leaf() &&
          std::ranges::none_of(*context.leaves, [&](const Tensor& seen) { return seen.impl() == t.impl(); }))
        context.leaves->push_back(t);
  if (!context.recording) return false;
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
    const ContextScope as_then(remake.context.again(false));
    Tensor made = remake.make();
    if (remake.users > 1) remake.made = made;
    return made;
  }
  const char* op = Context::current().op;
  if (tensor_.version() != version_)
    fail(
        fmt::format("backward of {}: a tensor of shape {} saved for it was modified in place afterwards (version {}, "
                    "saved at {})",
                    op == nullptr ? "an op" : op, to_string(tensor_.shape()), tensor_.version(), version_));
  return tensor_;
}

void record(const Tensor& output, const char* op, const std::vector<Tensor>& inputs, Backward backward) {
  auto node = std::make_shared<Node>();
  node->op = op;
  node->layer = Context::current().layer;
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

Tensor run_unrecorded(const std::function<Tensor()>& fn, std::vector<Tensor>& leaves) {
  const NoGradScope no_grad;
  const FieldScope<&Context::leaves> collect(&leaves);
  return fn();
}

void run_nested(const Context& first, const std::function<Tensor()>& forward, Tensor dy,
                const std::vector<Tensor>& leaves, Gradients& to) {
  std::shared_ptr<Node> root;
  {
    const ContextScope as_then(first.again(true));
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

std::shared_ptr<const autograd::Hook> Tensor::on_gradient_ready(
    autograd::HookStage stage, std::function<void(autograd::GradientReady&)> hook) const {
  auto registered = std::make_shared<const autograd::Hook>(autograd::Hook{stage, std::move(hook)});
  std::erase_if(impl_->hooks, [](const auto& earlier) { return earlier.expired(); });
  impl_->hooks.push_back(registered);
  return registered;
}

void Tensor::backward(BackwardOptions options) const {
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
  const auto run = std::make_shared<autograd::BackwardRun>();
  run->last = options.last;
  struct Over {
    autograd::BackwardRun& run;
    ~Over() {
      run.over = true;
      run.at_end.clear();
    }
  } const over_afterwards{*run};
  Engine(impl_->node, *run).run(impl_->node, std::move(one));
  for (size_t i = 0; i < run->at_end.size(); ++i) std::exchange(run->at_end[i], nullptr)();
  if (run->postponed > 0)
    fail(fmt::format("backward: it is over, but {} hooks that postponed a leaf's later stages have not resumed them",
                     run->postponed));
}

}  // namespace saccade
