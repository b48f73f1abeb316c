#include <fmt/format.h>
#include <saccade/core/autograd.h>
#include <saccade/core/checkpoint.h>
#include <saccade/core/layer.h>

#include <algorithm>
#include <utility>

namespace saccade {
namespace {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;

/// Generators put back to earlier states; they are what they were afterwards, though fn may throw.
class Rewound {
 public:
  Rewound(const std::vector<Philox*>& generators, const std::vector<Philox>& states) : generators_(generators) {
    for (size_t i = 0; i < generators.size(); ++i) now_.push_back(std::exchange(*generators[i], states[i]));
  }
  ~Rewound() {
    for (size_t i = 0; i < now_.size(); ++i) *generators_[i] = now_[i];
  }
  Rewound(const Rewound&) = delete;
  Rewound& operator=(const Rewound&) = delete;

 private:
  const std::vector<Philox*>& generators_;
  std::vector<Philox> now_;
};

/// What the second run of a function needs to be like the first.
struct Rerun {
  Function fn;
  Context context = Context::current();
  std::vector<Philox*> generators = {};
  std::vector<Philox> states = {};  ///< of the generators, before the first run
  std::vector<autograd::Saved> inputs = {};
  std::vector<autograd::Saved> parameters = {};  ///< leaves that fn used beside its inputs

  Tensor operator()(const std::vector<Tensor>& fresh) const {
    const Rewound rewound(generators, states);
    return fn(fresh);
  }
};

}  // namespace

Tensor checkpoint(Function fn, const std::vector<Tensor>& inputs, std::vector<Philox*> generators) {
  Rerun rerun{.fn = std::move(fn), .generators = std::move(generators)};
  for (const Philox* generator : rerun.generators) rerun.states.push_back(*generator);
  if (!rerun.context.recording) return rerun.fn(inputs);

  std::vector<Tensor> leaves;
  Tensor y = autograd::run_unrecorded([&] { return rerun.fn(inputs); }, leaves);
  const auto is_input = [&](const Tensor& leaf) {
    return std::any_of(inputs.begin(), inputs.end(), [&](const Tensor& t) { return t.impl() == leaf.impl(); });
  };
  std::erase_if(leaves, is_input);
  std::vector<Tensor> edges = inputs;
  edges.insert(edges.end(), leaves.begin(), leaves.end());
  if (std::none_of(edges.begin(), edges.end(), [](const Tensor& t) { return t.requires_grad(); })) return y;

  for (const Tensor& t : inputs) rerun.inputs.emplace_back(t);
  for (const Tensor& t : leaves) rerun.parameters.emplace_back(t);
  y = y.detach();  // fn may have given an input back
  autograd::record(y, "checkpoint", edges,
                   [rerun = std::move(rerun), leaves = std::move(leaves)](Tensor dy, autograd::Gradients& to) {
                     for (const autograd::Saved& parameter : rerun.parameters) (void)parameter.get();  // unchanged?
                     std::vector<Tensor> fresh, wanted;
                     for (size_t i = 0; i < rerun.inputs.size(); ++i) {
                       fresh.push_back(rerun.inputs[i].get().detach());
                       if (to.wanted(i)) fresh.back().requires_grad_();
                     }
                     wanted = fresh;
                     wanted.insert(wanted.end(), leaves.begin(), leaves.end());
                     autograd::run_nested(
                         rerun.context, [&] { return rerun(fresh); }, std::move(dy), wanted, to);
                   });
  return y;
}

}  // namespace saccade
