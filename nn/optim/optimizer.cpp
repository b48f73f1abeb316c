#include <fmt/format.h>
#include <saccade/core/allocator.h>
#include <saccade/core/autograd.h>
#include <saccade/core/compute.h>
#include <saccade/core/layer.h>
#include <saccade/core/ops.h>
#include <saccade/nn/optim/optimizer.h>

#include <cmath>
#include <map>
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
                     float weight_decay, bool decay_vectors, DType state_dtype)
    : groups_(std::move(groups)),
      state_names_(std::move(states)),
      counts_steps_(counts_steps),
      state_dtype_(state_dtype) {
  std::set<std::string_view> names;
  for (const ParameterGroup& group : groups_)
    for (const NamedTensor& p : group.parameters) {
      if (!names.insert(p.name).second) fail(fmt::format("optimizer: two parameters are named {}", p.name));
      const bool decayed = decay_vectors || p.tensor.rank() != 1;
      entries_.push_back({.parameter = p,
                          .lr_scale = group.lr_scale,
                          .weight_decay = decayed ? group.weight_decay.value_or(weight_decay) : 0.f});
    }
}

void Optimizer::make_states(Entry& entry) const {
  const TagScope tag(Tag::optimizer);
  const Tensor& parameter = entry.parameter.tensor;
  const DeviceScope device(parameter.device());
  while (entry.states.size() < state_names_.size())
    entry.states.push_back(Tensor::zeros(parameter.shape(), state_dtype_));
}

void Optimizer::reserve() {
  for (Entry& entry : entries_) make_states(entry);
}

std::pair<Optimizer::Common, kernels::ParameterSlot> Optimizer::prepare(Entry& entry, float lr) {
  const auto& [name, parameter] = entry.parameter;
  const Tensor gradient = parameter.grad();
  if (gradient.shape() != parameter.shape() || gradient.device() != parameter.device())
    fail(fmt::format("optimizer: the gradient of {} is {} on {}, expected {} on {}", name, to_string(gradient.shape()),
                     name_of(gradient.device()), to_string(parameter.shape()), name_of(parameter.device())));
  make_states(entry);
  const kernels::ParameterSlot slot{.parameter = f32(parameter, "the value", name),
                                    .gradient = f32(gradient, "the gradient", name),
                                    .state1 = entry.states[0].raw(),
                                    .state2 = state_names_.size() > 1 ? entry.states[1].raw() : nullptr,
                                    .elements = parameter.numel(),
                                    .stream = static_cast<uint64_t>(&entry - entries_.data())};
  ++entry.updates;
  parameter.bump_version();
  return {{.lr = lr * entry.lr_scale, .weight_decay = entry.weight_decay, .step = counts_steps_ ? entry.updates : 1},
          slot};
}

void Optimizer::step(float lr) {
  const PhaseScope phase(Phase::optimizer);
  for (Entry& entry : entries_)  // before anything counts as updated: memory may run out
    if (entry.parameter.tensor.grad().defined()) make_states(entry);
  // One backend call for all tensors that share device and hyper-parameters: as a rule, one in all.
  std::map<std::pair<Device, Common>, std::vector<kernels::ParameterSlot>> calls;
  for (Entry& entry : entries_) {
    if (!entry.parameter.tensor.grad().defined()) continue;
    const auto [common, slot] = prepare(entry, lr);
    calls[{entry.parameter.tensor.device(), common}].push_back(slot);
  }
  for (const auto& [key, slots] : calls) update(key.first, key.second, slots);
}

void Optimizer::update_at_once(Entry& entry, float lr) {
  const PhaseScope phase(Phase::optimizer);
  const Tensor& parameter = entry.parameter.tensor;
  const auto [common, slot] = prepare(entry, lr);
  update(parameter.device(), common, {slot});
  parameter.set_grad({});
}

void Optimizer::backward_and_step(const Tensor& loss, float lr) {
  for (const Entry& entry : entries_)
    if (entry.parameter.tensor.grad().defined())
      fail(
          fmt::format("optimizer: {} has a gradient already, and an update fused into backward must not take part of "
                      "a sum for the whole: drop it (zero_grad), or accumulate with backward() and step()",
                      entry.parameter.name));
  if (hooks_.empty())
    for (Entry& entry : entries_)
      hooks_.push_back(entry.parameter.tensor.on_gradient_ready(autograd::HookStage::update,
                                                                [this, &entry](const autograd::GradientReady&) {
                                                                  if (fused_lr_) update_at_once(entry, *fused_lr_);
                                                                }));
  struct Idle {
    std::optional<float>& lr;
    ~Idle() { lr.reset(); }
  } const idle_afterwards{fused_lr_};
  fused_lr_ = lr;
  loss.backward();
}

void Optimizer::zero_grad() {
  for (const Entry& entry : entries_) entry.parameter.tensor.set_grad({});
}

