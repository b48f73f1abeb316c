#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/core/layer.h>
#include <saccade/kernels/backend.h>
#include <saccade/nn/optim/optimizer.h>

#include <set>

namespace saccade::optim {
namespace {

float* f32(const Tensor& t, const char* what, const std::string& name) {
  if (t.dtype() != DType::f32)
    fail(fmt::format("optimizer: {} of {} is {}, expected f32", what, name, name_of(t.dtype())));
  return static_cast<float*>(t.raw());
}

}  // namespace

Optimizer::Optimizer(std::vector<ParameterGroup> groups, std::vector<const char*> states, bool counts_steps,
                     float weight_decay, bool decay_vectors)
    : groups_(std::move(groups)),
      state_names_(std::move(states)),
      counts_steps_(counts_steps),
      weight_decay_(weight_decay),
      decay_vectors_(decay_vectors) {
  std::set<std::string_view> names;
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters)
      if (!names.insert(p.name).second) fail(fmt::format("optimizer: two parameters are named {}", p.name));
}

void Optimizer::step(float lr) {
  const PhaseScope phase(Phase::optimizer);
  // One backend call for all tensors that share device and hyper-parameters: as a rule, one in all.
  std::map<std::pair<Device, Common>, std::vector<kernels::ParameterSlot>> calls;
  for (const ParameterGroup& group : groups_)
    for (const auto& [name, parameter] : group.parameters) {
      const Tensor gradient = parameter.grad();
      if (!gradient.defined()) continue;
      if (gradient.shape() != parameter.shape() || gradient.device() != parameter.device())
        fail(fmt::format("optimizer: the gradient of {} is {} on {}, expected {} on {}", name,
                         to_string(gradient.shape()), name_of(gradient.device()), to_string(parameter.shape()),
                         name_of(parameter.device())));
      State& state = states_[name];
      while (state.tensors.size() < state_names_.size()) {
        const TagScope tag(Tag::optimizer);
        state.tensors.push_back(Tensor::zeros_like(parameter));
      }
      ++state.steps;
      const bool decayed = decay_vectors_ || parameter.rank() != 1;
      const Common common{.lr = lr * group.lr_scale,
                          .weight_decay = decayed ? group.weight_decay.value_or(weight_decay_) : 0.f,
                          .step = counts_steps_ ? state.steps : 1};
      calls[{parameter.device(), common}].push_back(
          {.parameter = f32(parameter, "the value", name),
           .gradient = f32(gradient, "the gradient", name),
           .state1 = f32(state.tensors[0], "the state", name),
           .state2 = state_names_.size() > 1 ? f32(state.tensors[1], "the state", name) : nullptr,
           .elements = parameter.numel()});
      parameter.bump_version();
    }
  for (const auto& [key, slots] : calls) update(key.first, key.second, slots);
}

void Optimizer::zero_grad() {
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) p.tensor.set_grad({});
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> result;
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) {
      const auto found = states_.find(p.name);
      if (found == states_.end()) continue;
      for (size_t i = 0; i < state_names_.size(); ++i)
        result.push_back({fmt::format("{}.{}", state_names_[i], p.name), found->second.tensors[i]});
      if (!counts_steps_) continue;
      const DeviceScope device(Device::cpu);
      Tensor step = Tensor::empty({1}, DType::i64);
      step.data<int64_t>()[0] = found->second.steps;
      result.push_back({"step." + p.name, step});
    }
  return result;
}

void Optimizer::load_state(const std::vector<NamedTensor>& state) {
  std::map<std::string_view, Tensor> given;
  for (const NamedTensor& t : state) given[t.name] = t.tensor;
  const auto take = [&](const std::string& name, const Shape& shape, DType dtype) {
    const auto found = given.find(name);
    if (found == given.end()) return Tensor();
    Tensor t = found->second;
    if (t.shape() != shape || t.dtype() != dtype)
      fail(fmt::format("optimizer state: {} is {} {}, expected {} {}", name, name_of(t.dtype()), to_string(t.shape()),
                       name_of(dtype), to_string(shape)));
    given.erase(found);
    return t;
  };
  std::map<std::string, State, std::less<>> loaded;
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) {
      State one;
      for (const char* kind : state_names_) {
        const Tensor t = take(fmt::format("{}.{}", kind, p.name), p.tensor.shape(), DType::f32);
        if (!t.defined()) continue;
        const TagScope tag(Tag::optimizer);
        one.tensors.push_back(t.to(p.tensor.device()).clone());
      }
      const Tensor step = counts_steps_ ? take("step." + p.name, {1}, DType::i64) : Tensor();
      if (one.tensors.empty() && !step.defined()) continue;
      if (one.tensors.size() != state_names_.size() || step.defined() != counts_steps_)
        fail(fmt::format("optimizer state: of parameter {} only a part was given", p.name));
      if (step.defined()) one.steps = step.data<int64_t>()[0];
      loaded[p.name] = std::move(one);
    }
  if (!given.empty())
    fail(fmt::format("optimizer state: {} belongs to no parameter of this optimizer ({} such)", given.begin()->first,
                     given.size()));
  states_ = std::move(loaded);
}

Sgd::Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options)
    : Optimizer(std::move(groups), {"momentum"}, false, options.weight_decay, options.decay_vectors),
      options_(options) {}

void Sgd::update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) {
  kernels::backend(device).sgd({.lr = common.lr,
                                .momentum = options_.momentum,
                                .weight_decay = common.weight_decay,
                                .trust = options_.trust,
                                .larc_eps = options_.larc_eps,
                                .nesterov = options_.nesterov},
                               slots);
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options)
    : Optimizer(std::move(groups), {"exp_avg", "exp_avg_sq"}, true, options.weight_decay, options.decay_vectors),
      options_(options) {}

void AdamW::update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) {
  kernels::backend(device).adamw({.lr = common.lr,
                                  .beta1 = options_.beta1,
                                  .beta2 = options_.beta2,
                                  .eps = options_.eps,
                                  .weight_decay = common.weight_decay,
                                  .step = common.step},
                                 slots);
}

std::unique_ptr<Optimizer> Recipe::build(std::vector<ParameterGroup> groups) const {
  if (kind == Kind::adamw) return std::make_unique<AdamW>(std::move(groups), adamw);
  return std::make_unique<Sgd>(std::move(groups), sgd);
}

std::unique_ptr<Optimizer> Recipe::build(std::vector<NamedTensor> parameters) const {
  return build(std::vector<ParameterGroup>{{std::move(parameters)}});
}

Recipe larc_sgd(SgdOptions options) {
  if (options.trust == 0.f) options.trust = 1e-3f;
  return sgd(options);
}
Recipe sgd(SgdOptions options) { return {.kind = Recipe::Kind::sgd, .sgd = options}; }
Recipe adamw(AdamWOptions options) { return {.kind = Recipe::Kind::adamw, .adamw = options}; }

}  // namespace saccade::optim
