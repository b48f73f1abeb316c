#pragma once

#include <saccade/nn/optim/optimizer.h>

#include <cstdint>

namespace saccade::optim {

struct LossScaleOptions {
  float first = 65536.f;           ///< 2^16
  int64_t growth_interval = 2000;  ///< good steps in a row after which the scale is doubled
};

/// Dynamic loss scaling for f16 (Micikevicius et al., "Mixed precision training", 2018): the loss is multiplied before
/// backward, so that small gradients of activations do not vanish below 6e-8, and the parameters' gradients are divided
/// again before the update. Where one has overflowed the step is left out and the scale is halved; after
/// `growth_interval` good steps it is doubled.
///
///     scale(loss, loss_scale.value()).backward();
///     if (loss_scale.unscale(optimizer)) optimizer.step(lr);
///     optimizer.zero_grad();
class LossScale {
 public:
  explicit LossScale(LossScaleOptions options = {}) : options_(options), value_(options.first) {}

  /// What the next loss is to be multiplied by.
  float value() const { return value_; }
  /// Divides all gradients by value(), in place, and sets the next value. False when one of them is infinite or no
  /// number: no step must be made of them. (On the meta device always true.)
  bool unscale(Optimizer& optimizer);

  /// Good steps since the last change: with value() all that a resumed run needs.
  int64_t good_steps() const { return good_steps_; }
  void restore(float value, int64_t good_steps) {
    value_ = value;
    good_steps_ = good_steps;
  }

 private:
  LossScaleOptions options_;
  float value_;
  int64_t good_steps_ = 0;
};

}  // namespace saccade::optim
