#pragma once

#include <saccade/kernels/call.h>

#include <string_view>
#include <vector>

/// @file
/// Optimisers: one call updates many tensors.

namespace saccade::kernels {

/// One parameter tensor of a multi-tensor update. All f32 but for a momentum in bf16; state2 is null where the
/// optimiser has one state only.
struct ParameterSlot {
  float* parameter = nullptr;
  const float* gradient = nullptr;
  void* state1 = nullptr;  ///< momentum (Sgd::momentum_dtype), or AdamW's first moment (f32)
  void* state2 = nullptr;  ///< AdamW's second moment (f32)
  int64_t elements = 0;
  uint64_t stream = 0;  ///< this tensor's own sequence of random numbers (bf16 momentum)
};

/// One gradient of a multi-tensor pass over gradients, f32, changed in place.
struct GradientSlot {
  float* gradient = nullptr;
  int64_t elements = 0;
};

/// One tensor and the one whose values it follows, f32.
struct AverageSlot {
  float* average = nullptr;
  const float* from = nullptr;
  int64_t elements = 0;
};

/// SGD with momentum; with trust > 0 each tensor's gradient is first scaled by LARC (You et al. 2017, as in apex, no
/// clip): r = trust*|p| / (|g| + wd*|p| + eps); g <- (g + wd*p)*r, only where |p| and |g| are non-zero (elsewhere the
/// gradient is used as it is, without weight decay). Then m <- momentum*m + g; p <- p - lr*m (Nesterov: g +
/// momentum*m).
///
/// A momentum in bf16 is rounded stochastically: to the neighbour below or above with the probabilities that keep its
/// expectation, since to the nearest, updates below 1/256 of m would be lost for ever (Gupta et al. 2015). p takes m
/// before the rounding. Element i draws the upper 16 bits of word i / 16 % 4 of Philox4x32-10 block i / 64 * 16 + i %
/// 16 of key `rounding_seed` and the slot's stream: no matter how tensors are grouped in calls or shared out to
/// threads.
struct Sgd {
  float lr = 0.1f, momentum = 0.9f, weight_decay = 0.f;
  float trust = 0.f;  ///< 0: plain SGD (weight decay is then added to every gradient)
  float larc_eps = 1e-8f;
  bool nesterov = false;
  DType momentum_dtype = DType::f32;  ///< f32 or bf16
  uint64_t rounding_seed = 0;         ///< bf16: another one each step
};

/// AdamW (Loshchilov & Hutter 2019): p <- p*(1 - lr*wd) - lr * m_hat / (sqrt(v_hat) + eps).
struct AdamW {
  float lr = 1e-3f, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0.01f;
  int64_t step = 1;  ///< number of this update, from 1 (bias correction)
};

struct SgdUpdate {
  Sgd settings = {};
  std::vector<ParameterSlot> slots = {};
  void* workspace = nullptr;
  static constexpr std::string_view name = "sgd";
  static void operands(auto& c, auto&& visit) {
    for (auto& s : c.slots) {
      visit(s.parameter, bytes_of_floats(s.elements), Use::update);
      visit(s.gradient, bytes_of_floats(s.elements), Use::read);
      visit(s.state1, bytes_of(c.settings.momentum_dtype, s.elements), optional(Use::update));
    }
  }
  static void shape(auto& c, auto&& visit) {
    visit(c.slots), visit(c.settings.momentum_dtype), visit(c.settings.trust);
  }
};

struct AdamWUpdate {
  AdamW settings = {};
  std::vector<ParameterSlot> slots = {};
  static constexpr std::string_view name = "adamw";
  static void operands(auto& c, auto&& visit) {
    for (auto& s : c.slots) {
      visit(s.parameter, bytes_of_floats(s.elements), Use::update);
      visit(s.gradient, bytes_of_floats(s.elements), Use::read);
      visit(s.state1, bytes_of_floats(s.elements), Use::update);
      visit(s.state2, bytes_of_floats(s.elements), Use::update);
    }
  }
  static void shape(auto& c, auto&& visit) { visit(c.slots); }
};

/// gradient *= factor for every slot (loss scaling undone). *nonfinite (one float on the device) becomes 1 if any
/// gradient was infinite or NaN, and is left alone otherwise, so that several calls can share it.
struct Unscale {
  float factor = 1;
  std::vector<GradientSlot> slots = {};
  float* nonfinite = nullptr;
  static constexpr std::string_view name = "unscale";
  static void operands(auto& c, auto&& visit) {
    for (auto& s : c.slots) visit(s.gradient, bytes_of_floats(s.elements), Use::update);
    visit(c.nonfinite, bytes_of_floats(1), Use::write);
  }
  static void shape(auto& c, auto&& visit) { visit(c.slots); }
};

/// average = momentum * average + (1 - momentum) * from for every slot (a mean teacher: Tarvainen & Valpola 2017).
struct MovingAverage {
  float momentum = 0;
  std::vector<AverageSlot> slots = {};
  static constexpr std::string_view name = "moving_average";
  static void operands(auto& c, auto&& visit) {
    for (auto& s : c.slots) {
      visit(s.average, bytes_of_floats(s.elements), Use::update);
      visit(s.from, bytes_of_floats(s.elements), Use::read);
    }
  }
  static void shape(auto& c, auto&& visit) { visit(c.slots); }
};

}  // namespace saccade::kernels
