#include <saccade/nn/optim/loss_scale.h>

namespace saccade::optim {

bool LossScale::unscale(Optimizer& optimizer) {
  const bool finite = optimizer.scale_gradients(1.f / value_);
  if (!finite) {
    value_ /= 2;
    good_steps_ = 0;
  } else if (++good_steps_ >= options_.growth_interval) {
    value_ *= 2;
    good_steps_ = 0;
  }
  return finite;
}

}  // namespace saccade::optim