bool Optimizer::scale_gradients(float factor) {
  std::map<Device, std::vector<kernels::GradientSlot>> gradients;  // of one device, as a rule
  for (const Entry& entry : entries_)
    if (const Tensor gradient = entry.parameter.tensor.grad(); gradient.defined()) {
      gradient.bump_version();
      gradients[gradient.device()].push_back({f32(gradient, "the gradient", entry.parameter.name), gradient.numel()});
    }
  bool finite = true;
  for (const auto& [device, slots] : gradients) {
    const DeviceScope scope(device);
    const Tensor nonfinite = Tensor::zeros({1});
    compute(device, kernels::Unscale{factor, slots, static_cast<float*>(nonfinite.raw())});
    finite = finite && (device == Device::meta || nonfinite.to(Device::cpu).item() == 0.f);
  }
  return finite;
}

float Optimizer::clip_gradients(float norm) {
  const NoGradScope no_grad;
  double squares = 0;
  for (const Entry& entry : entries_)
    if (const Tensor gradient = entry.parameter.tensor.grad(); gradient.defined()) {
      const Tensor square = inner_product(gradient, gradient);
      if (square.device() != Device::meta) squares += double{square.to(Device::cpu).item()};
    }
  const double all = std::sqrt(squares);
  if (all > double{norm} && std::isfinite(all)) scale_gradients(static_cast<float>(double{norm} / all));
  return static_cast<float>(all);
}

std::vector<NamedTensor> Optimizer::state() const {
  std::vector<NamedTensor> result;
  for (const Entry& entry : entries_) {
    if (entry.updates == 0) continue;
    const std::string& name = entry.parameter.name;
    for (size_t i = 0; i < state_names_.size(); ++i)
      result.push_back({fmt::format("{}.{}", state_names_[i], name), entry.states[i]});
    if (!counts_steps_) continue;
    const DeviceScope device(Device::cpu);
    Tensor step = Tensor::empty({1}, DType::i64);
    step.data<int64_t>()[0] = entry.updates;
    result.push_back({"step." + name, step});
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
  // Everything is checked before anything is changed.
  struct Loaded {
    std::vector<Tensor> states;
    int64_t updates = 0;
  };
  std::vector<Loaded> loaded(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    const NamedTensor& p = entries_[i].parameter;
    auto& [states, updates] = loaded[i];
    for (const char* kind : state_names_) {
      const Tensor t = take(fmt::format("{}.{}", kind, p.name), p.tensor.shape(), state_dtype_);
      if (t.defined()) states.push_back(t.to(p.tensor.device()));
    }
    const Tensor step = counts_steps_ ? take("step." + p.name, {1}, DType::i64) : Tensor();
    if (states.empty() && !step.defined()) continue;
    if (states.size() != state_names_.size() || step.defined() != counts_steps_)
      fail(fmt::format("optimizer state: of parameter {} only a part was given", p.name));
    updates = step.defined() ? step.data<int64_t>()[0] : 1;
  }
  if (!given.empty())
    fail(fmt::format("optimizer state: {} belongs to no parameter of this optimizer ({} such)", given.begin()->first,
                     given.size()));
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    entry.updates = loaded[i].updates;
    if (entry.updates > 0) make_states(entry);
    // In place, so that reserved states stay where they are.
    for (size_t s = 0; s < entry.states.size(); ++s)
      if (entry.updates > 0)
        entry.states[s].copy_from(loaded[i].states[s]);
      else
        entry.states[s].fill(0.f);
  }
}

Sgd::Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options)
    : Optimizer(std::move(groups), {"momentum"}, options.momentum_dtype != DType::f32, options.weight_decay,
                options.decay_vectors, options.momentum_dtype),
      options_(options) {
  if (options.momentum_dtype != DType::f32 && options.momentum_dtype != DType::bf16)
    fail(fmt::format("optimizer: a momentum in {}; expected f32 or bf16", name_of(options.momentum_dtype)));
}

void Sgd::update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) {
  compute(device, kernels::SgdUpdate{{.lr = common.lr,
                                      .momentum = options_.momentum,
                                      .weight_decay = common.weight_decay,
                                      .trust = options_.trust,
                                      .larc_eps = options_.larc_eps,
                                      .nesterov = options_.nesterov,
                                      .momentum_dtype = options_.momentum_dtype,
                                      .rounding_seed = static_cast<uint64_t>(common.step)},
                                     slots});
}

AdamW::AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options)
    : Optimizer(std::move(groups), {"exp_avg", "exp_avg_sq"}, true, options.weight_decay, options.decay_vectors),
      options_(options) {}

void AdamW::update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) {
  compute(device, kernels::AdamWUpdate{{.lr = common.lr,
                                        .beta1 = options_.beta1,
                                        .beta2 = options_.beta2,
                                        .eps = options_.eps,
                                        .weight_decay = common.weight_decay,
                                        .step = common.step},
                                       slots});
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
