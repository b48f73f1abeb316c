#pragma once

#include <saccade/kernels/optimizer.h>
#include <saccade/nn/module.h>

#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

namespace saccade::optim {

/// Parameters that are updated alike. Names are unique over all groups of an optimiser.
struct ParameterGroup {
  std::vector<NamedTensor> parameters;
  float lr_scale = 1.f;                    ///< times the learning rate given to step()
  std::optional<float> weight_decay = {};  ///< instead of the optimiser's own
};

/// Updates parameters from their gradients. Parameters and gradients are f32, states too unless options say otherwise.
///
/// A parameter whose gradient is undefined (a frozen one) is passed over entirely: no momentum, no decay, no state.
/// States are made at a parameter's first update, or by reserve(), under Tag::optimizer.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update of every parameter that has a gradient.
  void step(float lr);
  /// loss.backward() with the updates inside: each parameter is updated the moment its gradient is complete (after the
  /// hooks of HookStage::reduce, and those that they wait for), and the gradient is dropped at once, so that gradients
  /// never exist all together. The same bits as backward(), step(lr), zero_grad().
  ///
  /// Throws when a parameter has a gradient already: it would be summed with that of this backward(), and gradients
  /// that are summed, clipped by their common norm, or checked for overflow are needed whole before the first update.
  /// When backward() throws, the parameters it had reached are updated, the others are not.
  void backward_and_step(const Tensor& loss, float lr);
  /// Drops all gradients.
  void zero_grad();
  /// Multiplies all gradients by a factor, in place. False when one of them is infinite or no number (not looked at on
  /// the meta device).
  bool scale_gradients(float factor);
  /// Scales all gradients down, in place, so that the norm of all of them together is at most `norm`; returns what it
  /// was (0 on the meta device). A norm that is not finite is left alone.
  float clip_gradients(float norm);
  /// Makes the states of all parameters now, as zeros, so that they lie in the arena behind the parameters and before
  /// all that comes and goes. Nothing else changes.
  void reserve();

  const std::vector<ParameterGroup>& groups() const { return groups_; }

  /// What a resumed run needs, "<state>.<parameter>" each, in the order of the parameters; those updated so far only.
  std::vector<NamedTensor> state() const;
  /// Takes over a state() of an optimiser of this kind for the same parameters, copying the values.
  /// Throws on names or shapes that do not fit; this optimiser is then unchanged.
  void load_state(const std::vector<NamedTensor>& state);

 protected:
  /// @param states        the names of the tensors kept for each parameter, of its shape (at most two)
  /// @param counts_steps  whether each parameter's number of updates is part of the state
  /// @param decay_vectors false: no weight decay for parameters of rank 1 (biases, batch norm)
  Optimizer(std::vector<ParameterGroup> groups, std::vector<const char*> states, bool counts_steps, float weight_decay,
            bool decay_vectors, DType state_dtype = DType::f32);

  /// What the tensors of one multi-tensor update have in common.
  struct Common {
    float lr = 0.f, weight_decay = 0.f;
    int64_t step = 1;  ///< 1 always unless counts_steps
    friend bool operator<(const Common& a, const Common& b) {
      return std::tie(a.lr, a.weight_decay, a.step) < std::tie(b.lr, b.weight_decay, b.step);
    }
  };
  virtual void update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) = 0;

 private:
  /// A parameter and its states.
  struct Entry {
    NamedTensor parameter;
    float lr_scale, weight_decay;
    std::vector<Tensor> states = {};  ///< one for each of state_names_, or none yet
    int64_t updates = 0;              ///< so far; 0: the states are zeros, if they are there
  };
  void make_states(Entry& entry) const;
  /// The call that updates a parameter from its gradient, which must be there; counts the update.
  std::pair<Common, kernels::ParameterSlot> prepare(Entry& entry, float lr);
  void update_at_once(Entry& entry, float lr);

  std::vector<ParameterGroup> groups_;
  std::vector<const char*> state_names_;
  bool counts_steps_;
  DType state_dtype_;
  std::vector<Entry> entries_;                                ///< in the order of the parameters
  std::vector<std::shared_ptr<const autograd::Hook>> hooks_;  ///< on the parameters, once an update was fused
  std::optional<float> fused_lr_;                             ///< within backward_and_step
};

struct SgdOptions {
  float momentum = 0.9f, weight_decay = 0.f;
  bool nesterov = false;
  float trust = 0.f;  ///< > 0: LARC with that trust coefficient (see kernels::Sgd); SwAV: 0.001
  float larc_eps = 1e-8f;
  bool decay_vectors = true;  ///< false: no weight decay on biases and batch norm. SwAV decays all
  /// f32, or bf16 with stochastic rounding: half the memory (see kernels::Sgd). The random numbers follow from a
  /// parameter's place and its number of updates, so that a resumed run draws the same.
  DType momentum_dtype = DType::f32;
};

/// Stochastic gradient descent with momentum and, if asked, LARC. State: `momentum.<parameter>`, and
/// `step.<parameter>` (one i64) where the momentum is bf16.
class Sgd final : public Optimizer {
 public:
  Sgd(std::vector<ParameterGroup> groups, const SgdOptions& options);
  Sgd(std::vector<NamedTensor> parameters, const SgdOptions& options)
      : Sgd(std::vector<ParameterGroup>{{std::move(parameters)}}, options) {}

 private:
  void update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) override;
  SgdOptions options_;
};

struct AdamWOptions {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.01f;
  bool decay_vectors = true;  ///< false: no weight decay on biases and batch norm
};

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019). Bias correction counts each parameter's own updates.
/// State: `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>` (one i64).
class AdamW final : public Optimizer {
 public:
  AdamW(std::vector<ParameterGroup> groups, const AdamWOptions& options);
  AdamW(std::vector<NamedTensor> parameters, const AdamWOptions& options)
      : AdamW(std::vector<ParameterGroup>{{std::move(parameters)}}, options) {}

 private:
  void update(Device device, const Common& common, const std::vector<kernels::ParameterSlot>& slots) override;
  AdamWOptions options_;
};

/// Which optimiser a run uses: a value, so that a configuration can hold it before there are parameters.
struct Recipe {
  enum class Kind : uint8_t { sgd, adamw } kind = Kind::sgd;
  SgdOptions sgd = {};
  AdamWOptions adamw = {};
  std::unique_ptr<Optimizer> build(std::vector<ParameterGroup> groups) const;
  std::unique_ptr<Optimizer> build(std::vector<NamedTensor> parameters) const;
};

/// SwAV's: momentum 0.9, weight decay 1e-6 on all parameters, LARC with trust 0.001 (unless the options set another).
Recipe larc_sgd(SgdOptions options = {.weight_decay = 1e-6f});
Recipe sgd(SgdOptions options = {});
Recipe adamw(AdamWOptions options = {});

}  // namespace saccade::optim
